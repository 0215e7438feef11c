"""Make the folder of the model that comes with the package: weights in half precision, measured as they are shipped, and a card.

python ship_model.py RUN UNSEEN RESULTS       of `make shipped`: the run, generated scenes that it never saw, a folder to work in
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, PreTrainedModel, set_seed

from configuration_csmae import CSMAEConfig
from csmae_hf.data.load import load_data
from csmae_hf.embedding.embed import embed_dataset
from csmae_hf.embedding.encoder import load_encoder
from csmae_hf.evaluation.baselines import UNTRAINED
from csmae_hf.evaluation.results import SAMPLE_DATA
from csmae_hf.evaluation.retrieval_options import RetrievalOptions
from csmae_hf.evaluation.run import retrieve
from csmae_hf.hub.card import SCORES, model_card
from csmae_hf.hub.example_picture import draw_example
from csmae_hf.hub.facts import RESULTS_FILE
from csmae_hf.hub.publish_model import PICTURE_FILE, PublishOptions, facts_of, load_processor, load_whole
from csmae_hf.sample.shipped import TINY_GENERATED, TINY_NAME

FIRST = 10
"""Among so many of the archive's tiles the twin of a query is looked for."""

KEPT = ("query_sensor", "archive_sensor", "k", "n_queries", "n_archive", "intervals", *SCORES)
"""What is kept of the results of a direction; all of it would be larger than the model."""


def ship_weights(run: Path) -> None:
    """Save model and processor, the weights as float16: they are loaded as the float32 that the configuration names."""
    target = Path(TINY_GENERATED)
    model = load_whole(run)
    model.config.trained_on_generated = True
    model.save_pretrained(target)
    load_processor(run, cast(CSMAEConfig, model.config)).save_pretrained(target)
    for code in target.glob("*.py"):
        code.unlink()  # the package itself has it
    weights = {name: tensor.half() for name, tensor in load_file(target / "model.safetensors").items()}
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    (target / "model.safetensors").chmod(0o644)  # safetensors lets nobody else read it


def find_twins(model: PreTrainedModel, processor: Any, unseen: str) -> dict[str, float]:
    """Share of queries of a sensor whose tile by the other sensor is among the first, of all tiles of the test split."""
    tiles = load_data(unseen, "test")
    embeds = {name: torch.from_numpy(embed_dataset(model, processor, tiles, name)) for name in ("s1", "s2")}
    unit = {name: torch.nn.functional.normalize(one, dim=1) for name, one in embeds.items()}
    shares = {}
    for query, archive in (("s1", "s2"), ("s2", "s1")):
        similar = unit[query] @ unit[archive].T
        better = (similar > similar.diagonal()[:, None]).sum(dim=1)
        shares[f"{query} → {archive}"] = float((better < FIRST).float().mean())
    return shares


def measure(unseen: str, work: Path) -> str:
    """Measure the shipped model, keep its results beside it, and say them beside chance and the same model untrained."""
    options = RetrievalOptions(data=unseen, alignment="none", untrained=True, pictures=0, output_dir=str(work))
    if retrieve([TINY_GENERATED], options) is None:
        raise RuntimeError("ship_model.py is one process.")
    results = json.loads((work / RESULTS_FILE).read_text())
    blank_results = results.pop("baselines")[UNTRAINED]
    untrained = {(one["query_sensor"], one["archive_sensor"]): one["f1_of_means"] for one in blank_results}
    rows = []
    for entry in results["directions"]:
        scores = [entry["f1_of_means"], untrained[entry["query_sensor"], entry["archive_sensor"]]]
        scores.append(entry["random"]["mean"]["f1_of_means"])
        rows.append(
            f"| {entry['query_sensor']} to {entry['archive_sensor']} | {' | '.join(f'{x:.3f}' for x in scores)} |"
        )
    results["directions"] = [
        {name: entry[name] for name in KEPT if name in entry}
        | {"random": {"mean": {"f1_of_means": entry["random"]["mean"]["f1_of_means"]}}}
        for entry in results["directions"]
    ]
    del results["queries"]
    kept = ("data", "generated", "seed", "alignment", "provenance")
    results["metadata"] = {name: results["metadata"][name] for name in kept}
    results["metadata"] |= {"model": TINY_NAME, "data": SAMPLE_DATA}
    results["metadata"]["provenance"]["data"] = SAMPLE_DATA
    results["metadata"]["alignment"] = {"method": results["metadata"]["alignment"]["method"]}
    text = json.dumps(results, indent=1, ensure_ascii=False)
    Path(TINY_GENERATED, RESULTS_FILE).write_text(text + "\n", encoding="utf-8")
    model, processor = load_encoder(TINY_NAME)
    set_seed(options.seed)
    twins, blank = (
        find_twins(one, processor, unseen) for one in (model.eval(), AutoModel.from_config(model.config).eval())
    )
    count = len(load_data(unseen, "test"))
    found = "; ".join(f"{name}: {share:.0%}, untrained {blank[name]:.0%}" for name, share in twins.items())
    return f"""## How good it is

On {count} generated scenes of another seed than those it was trained on, without any alignment of the sensors:

| query to archive | F1@{options.k} | the same model untrained | random order |
| --- | --- | --- | --- |
{chr(10).join(rows)}

The same place seen by the other sensor is among the first {FIRST} of {count} tiles ({found}; by chance {FIRST / count:.0%}).

"""


def write_card(run: Path, unseen: str, measured: str) -> None:
    """Draw the picture and write the card."""
    folder = Path(TINY_GENERATED)
    model, processor = load_encoder(TINY_NAME)
    caption = draw_example(model.eval(), processor, folder / PICTURE_FILE, unseen)
    options = PublishOptions(license="mit", provider="csmae-hf")
    facts = facts_of(run, load_whole(folder), processor, folder / RESULTS_FILE, options)
    facts["hardware"] = {}  # speed and machine are of whoever made it last
    facts["metrics"] = {"train_tiles": facts["metrics"].get("train_tiles")}
    card = model_card(
        facts, TINY_NAME, picture=PICTURE_FILE, caption=caption or "", shipped_as="csmae_hf.TINY_GENERATED"
    )
    before, heading, after = card.partition("## What it takes")
    (folder / "README.md").write_text(before + measured + heading + after, encoding="utf-8")


def main() -> None:
    """Convert, measure, describe."""
    run, unseen, work = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    ship_weights(Path(run))
    write_card(Path(run), unseen, measure(unseen, Path(work)))


if __name__ == "__main__":
    main()
