"""Cards of models and archives: their words are in `templates/`, their facts what was measured; what nobody measured is left out."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import jinja2
from huggingface_hub import CardData, EvalResult, ModelCardData

from csmae_hf.embedding.without_paths import last_part
from csmae_hf.evaluation.baselines import MEANINGS
from csmae_hf.evaluation.results import SAMPLE_DATA
from csmae_hf.hub.geo_fields import geo_fields
from image_checks_csmae import BAND_METRES, BAND_UNIT, UNIT_NAMES

HEADLINE = "f1_of_means"
"""The score of a direction that stands where there is room for one."""

SCORES = {
    "precision": "P@{k}",
    "recall": "R@{k}",
    "f1_of_means": "F1@{k} of the means",
    "mean_pair_f1": "mean F1@{k} of the pairs",
}
"""Metrics of a card, by their names in `results.json`, with their titles."""

_TAGS = ("csmae", "remote-sensing", "earth-observation", "masked-autoencoder", "image-retrieval", "custom_code")
_SENSOR_TAGS = {"s1": "sentinel-1", "s2": "sentinel-2"}


def model_card(
    facts: Mapping[str, Any],
    repo_id: str,
    *,
    subfolder: str | None = None,
    picture: str | None = None,
    caption: str = "Queries and what was found for them.",
    shipped_as: str | None = None,
) -> str:
    """Write the card of a model.

    Args:
        facts: As of [`read_facts`].
        repo_id: The repository, `owner/name`.
        subfolder: Folder of the model in it.
        picture: File of the example picture beside the card.
        caption: What the picture shows.
        shipped_as: Python name of the model's folder, `module.NAME`, where it comes with a package and not from the Hub.

    Returns:
        The text of README.md, metadata first.
    """
    title, settings, sensors = subfolder or repo_id.split("/")[-1], facts["settings"], facts["config"].sensors
    data = None if not settings else SAMPLE_DATA if facts["synthetic"] else last_part(str(settings.get("data")))
    names = " ".join([data or "", *facts["datasets"]]).lower()
    is_bigearthnet = facts["synthetic"] is False and ("bigearthnet" in names or "reben" in names)
    evaluations = list(_eval_results(facts))
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag=facts["config"].pipeline_tasks[0],
        license=facts["license"],
        tags=_tags(sensors),
        datasets=list(facts["datasets"]) or None,
        base_model=facts["base_model"],
        model_name=title if evaluations else None,
        eval_results=evaluations or None,
        **({"base_model_relation": facts["base_model_relation"]} if facts["base_model"] else {}),
        **geo_fields(facts, repo_id),
    )
    return render_card(
        "model.md",
        metadata,
        facts={**facts, "data": data, "is_bigearthnet": is_bigearthnet},
        title=title,
        repo_id=repo_id,
        subfolder=subfolder,
        picture=picture,
        caption=caption,
        shipped_as=shipped_as,
        scores=SCORES,
        baselines=baselines_of(facts["results"]),
        meanings=MEANINGS,
        unit_of=BAND_UNIT,
        unit_names=UNIT_NAMES,
        metres_of=BAND_METRES,
        sensor_of_unit={
            BAND_UNIT[band]: name for name, bands in sensors.items() for band in bands if band in BAND_UNIT
        },
    )


def collection_card(facts: Mapping[str, Any], repo_id: str) -> str:
    """Write the card of a repository that holds several models, each in a folder with its own card.

    Args:
        facts: Of any of the models.
        repo_id: The repository.

    Returns:
        The text of README.md, the same for every model of the repository.
    """
    tags, kind = _tags(facts["config"].sensors), "image-feature-extraction"
    metadata = ModelCardData(library_name="transformers", pipeline_tag=kind, tags=tags, license=facts["license"])
    return render_card("collection.md", metadata, title=repo_id.split("/")[-1], repo_id=repo_id)


def render_card(template: str, metadata: CardData, **values: Any) -> str:
    """Fill a template of this room, and put metadata before it.

    Args:
        template: Its file.
        metadata: What the Hub reads.
        **values: What the template names; what is missing is an error.

    Returns:
        The text of README.md.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("csmae_hf.hub"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(cell=_cell, rounded=_rounded, duration=_duration)
    body = environment.get_template(template).render(values).strip()
    return f"---\n{metadata.to_yaml()}\n---\n\n" + re.sub(r"\n{3,}", "\n\n", body) + "\n"


def _eval_results(facts: Mapping[str, Any]) -> Iterable[EvalResult]:
    results = facts["results"]
    protocol = results.get("protocol") or {}
    data = str((results.get("metadata") or {}).get("data") or "unnamed archive")
    data = SAMPLE_DATA if facts["synthetic_results"] else data
    method = ((results.get("metadata") or {}).get("alignment") or {}).get("method", "none")
    aligned = "" if method == "none" else f"sensors aligned ({method}), "
    for entry in results.get("directions") or []:
        for metric in (name for name in SCORES if name in entry):
            title = SCORES[metric].format(k=protocol.get("k", entry.get("k")))
            yield EvalResult(
                task_type="image-feature-extraction",
                task_name="image retrieval across sensors",
                dataset_type="".join(letter if letter.isalnum() else "-" for letter in data.lower()),
                dataset_name=data,
                dataset_split=protocol.get("archive_split"),
                metric_type=metric,
                metric_name=f"{title}, {aligned}{entry['query_sensor']} to {entry['archive_sensor']}",
                metric_value=round(float(entry[metric]), 6),
            )


def baselines_of(results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The headline score of each baseline beside results, but for the random order: by its name, then by direction, `s1 -> s2`."""
    found = {}
    for name in MEANINGS:
        entries = (results.get("baselines") or {}).get(name) or []
        of_each = {
            f"{one['query_sensor']} -> {one['archive_sensor']}": float(one[HEADLINE])
            for one in entries
            if HEADLINE in one
        }
        if of_each:
            found[name] = of_each
    return found


def _tags(sensors: Iterable[str]) -> list[str]:
    return [*_TAGS, *(_SENSOR_TAGS[sensor] for sensor in sensors if sensor in _SENSOR_TAGS), "arxiv:2401.07782"]


def _cell(value: Any) -> str:
    """A value as one cell of a table."""
    text = ("yes" if value else "no") if isinstance(value, bool) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
