import asyncio
import json
import re
import shutil
import socket
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml
from explorers import make_archive

from csmae_hf.app.opening import GENERATED_NOTICE, open_explorer, sample_explorer
from csmae_hf.commands.main import build_parser, main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("serve")
    make_archive(made)
    return made


def test_only_this_machine_is_served_unless_said_otherwise():
    arguments = build_parser().parse_args(["serve", "archive"])
    assert arguments.host == "127.0.0.1"
    assert build_parser().parse_args(["serve", "archive", "--host", "0.0.0.0"]).host == "0.0.0.0"


def test_no_archive_is_an_error_of_one_line(tmp_path, caplog):
    pytest.importorskip("gradio")
    assert main(["serve", str(tmp_path / "nothing")]) == 2
    assert "nothing" in caplog.text


def test_tiles_that_moved_are_said_and_the_page_goes_without_pictures(folder, caplog):
    shutil.copytree(folder / "tiles", folder / "elsewhere")
    (folder / "tiles").rename(folder / "gone")
    try:
        explorer = open_explorer(str(folder / "archive"))
        assert explorer.dataset is None
        assert "pass --data" in caplog.text
        with pytest.raises(FileNotFoundError, match="No tiles at"):
            open_explorer(str(folder / "archive"), data=str(folder / "tiles"))
        assert open_explorer(str(folder / "archive"), data=str(folder / "elsewhere")).dataset is not None
    finally:
        (folder / "gone").rename(folder / "tiles")


def test_the_evaluation_is_found_beside_the_archive_or_where_it_is_said_to_be(folder, tmp_path):
    assert open_explorer(str(folder / "archive")).evaluation is None
    document = {"format": "csmae-retrieval-results", "directions": []}
    (folder / "results").mkdir()
    (folder / "results" / "results.json").write_text(json.dumps(document))
    assert open_explorer(str(folder / "archive")).evaluation == document
    with pytest.raises(FileNotFoundError, match=r"No results\.json"):
        open_explorer(str(folder / "archive"), results=str(tmp_path))


def test_the_evaluation_of_one_of_several_models_is_found(tmp_path):
    (archive := make_archive(tmp_path)).rename(tmp_path / "mine")
    assert archive.name == "archive"
    document = {"format": "csmae-retrieval-results", "directions": []}
    for name, shown in (("model", document), ("other", {**document, "of": "another model"})):
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / "results" / name / "results.json").write_text(json.dumps(shown))
    assert open_explorer(str(tmp_path / "mine")).evaluation == document


def test_generated_tiles_are_called_that(folder):
    assert open_explorer(str(folder / "archive")).notice == GENERATED_NOTICE
    assert open_explorer(str(folder / "archive"), notice="Mine.").notice == "Mine."


def test_a_port_that_is_taken_names_the_option(folder):
    serve = pytest.importorskip("csmae_hf.app.serve", reason="pip install gradio")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"port {port}: .*another port by --port"):
            serve.start(open_explorer(str(folder / "archive")), port=port, block=False)


@pytest.mark.slow
def test_without_an_archive_a_sample_is_made_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = sample_explorer(tiles=80)
    assert first.notice == GENERATED_NOTICE
    assert len(first.archive) == 80
    assert len(first.evaluation["directions"]) == 4
    assert first.reconstructor() is not None
    assert sample_explorer(tiles=80).archive.identity == first.archive.identity


def test_the_space_names_what_it_is_tested_with():
    card = yaml.safe_load((ROOT / "space" / "README.md").read_text().split("---")[1])
    pinned = re.search(r"^gradio==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert card["sdk"] == "gradio"
    assert card["sdk_version"] == pinned[1]
    compile((ROOT / "space" / card["app_file"]).read_text(), card["app_file"], "exec")


def test_the_space_installs_what_the_package_needs_and_not_the_package_which_is_on_no_index():
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    wanted = settings["options"]["install_requires"].split()
    wanted += [line for extra in ("app", "geo") for line in settings["options.extras_require"][extra].split()]
    lines = (ROOT / "space" / "requirements.txt").read_text().split()
    assert [line for line in lines if not line.startswith(("--", "http"))] == wanted


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("localhost:7860", True),
        ("127.0.0.1", True),
        ("[::1]:7860", True),
        ("LOCALHOST", True),
        ("evil.example:7860", False),
        ("localhost.evil.example", False),
        ("", False),
        ("[::1", False),
        ("192.168.1.5:7860", False),
    ],
)
def test_another_name_that_leads_to_this_machine_is_not_answered(asked, answered):
    serve = pytest.importorskip("csmae_hf.app.serve")
    assert ask(serve.OnlyFromHere(hello, serve.OWN_NAMES), asked) == (200 if answered else 403)
    assert ask(serve.OnlyFromHere(hello), asked) == 200  # where --host says so


async def hello(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def ask(app, host):
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", host.encode())]}
    asyncio.run(app(scope, None, send))
    return sent[0]["status"]
