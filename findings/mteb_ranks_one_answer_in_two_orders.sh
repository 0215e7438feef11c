#!/usr/bin/env bash
# Finding: MTEB ranks one and the same answer in two orders, so that a query can have a precision of 0 and a reciprocal rank of 1 at once.
#
# Versions: mteb 2.26.24 (pytrec_eval-terrier 0.5.11 came with it).
# Guess: all numbers of a result are of one ranking: by the score that the model gave, ties in any order.
# Seen:  precision, recall, NDCG, MAP and hit rate come from trec_eval, which keeps scores in float32 and puts equal ones by descending id of
#        the document; MRR is computed by MTEB itself, in float64. Where the best document leads by 1e-9, which float32 does not see at 0.5,
#        its id decides: P@1 is 0.0 and MRR@1 is 1.0. With the ids exchanged both are 1.
# Why it matters here: tiles of satellite scenes have near twins, so the similarities of the best differ in the last digits, and an embed of a
#        cloudless sea has hundreds of equals. Two evaluators that agree on embeds and labels still print different numbers, which change
#        with the names of the tiles. To agree, ties must be broken before MTEB sees them: scores that differ in float32, in one order.
# This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet mteb==2.26.24
cd "$folder"
HF_HOME="$folder/home" HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores


def measure(best: str, second: str) -> tuple[float, float]:
    scores = {"query": {best: 0.5 + 1e-9, second: 0.5}}
    found = calculate_retrieval_scores(scores, {"query": {best: 1}}, [1])
    print(f"best {best}, second {second}: {found.precision} {found.mrr}")
    return found.precision["P@1"], found.mrr["MRR@1"]


print("pytrec_eval-terrier", version("pytrec_eval-terrier"))
assert measure("tile_b", "tile_a") == (1.0, 1.0)
found = measure("tile_a", "tile_b")
assert found == (0.0, 1.0), f"Changed: {found}."
PYTHON
