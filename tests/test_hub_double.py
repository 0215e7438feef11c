"""The loopback Hub against the unmodified client: it keeps what is pushed, and fails when told to."""

import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from hub_double import HubDouble

PUSH = """
import sys
from huggingface_hub import CommitOperationAdd, HfApi
api = HfApi()
api.create_repo("tester/thing", private=True, exist_ok=True)
add = [CommitOperationAdd("a.txt", b"small"), CommitOperationAdd("w.safetensors", bytes(range(256)) * 64)]
commit = api.create_commit("tester/thing", add, commit_message="push")
print(commit.oid)
"""
LOAD = """
import sys
from huggingface_hub import HfApi, hf_hub_download
api = HfApi()
print(sorted(api.list_repo_files("tester/thing")))
for name in ("a.txt", "w.safetensors"):
    path = hf_hub_download("tester/thing", name, revision=sys.argv[1])
    print(name, len(open(path, "rb").read()))
"""


def run(code: str, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_what_is_pushed_comes_back_at_its_commit(hub: HubDouble, tmp_path: Path) -> None:
    pushed = run(PUSH, hub.env(tmp_path / "hf"))
    assert pushed.returncode == 0, pushed.stderr
    loaded = run(LOAD, hub.env(tmp_path / "other"), pushed.stdout.strip())
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.splitlines()[1:] == ["a.txt 5", "w.safetensors 16384"]
    assert hub.repos[("model", "tester/thing")].private
    stranger = run(LOAD, hub.env(tmp_path / "stranger", HF_TOKEN="hf_other"), "main")
    assert stranger.returncode != 0
    assert "401" in stranger.stderr


@pytest.mark.parametrize("drop", ["before", "after", "middle"])
def test_a_dropped_connection_is_met_by_the_clients_own_retry(hub: HubDouble, tmp_path: Path, drop: str) -> None:
    path = "/_lfs/.*" if drop != "middle" else "/preupload/"
    method = "PUT" if drop != "middle" else "POST"
    fault = hub.fail(method, path, drop=drop)
    pushed = run(PUSH, hub.env(tmp_path / "hf"))
    assert fault.reached.is_set()
    assert pushed.returncode == 0, pushed.stderr
    assert set(hub.files("tester/thing")) == {"a.txt", "w.safetensors"}


@pytest.mark.parametrize("status", [401, 403, 404, 409, 500])
def test_a_status_reaches_the_client(hub: HubDouble, tmp_path: Path, status: int) -> None:
    hub.fail("POST", "/commit/", status=status, times=9)
    pushed = run(PUSH, hub.env(tmp_path / "hf"))
    assert pushed.returncode != 0
    assert str(status) in pushed.stderr
    assert not hub.files("tester/thing")


def test_a_download_that_broke_off_is_resumed_and_whole(hub: HubDouble, tmp_path: Path) -> None:
    commit = run(PUSH, hub.env(tmp_path / "hf")).stdout.strip()
    hub.fail("GET", "/_cdn/", drop="middle")
    loaded = run(LOAD, hub.env(tmp_path / "other"), commit)
    assert loaded.returncode == 0, loaded.stderr
    assert "w.safetensors 16384" in loaded.stdout
    content = hub.files("tester/thing")["w.safetensors"]
    oid = next(iter(hub.objects))
    ask = urllib.request.Request(f"{hub.cdn}/_cdn/{oid}", headers={"Range": "bytes=100-199"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(ask) as answer:
        assert answer.status == 206
        assert answer.read() == content[100:200]
