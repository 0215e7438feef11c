"""Publishing over real HTTP: what is pushed, what a stranger's process makes of it, and what never gets there."""

import json
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub_double import HubDouble
from hub_models import PNG, run_python, save_tiny, tiny_fields
from hub_repos import Blob
from safetensors.torch import load_file, save_file
from warm import Warm

from configuration_csmae import VARIANTS, CSMAEConfig
from csmae_hf.commands.main import main
from csmae_hf.hub.publish_model import PublishOptions, stage_model
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForImageClassification, CSMAEForPreTraining, CSMAEModel

STRANGER = Path(__file__).resolve().parents[1] / "hub_stranger.py"
CODE = {
    "configuration_csmae.py",
    "image_checks_csmae.py",
    "image_processing_csmae.py",
    "modeling_csmae.py",
    "pipeline_csmae.py",
}
PUSHES = """
import json, sys
from csmae_hf.commands.main import main
from csmae_hf.hub.publish_model import PublishOptions, push_folder
from modeling_csmae import CSMAEForPreTraining
from image_processing_csmae import CSMAEImageProcessor

commits = {}
for variant in sys.argv[1:]:
    commits[variant] = push_folder(variant, f"tester/{variant}").commit
    push_folder(variant, "tester/all", PublishOptions(subfolder=variant))
commits["again"] = push_folder("sesd", "tester/sesd").commit
push_folder("sesd", "tester/encoder")
commits["encoder"] = push_folder("sesd", "tester/encoder", PublishOptions(encoder_only=True)).commit
push_folder("secd", "tester/moved")
commits["moved"] = push_folder("sesd", "tester/moved").commit
CSMAEForPreTraining.from_pretrained("cecd").push_to_hub("tester/bare")
CSMAEImageProcessor.from_pretrained("cecd").push_to_hub("tester/bare")
assert main(["push", "sesd", "tester/shown", "--public", "--license", "mit", "--datasets", "tester/tiles"]) == 0
assert main(["push", "sesd", "tester/branched", "--revision", "trial"]) == 0
further = CSMAEForPreTraining.from_pretrained("tester/sesd", output_loading_info=True)[1]
from transformers import pipeline
commits["untold"] = type(pipeline(model="tester/sesd")).__module__
commits["further"] = sorted(further["missing_keys"]) + sorted(further["unexpected_keys"])
print(json.dumps(commits))
"""


_TILE = "import numpy\ntile = {name: value for name, value in numpy.load('../tile.npz').items()}\n"
PARTS = {
    "pipeline": f"""{_TILE}from transformers import pipeline
pipe = pipeline(model="tester/sesd", trust_remote_code=True)
places = numpy.array(pipe({{"s2": tile}}, pool=True))""",
    "backbone": f"""{_TILE}from transformers import AutoBackbone, AutoProcessor
backbone = AutoBackbone.from_pretrained("tester/sesd", trust_remote_code=True, out_indices=[0, 2]).eval()
processor = AutoProcessor.from_pretrained("tester/sesd", trust_remote_code=True)
places = backbone(**processor(s1=tile)).feature_maps[1].detach().numpy()""",
}
"""Further things of Transformers that a repository must work in."""


def draw_tile() -> dict[str, np.ndarray]:
    """Bands of one tile at their own sizes."""
    generator = np.random.default_rng(0)
    processor = CSMAEImageProcessor()
    tile = {band: generator.normal(-15, 4, (120, 120)).astype(np.float32) for band in processor.sensors["s1"]}
    tile |= {band: generator.integers(50, 5000, (60, 60), dtype=np.uint16) for band in processor.sensors["s2"]}
    full = ("B02", "B03", "B04", "B08")
    return tile | {band: generator.integers(50, 5000, (120, 120), dtype=np.uint16) for band in full}


@dataclass
class World:
    """Everything that was pushed, and what a stranger saw."""

    hub: HubDouble
    folder: Path
    models: dict[str, CSMAEForPreTraining]
    commits: dict[str, Any]
    output: str
    report: dict[str, Any]
    canary: Path

    def embeds(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / "seen" / f"{name}.safetensors")


@pytest.fixture(scope="module")
def world(open_hub: HubDouble, warm_at_hub: Warm, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("publish")
    models = {variant: save_tiny(folder / variant, variant, seed) for seed, variant in enumerate(VARIANTS)}
    canary = folder / "canary"
    pushed = warm_at_hub.run(["-c", PUSHES, *VARIANTS], cwd=folder)
    assert pushed.returncode == 0, pushed.stderr
    commits = json.loads(pushed.stdout.splitlines()[-1])
    plant_canary(open_hub, canary)
    (folder / "seen").mkdir()
    np.savez(folder / "tile.npz", **draw_tile())  # type: ignore[arg-type]
    tasks = {
        "threads": torch.get_num_threads(),
        "tile": str(folder / "tile.npz"),
        "tasks": make_tasks(open_hub, commits),
    }
    (folder / "tasks.json").write_text(json.dumps(tasks))
    seen = subprocess.run(
        [sys.executable, "-I", str(STRANGER), str(folder / "tasks.json"), str(folder / "seen")],
        env=open_hub.env(folder / "stranger", OMP_NUM_THREADS="1"),
        cwd=folder / "seen",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert seen.returncode == 0, seen.stderr[-3000:]
    report = json.loads((folder / "seen" / "report.json").read_text())
    output = pushed.stdout + pushed.stderr + seen.stdout + seen.stderr
    return World(open_hub, folder, models, commits, output, report, canary)


def plant_canary(hub: HubDouble, canary: Path) -> None:
    """A repository whose code leaves a trace when it is run."""
    repo = hub.repos[("model", "tester/moved")]
    files = dict(repo.commits[repo.branches["main"]].files)
    for name in CODE:
        trace = f"\nopen({str(canary)!r}, 'a').write({name!r})\n"
        files[name] = Blob.regular(hub.content(files[name]) + trace.encode())
    repo.branches["canary"] = repo.branches["main"]
    repo.add_commit("canary", "canary", "", files)


def make_tasks(hub: HubDouble, commits: dict[str, Any]) -> list[dict[str, Any]]:
    """What the stranger tries; the canary without trust comes first, and is looked for by a task between."""
    trusted = {"trust_remote_code": True}
    tasks: list[dict[str, Any]] = []
    for auto in ("AutoModel", "AutoModelForPreTraining", "AutoImageProcessor", "AutoConfig"):
        place = {"pretrained_model_name_or_path": "tester/moved", "revision": "canary"}
        tasks.append({"name": f"untrusted_{auto}", "auto": auto, "place": place})
    tasks.append({"name": "traces", "code": "import os\nimport numpy\nplaces = numpy.array(sorted(os.listdir('..')))"})
    tasks.append({"name": "canary", "auto": "AutoModel", "place": {**place, **trusted}})
    for variant in VARIANTS:
        place = {"pretrained_model_name_or_path": f"tester/{variant}", "revision": commits[variant], **trusted}
        tasks.append({"name": variant, "auto": "AutoModel", "place": place})
        tasks.append({"name": f"{variant}_pretraining", "auto": "AutoModelForPreTraining", "place": place})
        sub = {"pretrained_model_name_or_path": "tester/all", "subfolder": variant, **trusted}
        tasks.append({"name": f"{variant}_subfolder", "auto": "AutoModel", "place": sub})
    tasks.append({"name": "processor", "auto": "AutoImageProcessor", "place": place})
    tasks.append({"name": "processor_subfolder", "auto": "AutoImageProcessor", "place": sub})
    for name in ("encoder", "bare"):
        place = {"pretrained_model_name_or_path": f"tester/{name}", **trusted}
        tasks.append({"name": name, "auto": "AutoModel", "place": place})
    card = hub.files("tester/sesd")["README.md"].decode()
    code = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert len(code) == 1
    assert len(code[0].splitlines()) <= 12
    tasks.append({"name": "snippet", "code": code[0]})
    tasks += [{"name": name, "code": text} for name, text in PARTS.items()]
    return tasks


def reference(model: CSMAEForPreTraining) -> dict[str, torch.Tensor]:
    tile = draw_tile()
    with torch.no_grad():
        embeds = model.csmae(**CSMAEImageProcessor()(s1=tile, s2=tile)).embeds
    return {f"embeds_{sensor}": value for sensor, value in embeds.items()}


def test_a_push_holds_all_that_a_stranger_needs_and_no_pickle(world: World) -> None:
    files = world.hub.files("tester/sesd")
    names = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md", "example.png"}
    assert set(files) == names | CODE
    auto_map = json.loads(files["config.json"])["auto_map"]
    assert {"AutoConfig", "AutoModel", "AutoModelForPreTraining"} <= set(auto_map)
    for name in CODE:
        assert files[name] == (Path(__file__).resolve().parents[2] / name).read_bytes()
    assert str(world.folder) not in "".join(content.decode(errors="ignore") for content in files.values())


def test_private_unless_the_person_says_public(world: World) -> None:
    private = {name: repo.private for (_, name), repo in world.hub.repos.items()}
    assert private.pop("tester/shown") is False
    assert all(private.values()), private
    assert "tester/bare" in private


def test_the_strangers_process_has_nothing_of_the_project(world: World) -> None:
    hidden = set(world.report["hidden"])
    assert {"csmae_hf", "modeling_csmae", "datasets", "lmdb", "accelerate"} <= hidden
    assert not hidden & set(world.report["imported"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_embeds_bit_for_bit_the_same_at_its_commit(world: World, variant: str) -> None:
    expected = reference(world.models[variant])
    classes = {variant: "CSMAEModel", f"{variant}_subfolder": "CSMAEModel"}
    classes[f"{variant}_pretraining"] = "CSMAEForPreTraining"
    for name, expected_class in classes.items():
        assert world.report[name].get("class") == expected_class, world.report[name]
        assert world.report[name]["module"].startswith("transformers_modules.")
        found = world.embeds(name)
        for sensor, value in expected.items():
            assert torch.equal(found[sensor], value)
            assert value.std() > 0.1


def test_the_encoder_alone_embeds_the_same_and_has_no_decoder(world: World) -> None:
    found, expected = world.embeds("encoder"), reference(world.models["sesd"])
    assert all(torch.equal(found[sensor], value) for sensor, value in expected.items())
    files = world.hub.files("tester/encoder")
    assert len(files["model.safetensors"]) < len(world.hub.files("tester/sesd")["model.safetensors"])
    assert json.loads(files["config.json"])["architectures"] == ["CSMAEModel"]
    assert b"decoders are not included" in files["README.md"]


def test_the_processor_comes_by_its_auto_class(world: World) -> None:
    for name in ("processor", "processor_subfolder"):
        assert world.report[name]["class"] == "CSMAEImageProcessor", world.report[name]


def test_a_full_push_can_be_trained_further(world: World) -> None:
    assert world.commits["further"] == []


def test_a_repeated_push_makes_no_commit(world: World) -> None:
    assert world.commits["again"] == world.commits["sesd"]


def test_pushing_another_model_leaves_nothing_of_the_one_before(world: World) -> None:
    moved, fresh = world.hub.files("tester/moved"), world.hub.files("tester/sesd")
    readme = moved.pop("README.md"), fresh.pop("README.md")
    assert moved == fresh
    assert readme[0].replace(b"moved", b"sesd") == readme[1]


def test_a_branch_is_made_and_main_left_alone(world: World) -> None:
    assert world.hub.files("tester/branched") == {}
    assert "model.safetensors" in world.hub.files("tester/branched", "trial")


def test_methods_of_model_and_processor_push_code_and_a_card_that_claims_nothing(world: World) -> None:
    files = world.hub.files("tester/bare")
    assert set(files) >= {"config.json", "model.safetensors", "preprocessor_config.json", "README.md", *CODE}
    card = files["README.md"].decode()
    assert "More Information" not in card
    assert "* s1: VH, VV" in card
    found, expected = world.embeds("bare"), reference(world.models["cecd"])
    assert all(torch.equal(found[sensor], value) for sensor, value in expected.items())


def test_the_pipeline_and_the_backbone_of_a_repository_give_what_the_model_gives(world: World) -> None:
    pixels = CSMAEImageProcessor()(s1=draw_tile(), s2=draw_tile())
    with torch.no_grad():
        expected = world.models["sesd"].csmae(**pixels, output_hidden_states=True)
    np.testing.assert_allclose(world.report["pipeline"]["places"], expected.embeds["s2"].numpy(), atol=1e-6)
    feature_map = np.array(world.report["backbone"]["places"])
    assert feature_map.shape == (1, 32, 8, 8)
    tokens = expected.hidden_states["s1"][2].numpy()
    for row, column in ((0, 0), (2, 5), (7, 7)):
        np.testing.assert_allclose(feature_map[0, :, row, column], tokens[0, 1 + 8 * row + column], atol=1e-6)


def test_with_the_package_the_card_names_the_pipeline_and_nothing_needs_trust(world: World) -> None:
    assert world.commits["untold"] == "pipeline_csmae"


def test_a_classifiers_card_names_its_own_pipeline(tmp_path: Path) -> None:
    config = CSMAEConfig.for_variant("cecd", "tiny", **tiny_fields("cecd"), num_labels=3)
    CSMAEForImageClassification(config).save_pretrained(tmp_path / "model")
    CSMAEImageProcessor().save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "example.png").write_bytes(PNG)
    for encoder_only, task in ((False, "image-classification"), (True, "image-feature-extraction")):
        out = stage_model(tmp_path / "model", tmp_path / task, "tester/one", PublishOptions(encoder_only=encoder_only))
        assert f"\npipeline_tag: {task}\n" in (out / "README.md").read_text()
        assert next(iter(json.loads((out / "config.json").read_text())["custom_pipelines"])) == task


def test_the_cards_lines_run_at_a_strangers(world: World) -> None:
    assert len(world.report["snippet"].get("places", [])) == 5, world.report["snippet"]


def test_code_of_a_repository_is_not_run_without_trust(world: World) -> None:
    for auto in ("AutoModel", "AutoModelForPreTraining", "AutoImageProcessor", "AutoConfig"):
        error = world.report[f"untrusted_{auto}"]["error"]
        assert error.startswith("ValueError")
        assert "trust_remote_code=True" in error
    assert "canary" not in world.report["traces"]["places"]
    assert world.report["canary"].get("class") == "CSMAEModel"
    assert "modeling_csmae.py" in world.canary.read_text(), "with trust it does run, so the test can fail"


def test_no_token_in_output_cards_or_files(world: World) -> None:
    assert world.hub.token not in world.output
    for (_, name), repo in world.hub.repos.items():
        for commit in repo.commits.values():
            for path, blob in commit.files.items():
                assert world.hub.token.encode() not in world.hub.content(blob), (name, path)


# What is refused


def test_what_is_not_whole_is_refused_before_any_network(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        stage_model(tmp_path / "nothing", tmp_path / "out1", "me/x")
    state = load_file(tmp_path / "model" / "model.safetensors")
    lost = {name: value for name, value in state.items() if "layernorm" not in name.lower()}
    (tmp_path / "lossy").mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / "lossy" / name).write_bytes((tmp_path / "model" / name).read_bytes())
    save_file(dict(list(lost.items())[1:]), tmp_path / "lossy" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks weights"):
        stage_model(tmp_path / "lossy", tmp_path / "out2", "me/x")
    broken = {**state, next(iter(state)): torch.full_like(state[next(iter(state))], torch.nan)}
    save_file(broken, tmp_path / "lossy" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="NaN or infinite"):
        stage_model(tmp_path / "lossy", tmp_path / "out3", "me/x")
    (tmp_path / "lossy" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "lossy" / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="pickles are never published"):
        stage_model(tmp_path / "lossy", tmp_path / "out4", "me/x")
    CSMAEImageProcessor(size=60).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="size is 60, the model's 120"):
        stage_model(tmp_path / "model", tmp_path / "out5", "me/x")
    (tmp_path / "model" / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="no preprocessor_config"):
        stage_model(tmp_path / "model", tmp_path / "out6", "me/x")
    with pytest.raises(ValueError, match="relative path inside"):
        stage_model(tmp_path / "model", tmp_path / "out7", "me/x", PublishOptions(subfolder="../up"))


def test_a_dry_run_lays_out_what_would_be_pushed_and_a_mistake_ends_in_status_2(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    (tmp_path / "model" / "example.png").unlink()  # so that one is drawn
    (tmp_path / "model" / "training_args.bin").write_bytes(b"a pickle with a token in it")
    (tmp_path / "model" / "arguments.yaml").write_text("hub_token: hf_SecretSecretSecret\ndata: /home/me/tiles\n")
    out = tmp_path / "out"
    assert main(["push", str(tmp_path / "model"), "me/x", "--encoder-only", "--dry-run", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "README.md",
        "example.png",
        *CODE,
    }
    assert (out / "example.png").stat().st_size > 1000
    text = b"".join(path.read_bytes() for path in out.iterdir())
    assert b"hf_Secret" not in text
    assert b"/home/me" not in text
    assert set(load_file(out / "model.safetensors")) == set(
        CSMAEModel(CSMAEForPreTraining.from_pretrained(tmp_path / "model").config).state_dict()
    )
    assert main(["push", str(tmp_path / "model"), "me/x", "--dry-run", str(out)]) == 2


# Interruptions

PUSH_ONE = """
import sys
from csmae_hf.commands.main import main
sys.exit(main(["push", *sys.argv[1:]]))
"""


@pytest.mark.parametrize(("method", "path", "seed"), [("PUT", "/_lfs/", 10), ("POST", "/commit/main", 11)])
def test_a_killed_push_leaves_nothing_and_its_repetition_everything(
    open_hub: HubDouble, warm_at_hub: Warm, tmp_path: Path, method: str, path: str, seed: int
) -> None:
    save_tiny(tmp_path / "model", seed=seed)  # of no other test, so that the Hub has none of it
    name = f"tester/killed{seed}"
    command = ["-c", PUSH_ONE, "model", name]
    with open_hub.failing(method, path, drop="before", hold=threading.Event(), times=99) as fault:
        pushing = warm_at_hub.start(command, cwd=tmp_path)
        assert fault.reached.wait(timeout=200)
        pushing.send_signal(signal.SIGKILL)
        assert pushing.wait().returncode == -signal.SIGKILL
    assert open_hub.files(name) == {}
    again = warm_at_hub.run(command, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    stage_model(tmp_path / "model", tmp_path / "expected", name)
    expected = {file.name: file.read_bytes() for file in (tmp_path / "expected").iterdir()}
    assert open_hub.files(name) == expected


def test_xet_carries_the_same_files(tmp_path: Path) -> None:
    pytest.importorskip("hf_xet")
    save_tiny(tmp_path / "model")
    load = (
        "import sys; from huggingface_hub import hf_hub_download as get; print(get('tester/xet', 'model.safetensors'))"
    )
    with HubDouble(xet_dir=tmp_path / "store") as hub:
        pushed = run_python(PUSH_ONE, hub.env(tmp_path / "hf"), "model", "tester/xet", cwd=tmp_path)
        if pushed.returncode and not list((tmp_path / "store").rglob("*.mdb")):
            pytest.skip(f"this hf_xet does not store in a local folder: {pushed.stderr.splitlines()[-1]}")
        assert pushed.returncode == 0, pushed.stderr
        assert not [entry for entry in hub.log if "/_lfs/" in entry[1]]
        loaded = run_python(load, hub.env(tmp_path / "other"))
        assert loaded.returncode == 0, loaded.stderr
    assert Path(loaded.stdout.strip()).read_bytes() == (tmp_path / "model" / "model.safetensors").read_bytes()
