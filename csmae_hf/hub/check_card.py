"""Whether a card is true and whole: its metadata, links and numbers against the files that lie beside it. No network is used."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from huggingface_hub import ModelCard, ModelCardData, parse_eval_result_entries

from csmae_hf.embedding.identity import Identity
from csmae_hf.embedding.without_paths import HUB_NAME
from csmae_hf.evaluation.results import provenance_of
from csmae_hf.hub.benchmarks import expected_value
from csmae_hf.hub.card import SCORES, baselines_of
from csmae_hf.hub.facts import RESULTS_FILE
from csmae_hf.hub.geo_fields import ALLOWED, REQUIRED
from csmae_hf.hub.publish_model import load_processor, load_whole, refuse_other_results

CARD_FILE = "README.md"

_FRONT = re.compile(r"\A\s*---\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_ROW = re.compile(r"^\| *(\w+) → (\w+) *\|(.+)\|[ \t]*$", re.MULTILINE)
_ONNX_ROW = re.compile(r"^\| *(onnx/[\w.]+\.onnx) *\|", re.MULTILINE)
_BAND_ROW = re.compile(
    r"^\| *(\w+) *\| *\d+ *\| *([^|]+?) *\|.*\| *([-+.\de]+) *\| *([-+.\de]+) *\|[ \t]*$", re.MULTILINE
)
_GENERATED = re.compile(r"trained on generated|generated scenes", re.IGNORECASE)
# a token has no underscore but its first, unlike hf_hub_download
_LEFT_OVER = re.compile(
    r"More Information Needed|\bTODO\b|\bhf_[A-Za-z0-9]{16,}|(?<![\w/.:])/(?:home|root|Users|tmp|mnt)/[\w./-]+"
)
_LISTS = ("embedding_spatial_types", "embedding_temporal_type")
_SAME = 1e-6  # metadata have six places after the point


@dataclass(frozen=True)
class CardFinding:
    """What is wrong with a card, and what to do about it.

    Attributes:
        text: In words.
        is_error: Whether the card is wrong; else it only lacks what a reader may look for.
    """

    text: str
    is_error: bool = True


def check_card(folder: Path) -> list[CardFinding]:
    """Compare the card of a model's folder with the folder.

    Args:
        folder: With `README.md`; `config.json`, `preprocessor_config.json`, `results.json`, `.eval_results/*.yaml` and
            `onnx/*.onnx` are compared where they are there.

    Returns:
        What is wrong, errors first; nothing for a good card.

    Raises:
        FileNotFoundError: If the folder has no card.
        ValueError: If another of these files is broken.
    """
    path = folder / CARD_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {CARD_FILE}: `csmae card {folder} --write` writes one.")
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        return [CardFinding(f"The card is no text in UTF-8: {error}.")]
    front = _FRONT.match(content)
    if not front:
        return [CardFinding("There is no metadata: the card must begin with YAML between two lines of ---.")]
    try:
        metadata = yaml.safe_load(front[1])
        card = ModelCard(content)
    except (yaml.YAMLError, ValueError, TypeError, KeyError) as error:
        return [CardFinding(f"The metadata cannot be read: {' '.join(str(error).split())}")]
    config, results = _read(folder / "config.json"), _read(folder / RESULTS_FILE)
    text = content[front.end() :]
    findings = [
        *_check_fields(metadata, config),
        *_check_words(text, content, config),
        *_check_links(folder, text),
        *_check_index(cast(ModelCardData, card.data).eval_results or [], results),
        *_check_table(text, results),
        *_check_bands(text, _read(folder / "preprocessor_config.json")),
        *_check_onnx(folder, text),
        *_check_benchmarks(folder, results),
        *_check_origin(folder, results),
    ]
    return sorted(findings, key=lambda finding: not finding.is_error)


def _check_fields(metadata: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[CardFinding]:
    """The fields that Transformers, the Hub and geoembeddings.org look for."""
    if metadata.get("library_name") != "transformers":
        yield CardFinding(f"library_name is {metadata.get('library_name')!r}: a model of CSMAE has 'transformers'.")
    if not metadata.get("pipeline_tag"):
        yield CardFinding("pipeline_tag is missing: the Hub finds models by it, 'image-feature-extraction' for one.")
    elif (tasks := list(config.get("custom_pipelines") or [])) and metadata["pipeline_tag"] not in tasks:
        yield CardFinding(
            f"pipeline_tag is {metadata['pipeline_tag']!r}: this model has pipelines for {', '.join(map(repr, tasks))} (config.json)."
        )
    for name in ("tags", "datasets"):
        value = metadata.get(name)
        if value is not None and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            yield CardFinding(f"{name} is {value!r}: expected a list of texts.")
    for name in REQUIRED:
        if metadata.get(name) in (None, "", []):
            option = f" (--{name} of `csmae push`)" if name in ("license", "provider") else ""
            yield CardFinding(
                f"{name} is missing, which geoembeddings.org asks of every model{option}.", is_error=False
            )
    for name, allowed in ALLOWED.items():
        value = metadata.get(name)
        if name in _LISTS and value is not None and not isinstance(value, list):
            yield CardFinding(f"{name} is {value!r}: expected a list.")
            continue
        for one in value if isinstance(value, list) else [] if value is None else [value]:
            if one not in allowed:
                yield CardFinding(f"{name} is {one!r}: expected one of {', '.join(map(repr, allowed))}.")
    width, stated = config.get("hidden_size"), metadata.get("embedding_dimension")
    if width is not None and stated is not None and stated != width:
        yield CardFinding(f"embedding_dimension is {stated!r}; the model's embeds have {width} (config.json).")
    bases = metadata.get("base_model") or []
    for base in bases if isinstance(bases, list) else [bases]:
        if not HUB_NAME.fullmatch(str(base)):
            yield CardFinding(f"base_model is {base!r}: expected a name on the Hub, owner/name (--base-model).")


def _check_words(text: str, content: str, config: Mapping[str, Any]) -> Iterator[CardFinding]:
    """What must be said, and what must not."""
    if not re.search(r"^# \S", text, re.MULTILINE):
        yield CardFinding("There is no title, a line that begins with '# '.")
    if config.get("trained_on_generated") and not _GENERATED.search(text):
        yield CardFinding("The model was trained on generated scenes (config.json), and the card does not say so.")
    for found in sorted(set(_LEFT_OVER.findall(content))):
        shown = "a token" if found.startswith("hf_") else repr(found)
        yield CardFinding(f"{shown} does not belong in a card.")


def _check_links(folder: Path, text: str) -> Iterator[CardFinding]:
    """Links to files of the repository lead to files; those to the network are only read."""
    for target in dict.fromkeys(_LINK.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))):
        if target.startswith("#") or re.match(r"(?:https?://[\w.-]+\.\w+|mailto:\S+@)", target):
            continue
        if "://" in target:
            yield CardFinding(f"The link {target} is no address of the web.")
        elif not (folder / target.partition("#")[0]).exists():
            yield CardFinding(f"The link {target} leads to no file in {folder}.")


def _check_index(held: list[Any], results: Mapping[str, Any]) -> Iterator[CardFinding]:
    """`model-index` has the numbers of the results."""
    if not held and results.get("directions"):
        yield CardFinding(
            f"{RESULTS_FILE} has results, and the metadata have none (model-index): write the card again."
        )
    if held and not results:
        yield CardFinding(f"There is no {RESULTS_FILE} to compare the numbers of model-index with.", is_error=False)
    if not (held and results):
        return
    measured = _measured(results)
    for one in held:
        direction = re.search(r"(\w+) to (\w+)$", one.metric_name or "")
        key = (direction[1], direction[2], one.metric_type) if direction else None
        if key is None or key not in measured:
            yield CardFinding(f"{one.metric_name or one.metric_type} is in model-index and not in {RESULTS_FILE}.")
        elif not _is_near(one.metric_value, measured.pop(key), _SAME):
            said = _measured(results)[key]
            yield CardFinding(
                f"{one.metric_name} is {one.metric_value} in model-index, and {said:.6f} in {RESULTS_FILE}."
            )
    for query, archive, metric in measured:
        yield CardFinding(f"{metric} of {query} to {archive} is in {RESULTS_FILE} and not in model-index.")


def _check_table(text: str, results: Mapping[str, Any]) -> Iterator[CardFinding]:
    """The table of the text has the numbers of the results, rounded: each score with its interval, and that of a random order."""
    entries = {(entry["query_sensor"], entry["archive_sensor"]): entry for entry in results.get("directions") or []}
    for query, archive, cells in _ROW.findall(text):
        entry = entries.get((query, archive), {})
        measured = [
            [entry[metric], *((entry.get("intervals") or {}).get(metric) or [])] for metric in SCORES if metric in entry
        ]
        chance = ((entry.get("random") or {}).get("mean") or {}).get("f1_of_means")
        beside = [found.get(f"{query} -> {archive}") for found in baselines_of(results).values()]
        wanted = [*measured, *([value] if value is not None else [] for value in (chance, *beside))]
        for cell, values in zip(cells.split("|"), wanted, strict=False):
            if not values:
                continue
            said, known = re.findall(r"-?\d+(?:\.\d+)?", cell), [f"{value:.4f}" for value in values]
            if not said or said != known[: len(said)]:
                yield CardFinding(
                    f"The row {query} → {archive} of the text has {cell.strip() or 'nothing'} where {RESULTS_FILE} has "
                    f"{', '.join(known)}."
                )


def _check_bands(text: str, processor: Mapping[str, Any]) -> Iterator[CardFinding]:
    """The table of bands, where the card has one, is the processor's."""
    rows = {(sensor, band): numbers for sensor, band, *numbers in _BAND_ROW.findall(text)}
    sensors = processor.get("sensors") or {}
    for sensor, band in [(name, band) for name in sensors if rows for band in sensors[name]]:
        if (sensor, band) not in rows:
            yield CardFinding(f"The table of bands lacks {band} of {sensor} (preprocessor_config.json).")
            continue
        for name, said in zip(("band_mean", "band_std"), rows.pop((sensor, band)), strict=True):
            known = (processor.get(name) or {}).get(band)
            if isinstance(known, int | float) and said != f"{known:.6g}":
                yield CardFinding(f"{name} of {band} of {sensor} is {said} in the text, {known:.6g} in the processor.")
    for sensor, band in rows if sensors else ():
        yield CardFinding(f"The table of bands has {band} of {sensor}, which the processor does not take.")


def _check_onnx(folder: Path, text: str) -> Iterator[CardFinding]:
    """The ONNX files of the text are those of the folder."""
    named = set(_ONNX_ROW.findall(text))
    there = {f"onnx/{path.name}" for path in (folder / "onnx").glob("*.onnx")}
    for name in sorted(named ^ there):
        where = "in the card and not in the folder" if name in named else "in the folder and not in the card"
        yield CardFinding(f"{name} is {where}: push again with --onnx, which measures each file.")


def _check_benchmarks(folder: Path, results: Mapping[str, Any]) -> Iterator[CardFinding]:
    """`.eval_results` can be read by the Hub's client, and has the numbers of the results."""
    for path in sorted((folder / ".eval_results").glob("*.yaml")):
        name = f".eval_results/{path.name}"
        try:
            entries = parse_eval_result_entries(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
            yield CardFinding(f"{name} cannot be read: {type(error).__name__} {' '.join(str(error).split())}")
            continue
        for entry in entries:
            if not HUB_NAME.fullmatch(str(entry.dataset_id)):
                yield CardFinding(f"{name} names the data set {entry.dataset_id!r}: expected owner/name (--benchmark).")
            value = expected_value(str(entry.task_id), results)
            if value is not None and not _is_near(entry.value, value, _SAME):
                yield CardFinding(f"{name} has {entry.value} for {entry.task_id}, {RESULTS_FILE} gives {value}.")


def _measured(results: Mapping[str, Any]) -> dict[tuple[str, str, str], float]:
    """The numbers of `results.json` that a card has, by sensor of the queries, of the archive, and metric."""
    return {
        (entry["query_sensor"], entry["archive_sensor"], metric): float(entry[metric])
        for entry in results.get("directions") or []
        for metric in SCORES
        if metric in entry
    }


def _is_near(value: Any, other: float, tolerance: float) -> bool:
    return isinstance(value, int | float) and math.isclose(value, other, rel_tol=0, abs_tol=tolerance)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}. Repair it or take it away.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}: expected a mapping. Repair it or take it away.")
    return content


def _check_origin(folder: Path, results: Mapping[str, Any]) -> Iterator[CardFinding]:
    """The numbers of results.json were measured with the model and the alignment that lie here; nothing where it does not say it."""
    try:
        provenance = provenance_of(results)
        if provenance is None or not (folder / "model.safetensors").is_file():
            return
        model = load_whole(folder)
        identity = Identity.of(model, load_processor(folder, cast(Any, model.config)), folder.name)
        refuse_other_results(folder / RESULTS_FILE, provenance, identity, "measure this one: `run_retrieval.py FOLDER`")
    except ValueError as error:
        yield CardFinding(str(error))
