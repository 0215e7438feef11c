"""What the Hub's refusals and broken connections become: one commit or none, and words without a token."""

import json
from pathlib import Path

import pytest
from hub_double import HubDouble
from warm import Warm

from csmae_hf.hub.upload import without_token

PUSH_EACH = """
import json, logging, os, sys, time, traceback
logging.basicConfig(level=logging.DEBUG)  # all that any library has to say
time.sleep = lambda seconds: None
from csmae_hf.hub.upload import upload_folder

folder, outcome = sys.argv[1], {}
for name in sys.argv[2:]:
    token = os.environ.get("TOKEN_OF_" + name.split("/")[-1].replace("-", "_"))
    try:
        outcome[name] = {"commit": upload_folder(folder, name, token=token, managed=["*.txt"]).commit}
    except ValueError as error:
        traceback.print_exc()
        outcome[name] = {"error": str(error), "kind": type(error).__name__}
print(json.dumps(outcome))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("upload") / "files"
    (folder / "sub").mkdir(parents=True)
    (folder / "note.txt").write_text("words")
    (folder / "sub" / "more.txt").write_text("more words")
    (folder / "weights.safetensors").write_bytes(bytes(range(256)) * 40)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_refusals_are_told_with_their_remedy_and_without_the_token(
    open_hub: HubDouble, warm_at_hub: Warm, folder: Path
) -> None:
    remedies = {401: "hf auth login", 403: "write permission", 404: "check the name", 409: "repeat", 429: "wait"}
    remedies |= {500: "repeat the command", 503: "repeat the command"}
    for status in remedies:
        open_hub.fail("POST", f"/tester/r{status}/commit/", status=status, times=99)
    names = [f"tester/r{status}" for status in remedies]
    strange = ["tester/unknown", "tester/reader", "tester/broken", "not a name"]
    broken = "hf_Torn\nInTwoSecretLines"
    tokens = {
        "TOKEN_OF_unknown": "hf_NobodyKnowsThisOne",
        "TOKEN_OF_reader": open_hub.read_token,
        "TOKEN_OF_broken": broken,
    }
    run = warm_at_hub.run(["-c", PUSH_EACH, str(folder), *names, *strange], **tokens)
    assert run.returncode == 0, run.stderr[-3000:]
    outcome = json.loads(run.stdout.splitlines()[-1])
    for status, remedy in remedies.items():
        error = outcome[f"tester/r{status}"]["error"]
        assert str(status) in error
        assert remedy in error
        assert open_hub.files(f"tester/r{status}") == {}
    assert "401" in outcome["tester/unknown"]["error"]
    assert "write permission" in outcome["tester/reader"]["error"]
    assert "copy it again" in outcome["tester/broken"]["error"]
    assert "cannot be the name" in outcome["not a name"]["error"]
    assert {entry["kind"] for entry in outcome.values()} == {"PublishError"}
    said = run.stdout + run.stderr
    for secret in (open_hub.token, *tokens.values(), "InTwoSecretLines", repr(broken)[1:-1]):
        assert secret not in said


def test_what_passes_is_tried_again_and_the_state_is_the_same(
    open_hub: HubDouble, warm_at_hub: Warm, folder: Path
) -> None:
    open_hub.fail("POST", "/tester/busy/commit/", status=503, times=2)
    open_hub.fail("POST", "/tester/early/commit/", drop="before")
    open_hub.fail("POST", "/tester/late/commit/", drop="after")  # it was carried out, only the answer was lost
    open_hub.fail("POST", "/tester/torn/commit/", drop="middle")
    open_hub.fail("PUT", "/_lfs/", drop="after")
    names = ["tester/busy", "tester/early", "tester/late", "tester/torn"]
    run = warm_at_hub.run(["-c", PUSH_EACH, str(folder), *names])
    assert run.returncode == 0, run.stderr[-3000:]
    outcome = json.loads(run.stdout.splitlines()[-1])
    for name in names:
        repo = open_hub.repos[("model", name)]
        assert open_hub.files(name) == contents(folder), outcome[name]
        assert outcome[name]["commit"] == repo.branches["main"]
        assert len(repo.commits) == 2, "the first and the push, whatever was repeated"


def test_files_that_a_push_is_in_charge_of_go_when_the_folder_lacks_them(
    open_hub: HubDouble, warm_at_hub: Warm, folder: Path, tmp_path: Path
) -> None:
    run = warm_at_hub.run(["-c", PUSH_EACH, str(folder), "tester/thing"])
    assert run.returncode == 0, run.stderr[-3000:]
    smaller = tmp_path / "smaller"
    smaller.mkdir()
    (smaller / "other.md").write_text("other")
    assert warm_at_hub.run(["-c", PUSH_EACH, str(smaller), "tester/thing"]).returncode == 0
    assert set(open_hub.files("tester/thing")) == {"other.md", "sub/more.txt", "weights.safetensors"}


def test_tokens_are_taken_out_of_any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "my-own-secret")
    text = without_token("Bearer my-own-secret, hf_AbCdEfGhIjKl and given\nsecret in 'given\\nsecret'", "given\nsecret")
    assert text == "Bearer <token>, <token> and <token> in '<token>'"
