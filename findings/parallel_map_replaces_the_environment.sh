#!/usr/bin/env bash
# Finding: after `map` with num_proc `os.environ` is another object, and who held the old one no longer changes what Python reads.
#
# Versions: datasets 5.2.0.
# Guess: `Dataset.map(..., num_proc=N)` sets TOKENIZERS_PARALLELISM for its workers and takes it back; `os.environ` itself stays.
# Seen:  `os.environ` is replaced by a deep copy. A reference from before (`from os import environ`, a library's module, pytest's monkeypatch,
#        mock.patch.dict) still changes the environment of the process, which C libraries and `putenv` see, but not what `os.environ` says;
#        children started with `env=os.environ` get the copy. So with num_proc=1, too; without num_proc nothing is replaced.
# Why it matters here: the readers of satellite images are set by the environment (GDAL_*, CPL_*, PROJ_*, AWS_*), often for a time by a context
#        manager, and reading tiles is what people spread over processes with `map`. After it, a setting taken back in one view goes on in
#        the other: a test of ours passed its cache folder on to every later test of the run, in one of many orders of the tests.
# This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet datasets==5.2.0
cd "$folder"
HF_HOME="$folder/home" HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON'
import ctypes
import os

from datasets import Dataset, disable_progress_bars

disable_progress_bars()
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p


def add(row: dict) -> dict:
    return {"twice": 2 * row["value"]}


tiles = Dataset.from_dict({"value": list(range(4))})
held = os.environ
held["GDAL_CACHEMAX"] = "256"
tiles.map(add)
assert os.environ is held
tiles.map(add, num_proc=1)
print("the same object after a map in a process of its own:", os.environ is held)
if os.environ is held:
    raise SystemExit("Changed: os.environ stays.")
del held["GDAL_CACHEMAX"]
print("taken back by the old reference: os.environ says", os.environ.get("GDAL_CACHEMAX"), "and C says", getenv(b"GDAL_CACHEMAX"))
assert os.environ.get("GDAL_CACHEMAX") == "256" and getenv(b"GDAL_CACHEMAX") is None
PYTHON
