"""Cards of models and archives, written from what was measured; what nobody measured is left out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from configuration_csmae import CSMAEConfig
from csmae_hf.hub.facts import Facts
from image_checks_csmae import BAND_METRES, BAND_UNIT, UNIT_NAMES
from image_processing_csmae import CSMAEImageProcessor

SENSOR_TITLES = {"s1": "Sentinel-1", "s2": "Sentinel-2"}
"""What the usual sensors are."""

_LEVELS = {
    "db": "backscatter in dB, of ground-range detected (GRD) images",
    "dn": "surface reflectance (Level-2A) x 10000, without the offset of 1000 that processing baselines from 04.00 on add",
}
_METRICS = {
    "precision": "P@{k}",
    "recall": "R@{k}",
    "f1_of_means": "F1@{k} of the means",
    "mean_pair_f1": "mean F1@{k} of the pairs",
}
_RECIPE = {
    "num_train_epochs": "epochs",
    "max_steps": "steps at most",
    "per_device_train_batch_size": "tiles a step and process",
    "gradient_accumulation_steps": "steps accumulated",
    "optim": "optimiser",
    "learning_rate": "learning rate",
    "adam_beta1": "beta 1",
    "adam_beta2": "beta 2",
    "weight_decay": "weight decay",
    "warmup_steps": "warm-up (steps, or a share below 1)",
    "lr_scheduler_type": "schedule",
    "precision": "precision",
    "bf16": "bf16",
    "fp16": "fp16",
    "flips": "random flips",
    "seed": "seed",
}
_CITATION = """```bibtex
@article{hackstein2024csmae,
  title   = {Exploring Masked Autoencoders for Sensor-Agnostic Image Retrieval in Remote Sensing},
  author  = {Hackstein, Jakob and Sumbul, Gencer and Clasen, Kai Norman and Demir, Beg{\\"u}m},
  journal = {IEEE Transactions on Geoscience and Remote Sensing},
  year    = {2024},
  doi     = {10.1109/TGRS.2024.3517150}
}
```"""


def model_card(facts: Facts, repo_id: str, *, subfolder: str | None = None, picture: str | None = None) -> str:
    """Write the card of a model.

    Args:
        facts: What is known.
        repo_id: The repository, `owner/name`.
        subfolder: Folder of the model in it.
        picture: File of the example picture beside the card.

    Returns:
        The text of README.md, metadata first.
    """
    title = subfolder or repo_id.split("/")[-1]
    sections = [
        f"# {title}",
        _what_it_is(facts),
        f"![Retrieval examples]({picture})\n\n*Queries and what was found for them.*" if picture else "",
        "## What it takes\n\n" + sensor_contract(facts.config, facts.processor),
        "## Load it and search\n\n" + _usage(facts.config, repo_id, subfolder),
        _section("## How it was trained", _training(facts)),
        _section("## Retrieval across sensors", _results(facts)),
        _section("## Where the weights are from", _conversion(facts.conversion)),
        "## What it must not be used for\n\n" + _limits(facts),
        "## Licence\n\n" + _licences(facts),
        f"## Citation\n\n{_CITATION}",
    ]
    body = "\n\n".join(section for section in sections if section)
    return f"---\n{_model_metadata(facts, title).to_yaml()}\n---\n\n{body}\n"


def collection_card(facts: Facts, repo_id: str) -> str:
    """Write the card of a repository that holds several models, each in a folder with its own card.

    Args:
        facts: Of any of the models.
        repo_id: The repository.

    Returns:
        The text of README.md, the same for every model of the repository.
    """
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-feature-extraction",
        tags=_tags(facts.config),
        license=facts.license,
    )
    name = repo_id.split("/")[-1]
    body = f"""# {name}

Cross-sensor masked autoencoders (CSMAE, arXiv 2401.07782), one to a folder: each folder has its own card, weights and
processor. The code that all of them share lies here.

```python
from transformers import AutoModel

model = AutoModel.from_pretrained("{repo_id}", subfolder=FOLDER, trust_remote_code=True)
```"""
    return f"---\n{metadata.to_yaml()}\n---\n\n{body}\n"


def sensor_contract(config: CSMAEConfig, processor: CSMAEImageProcessor) -> str:
    """Say what the model takes: a table of bands, in order, with unit, pixel size and statistics."""
    rows = []
    for sensor, bands in config.sensors.items():
        for place, band in enumerate(bands):
            metres = BAND_METRES.get(band)
            unit = BAND_UNIT.get(band)
            rows.append(
                (
                    sensor,
                    place,
                    band,
                    UNIT_NAMES[unit] if unit else "-",
                    f"{metres} m" if metres else "-",
                    f"{processor.band_mean[band]:.6g}",
                    f"{processor.band_std[band]:.6g}",
                )
            )
    units = {BAND_UNIT[band]: sensor for sensor, bands in config.sensors.items() for band in bands if band in BAND_UNIT}
    levels = [f"* {SENSOR_TITLES.get(sensor, sensor)}: {_LEVELS[unit]}." for unit, sensor in units.items()]
    size = processor.size
    notes = [
        f"Every tile is {size} x {size} pixels of 10 m ({size * 10} m): bands of coarser pixels are given at their own size and "
        "resampled (bicubic), then each band is standardised by the mean and standard deviation of the table. The processor does "
        "all that from bands by name; arrays must have the order of the table.",
        *(["The processor swaps rows and columns, since the weights were trained so."] if processor.transpose else []),
        "Linear backscatter, reflectance 0-1, NaN and wrong sizes are refused with the remedy.",
    ]
    header = ("sensor", "place", "band", "unit", "pixel", "mean", "standard deviation")
    return "\n\n".join([_table(header, rows), "\n".join(levels), " ".join(notes)])


# Sections of the model's card


def _what_it_is(facts: Facts) -> str:
    config = facts.config
    sensors = " and ".join(
        f"{SENSOR_TITLES.get(name, name)} ({len(bands)} bands)" for name, bands in config.sensors.items()
    )
    whole = (
        "The decoders are included: pre-training can go on from here, and `AutoModel` takes the encoder alone."
        if facts.has_decoders
        else "This is the encoder alone: what retrieval needs. Pre-training cannot go on from here, the decoders are not included."
    )
    synthetic = (
        "\n\n**Trained on generated scenes, not on satellite images: it shows that the software works, and is of no use on real "
        "images.**"
        if facts.synthetic
        else ""
    )
    variant = f"CSMAE-{config.variant.upper()}" if config.variant != "custom" else "CSMAE of a variant of its own"
    return (
        f"A cross-sensor masked autoencoder ({variant}, arXiv 2401.07782) for {sensors}. It turns a tile of either sensor into an "
        f"embedding of {config.hidden_size} numbers, in one space for all its sensors: a query of one sensor finds images of the "
        f"other that show the same land cover.\n\n{facts.parameters / 1e6:.2f} M parameters ({facts.dtype}): "
        f"{config.multi_sensor_encoder_depth} blocks of each sensor's own, {config.cross_sensor_encoder_depth} shared, patches of "
        f"{config.patch_size} x {config.patch_size} pixels. {whole}{synthetic}"
    )


def _usage(config: CSMAEConfig, repo_id: str, subfolder: str | None) -> str:
    """Ten lines that run as they stand, on made-up tiles where the reader's own go."""
    query, archive = next(iter(config.sensors)), list(config.sensors)[-1]
    place = f", subfolder={subfolder!r}" if subfolder else ""
    return f"""```python
import torch
from transformers import AutoImageProcessor, AutoModel

place = dict(pretrained_model_name_or_path="{repo_id}"{place}, trust_remote_code=True)  # pin revision="<commit>"
processor, model = AutoImageProcessor.from_pretrained(**place), AutoModel.from_pretrained(**place).eval()
{_fake_tiles("archive", archive, config, 20)}
{_fake_tiles("query", query, config, 1)}
with torch.no_grad():
    found = model(**processor({archive}=archive)).embeds["{archive}"]  # (20, {config.hidden_size})
    asked = model(**processor({query}=query)).embeds["{query}"]
scores, places = torch.nn.functional.cosine_similarity(asked, found).topk(5)  # the five most similar tiles
```

That needs `pip install torch 'transformers>=5.18' pillow` and nothing else.

`trust_remote_code=True` runs the code of this repository: read it, and pin the `revision` to the commit that you have read. With
`pip install csmae-hf` and `import csmae_hf` nothing of it is run."""


def _fake_tiles(name: str, sensor: str, config: CSMAEConfig, count: int) -> str:
    unit = BAND_UNIT.get(config.sensors[sensor][0])
    size = config.image_size
    drawn = {
        "db": f"-25 + 20 * torch.rand({count}, {size}, {size})",
        "dn": f"5000 * torch.rand({count}, {size}, {size})",
        None: f"torch.rand({count}, {size}, {size})",
    }[unit]
    hint = "dB" if unit == "db" else "digital numbers" if unit == "dn" else "its own unit"
    return f'{name} = {{band: {drawn} for band in processor.sensors["{sensor}"]}}  # your tiles, {hint}'


def _training(facts: Facts) -> str:
    settings, state, metrics = facts.settings, facts.state, facts.metrics
    rows: list[tuple[str, Any]] = []
    if facts.data:
        split = settings.get("train_split")
        rows.append(("data", facts.data + (f", split {split}" if split else "")))
    rows.append(("tiles", metrics.get("train_tiles")))
    for name, label in _RECIPE.items():
        value = settings.get(name)
        if value is not None and not (name == "max_steps" and value in (-1, "-1")):
            rows.append((label, "yes" if value is True else "no" if value is False else value))
    rows += [
        ("epochs made", _rounded(state.get("epoch"))),
        ("steps made", state.get("global_step")),
        ("loss at the end", _last_loss(state)),
        ("duration", _duration(metrics.get("train_runtime"))),
        ("tiles a second", _rounded(metrics.get("train_samples_per_second"))),
        *((name.replace("_", " "), value) for name, value in facts.hardware.items()),
    ]
    known = [(name, value) for name, value in rows if value is not None]
    if not known:
        return ""
    config = facts.config
    objective = (
        f"Masking {config.masking}, {config.mask_ratio:.0%} of the patches hidden; weights of the losses: reconstruction within a "
        f"sensor {config.umr_weight:g}, across sensors {config.cmr_weight:g}, mutual information {config.mim_weight:g}, "
        f"discrepancy {config.mde_weight:g}."
    )
    return _table(("what", "value"), known) + f"\n\n{objective}"


def _results(facts: Facts) -> str:
    results = facts.results
    directions = results.get("directions") or []
    if not directions:
        return ""
    protocol = results.get("protocol") or {}
    k = protocol.get("k", directions[0].get("k"))
    metrics = [name for name in _METRICS if name in directions[0]]
    rows = []
    for entry in directions:
        cells = [_with_interval(entry, name) for name in metrics]
        random = (entry.get("random") or {}).get("mean") or {}
        chance = f"{random['f1_of_means']:.4f}" if "f1_of_means" in random else "-"
        rows.append((f"{entry['query_sensor']} → {entry['archive_sensor']}", *cells, chance))
    header = ("query → archive", *(_METRICS[name].format(k=k) for name in metrics), f"F1@{k} of a random order")
    first = directions[0]
    data = (results.get("metadata") or {}).get("data")
    has_intervals = any(entry.get("intervals") for entry in directions)
    kind = (results.get("metrics") or {}).get("intervals", "confidence intervals over queries")
    notes = [
        f"Data: {data}." if data else "",
        f"{first['n_queries']} queries of {_split(protocol.get('query_split'))} against {first['n_archive']} tiles of "
        f"{_split(protocol.get('archive_split'))}; relevance is by shared labels.",
        f"In brackets: {kind}." if has_intervals else "",
        "The tiles are generated: these numbers say nothing of real land." if facts.synthetic_results else "",
    ]
    return _table(header, rows) + "\n\n" + " ".join(note for note in notes if note)


def _conversion(report: Mapping[str, Any]) -> str:
    if not report:
        return ""
    source, check = report.get("source") or {}, report.get("self_check") or {}
    lines = [
        f"Converted from a checkpoint of the original code, `{source.get('file')}` (sha256 `{source.get('sha256')}`)."
    ]
    if check:
        largest = max(entry["largest_difference"] for entry in check["embeds"].values())
        lines.append(
            f"{check['equal_tensors']} tensors equal the source's bit for bit; loaded again, the model's embeds of a fixed input "
            f"differ by at most {largest:g}."
        )
    lines += [f"Note: {warning}." for warning in report.get("warnings") or []]
    return "\n\n".join(lines) + "\n\n`conversion.json` has every tensor's old and new name."


def _limits(facts: Facts) -> str:
    sensors = ", ".join(SENSOR_TITLES.get(name, name) for name in facts.config.sensors)
    lines = [
        f"Images of other sensors than {sensors}, other processing levels, units, bands or pixel sizes than the table's.",
        "Decisions about people, their land or their safety, and surveillance: it finds images that look alike to it, it does not "
        "know what is there.",
        "Land-cover maps or area statistics: embeddings are not labels.",
        "Regions, seasons and land cover that its training data lack, without measuring it there first.",
    ]
    if facts.synthetic:
        lines.insert(0, "Any real image: it was trained on generated scenes.")
    return "\n".join(f"* {line}" for line in lines)


def _licences(facts: Facts) -> str:
    lines = [
        f"* Weights: {facts.license}, as their publisher says."
        if facts.license
        else "* Weights: their publisher has not said any.",
        "* Code (`*_csmae.py`): MIT.",
    ]
    if facts.is_bigearthnet:
        lines.append("* Training data: BigEarthNet, CDLA-Permissive-1.0; contains modified Copernicus Sentinel data.")
    elif facts.synthetic:
        lines.append("* Training data: generated by csmae-hf, MIT.")
    return "\n".join(lines)


def _model_metadata(facts: Facts, title: str) -> ModelCardData:
    evaluations = list(_eval_results(facts.results))
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="image-feature-extraction",
        license=facts.license,
        tags=_tags(facts.config),
        datasets=list(facts.datasets) or None,
        model_name=title if evaluations else None,
        eval_results=evaluations or None,
    )


def _eval_results(results: Mapping[str, Any]) -> Iterable[EvalResult]:
    protocol = results.get("protocol") or {}
    data = str((results.get("metadata") or {}).get("data") or "unnamed archive")
    for entry in results.get("directions") or []:
        for metric in (name for name in _METRICS if name in entry):
            title = _METRICS[metric].format(k=protocol.get("k", entry.get("k")))
            yield EvalResult(
                task_type="image-feature-extraction",
                task_name="image retrieval across sensors",
                dataset_type="".join(letter if letter.isalnum() else "-" for letter in data.lower()),
                dataset_name=data,
                dataset_split=protocol.get("archive_split"),
                metric_type=metric,
                metric_name=f"{title}, {entry['query_sensor']} to {entry['archive_sensor']}",
                metric_value=round(float(entry[metric]), 6),
            )


def _tags(config: CSMAEConfig) -> list[str]:
    fixed = ["csmae", "remote-sensing", "earth-observation", "masked-autoencoder", "image-retrieval", "custom_code"]
    return [*fixed, *_sensor_tags(config.sensors), "arxiv:2401.07782"]


def _sensor_tags(sensors: Iterable[str]) -> list[str]:
    return [SENSOR_TITLES[sensor].lower() for sensor in sensors if sensor in SENSOR_TITLES]


# Pieces


def _section(title: str, body: str) -> str:
    return f"{title}\n\n{body}" if body else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in [header, ["---"] * len(header), *rows]]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _with_interval(entry: Mapping[str, Any], metric: str) -> str:
    interval = (entry.get("intervals") or {}).get(metric)
    if not interval:
        return f"{entry[metric]:.4f}"
    low, high = (interval["lower"], interval["upper"]) if isinstance(interval, Mapping) else interval
    return f"{entry[metric]:.4f} [{low:.4f}, {high:.4f}]"


def _split(name: str | None) -> str:
    return f"the {name} split" if name else "all splits"


def _last_loss(state: Mapping[str, Any]) -> str | None:
    losses = [line["loss"] for line in state.get("log_history") or [] if "loss" in line]
    return f"{losses[-1]:.4f}" if losses else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
