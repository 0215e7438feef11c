"""Loading an encoder by name: code that a folder brings along runs only where somebody said so, and nobody is asked."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import make_dataset, make_model, make_processor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from csmae_hf.archive.archive import Archive
from csmae_hf.commands.main import main
from csmae_hf.embedding.encoder import load_encoder


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of a kind of model that only its own code knows; asking a person is a failure."""
    monkeypatch.setattr("builtins.input", lambda *text: pytest.fail(f"asked {text}"))
    folder = tmp_path / "foreign"
    make_model().save_pretrained(folder)
    make_processor().save_pretrained(folder)
    for path in (*folder.glob("*.py"), folder / "config.json"):
        text = path.read_text().replace('model_type = "csmae"', 'model_type = "foreign"')
        path.write_text(
            text.replace('"model_type": "csmae"', '"model_type": "foreign"').replace("CSMAEConfig", "ForeignConfig")
        )
    with (folder / "modeling_csmae.py").open("a") as file:
        file.write(f"\nopen({str(tmp_path / 'trace')!r}, 'a').write('ran ')\n")
    yield folder
    CONFIG_MAPPING._extra_content.pop("foreign", None)


def test_code_of_a_folder_runs_only_where_it_is_trusted(foreign: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"foreign brings code of its own.*--trust_remote_code.*trust_remote_code=True"
    ):
        load_encoder(str(foreign))
    assert not (tmp_path / "trace").exists()
    model, _ = load_encoder(str(foreign), trust_remote_code=True)
    assert (tmp_path / "trace").exists()
    assert type(model).__module__.startswith("transformers_modules.")


def test_an_archives_own_model_is_trusted_where_that_was_said(foreign: Path, tmp_path: Path) -> None:
    model, processor = load_encoder(str(foreign), trust_remote_code=True)
    dataset = make_dataset(4)
    Archive.build(model, processor, dataset, sensor="s2", model_name=str(foreign)).save(tmp_path / "archive")
    image = dataset[0]["s2"]
    with pytest.raises(ValueError, match="brings code of its own"):
        Archive.load(tmp_path / "archive").search(image, k=1)
    trusting = Archive.load(tmp_path / "archive", trust_remote_code=True)
    assert trusting.search(image, k=1).ids == [["tile_0000"]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"cross_sensor_encoder_depth": 3},
            r"model lacks \d+ weights of CSMAEModel, cross_sensor_encoder\.layers.* random",
        ),
        ({"intermediate_size": 40}, r"model has weights that do not fit its config\.json"),
    ],
)
def test_weights_that_would_be_drawn_at_random_are_no_model(change: dict[str, int], said: str, tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path / "model")
    make_processor().save_pretrained(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(ValueError, match=said):
        load_encoder(str(tmp_path / "model"))


def test_the_commands_say_the_option_and_take_it(foreign: Path, tmp_path: Path, caplog) -> None:
    data = tmp_path / "nothing"
    for option in ([], ["--trust-remote-code"], ["--trust_remote_code"]):
        assert main(["archive", "build", str(foreign), str(data), str(tmp_path / "out"), *option]) == 2
        asks = "--trust_remote_code" in caplog.messages[-1]
        assert asks == (not option), caplog.messages
        assert option == [] or "nothing" in caplog.messages[-1], "it got as far as the data"


def test_the_retrieval_script_says_the_option_and_takes_it(foreign: Path, tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "run_retrieval.py"
    shown = subprocess.run([sys.executable, str(script), "--help"], check=True, capture_output=True, text=True).stdout
    assert "--trust_remote_code" in shown
