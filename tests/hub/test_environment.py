"""What Transformers is told of the Hub by environment and argument counts wherever this package loads from it."""

import json
from pathlib import Path
from typing import Any

import pytest
from archive.test_folder import make_archive
from hub_double import HubDouble
from hub_models import run_python, save_tiny

PUSH = """
import sys
from csmae_hf.archive.archive import Archive
from csmae_hf.hub.archives import push_archive
from csmae_hf.hub.publish_model import push_folder
push_folder(sys.argv[1], "tester/model")
push_archive(Archive.load(sys.argv[2]), "tester/archive")
"""

LOAD = """
import json, logging, sys
from pathlib import Path
from csmae_hf.app.explorer import load_reconstructor
from csmae_hf.data.cache import cache_folder
from csmae_hf.embedding.encoder import load_encoder
from csmae_hf.hub.archives import pull_archive
from csmae_hf.training.arguments import ModelArguments
from csmae_hf.training.models import build_model, build_processor

def start():
    arguments = ModelArguments(model_name_or_path="tester/model")
    build_processor(arguments, build_model(arguments).config)

def load(options):
    loads = {
        "encoder": lambda: load_encoder("tester/model", **options),
        "archive": lambda: pull_archive("tester/archive", **options),
        "reconstructor": lambda: load_reconstructor("tester/model", **options),
        **({} if options else {"training": start}),
    }
    loaded = []
    for name, call in loads.items():
        try:
            call()
        except FileNotFoundError:
            continue
        loaded.append(name)
    return loaded

print(json.dumps([str(cache_folder()), *map(load, json.loads(sys.argv[1]))]))
"""
ALL = ["encoder", "archive", "reconstructor", "training"]
BY_ARGUMENT = ALL[:3]


@pytest.mark.slow
def test_caches_tokens_mirrors_and_offline_count_everywhere(hub: HubDouble, tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    make_archive(0).save(tmp_path / "archive")
    pushed = run_python(PUSH, hub.env(tmp_path / "owner"), str(tmp_path / "model"), str(tmp_path / "archive"))
    assert pushed.returncode == 0, pushed.stderr[-2000:]

    def load(home: str, *asked: dict[str, object], **changes: str) -> list[Any]:
        result = run_python(LOAD, hub.env(tmp_path / home, **changes), json.dumps(asked))
        assert result.returncode == 0, result.stderr[-2000:]
        return json.loads(result.stdout.splitlines()[-1])

    cache = {"HF_HUB_CACHE": str(tmp_path / "hub"), "CSMAE_CACHE": str(tmp_path / "own")}
    mirrored = load("mirrored", {}, {"revision": "no-such-branch"}, **cache)
    assert mirrored == [str(tmp_path / "own"), ALL, []]
    assert (tmp_path / "hub" / "models--tester--model").is_dir()
    assert (tmp_path / "hub" / "datasets--tester--archive").is_dir()
    assert not (tmp_path / "mirrored" / "hub").exists()

    before = len(hub.log)
    assert load("offline", {}, TRANSFORMERS_OFFLINE="1", HF_HUB_CACHE=cache["HF_HUB_CACHE"])[1] == ALL
    assert len(hub.log) == before, "no server is asked"

    stranger = {"HF_TOKEN": "", "HF_TOKEN_PATH": str(tmp_path / "none")}
    cached = {"cache_dir": cache["HF_HUB_CACHE"], "local_files_only": True}
    local, token = {"local_files_only": True}, {"token": hub.read_token}
    found = load("home", {}, local, cached, token, local, **stranger)
    assert found[:3] == [str(tmp_path / "home" / "csmae"), [], []]
    assert found[3:] == [BY_ARGUMENT] * 3
