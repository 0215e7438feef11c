"""What an export says of itself in STAC: the embeddings extension, the model as an item of the MLM extension, a static catalogue.

The schemas are those of STAC 1.0.0, which the embeddings extension (0.0.1, a proposal) refers to.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from csmae_hf.embedding.foreign import PREFIX
from csmae_hf.embedding.identity import Identity
from csmae_hf.embedding.provenance import Provenance
from csmae_hf.embedding.without_paths import HUB_NAME

STAC_VERSION = "1.0.0"
EMBEDDINGS = "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json"
MLM = "https://stac-extensions.github.io/mlm/v1.5.2/schema.json"
RASTER = "https://stac-extensions.github.io/raster/v1.1.0/schema.json"

PARQUET = "application/vnd.apache.parquet"
JSON, GEOJSON = "application/json", "application/geo+json"

CATALOG, COLLECTION, MODEL, SOURCE = "catalog.json", "collection.json", "model.json", "source.json"

_WORLD = (-180.0, -90.0, 180.0, 90.0)


@dataclass(frozen=True)
class Exported:
    """What a catalogue describes.

    Attributes:
        provenance: Of the embeds.
        width: Of the embeds.
        files: Name of the file of each sensor.
        count: Tiles.
        bounds: West, south, east and north of all tiles, in degrees; None where no place is known.
        interval: First and last time of the tiles by sensor, UTC; of one of which no time is known None.
        source_data: URL of the images that the embeds are of; None where nobody said it.
        license: Of the embeds, as SPDX has it; None where nobody said it.
    """

    provenance: Provenance
    width: int
    files: Mapping[str, str]
    count: int
    bounds: Sequence[float] | None
    interval: Mapping[str, tuple[datetime, datetime] | None]
    source_data: str | None = None
    license: str | None = None


def embedding_metadata(exported: Exported, sensor: str) -> dict[str, Any]:
    """Describe the file of a sensor for its footer `emb`: the fields of the embeddings extension and of the asset, and links."""
    return {
        "stac_version": STAC_VERSION,
        "stac_extensions": [EMBEDDINGS],
        "title": f"Embeds of {exported.count} {sensor} tiles",
        "type": PARQUET,
        "roles": ["data"],
        **_collection_fields(exported),
        "properties": _item_fields(exported, sensor),
        "links": [
            _link("emb:model", model_place(exported.provenance.made_with), title=_model_title(exported)),
            *([_link("emb:source-data", place)] if (place := _source_place(exported)) else []),
        ],
    }


def make_catalogue(exported: Exported) -> dict[str, dict[str, Any]]:
    """Make a static catalogue, whose links are relative.

    Returns:
        By the name of its file each object: the catalogue, a collection of one item a sensor, the model, and the images that the
        embeds are of, where they have no place on the web.
    """
    first = {"stac_version": STAC_VERSION}
    root = _link("root", CATALOG, JSON)
    items = {sensor: f"item-{sensor}.json" for sensor in exported.files}
    source = _source_place(exported)
    title = f"Embeds of {exported.provenance.data or 'tiles'} by {_model_title(exported)}"
    found: dict[str, dict[str, Any]] = {
        CATALOG: {
            **first,
            "type": "Catalog",
            "id": "csmae-archive",
            "title": title,
            "description": exported.provenance.sentence(),
            "links": [
                root,
                _link("child", COLLECTION, JSON),
                _link("item", MODEL, GEOJSON),
                *([] if source else [_link("child", SOURCE, JSON)]),
            ],
        },
        COLLECTION: {
            **first,
            "stac_extensions": [EMBEDDINGS],
            **_collection(exported, "embeds", title, exported.provenance.sentence()),
            **_collection_fields(exported),
            "links": [
                root,
                _link("parent", CATALOG, JSON),
                *(_link("item", name, GEOJSON) for name in items.values()),
                _link("emb:model", MODEL, GEOJSON, _model_title(exported)),
                _link("emb:source-data", source or SOURCE, None if source else JSON),
            ],
        },
        MODEL: {
            **first,
            "stac_extensions": [MLM, RASTER],
            "type": "Feature",
            "id": "model",
            "geometry": None,
            "properties": {"title": _model_title(exported), **_time(exported, None), **_model_fields(exported)},
            "links": [root, _link("parent", CATALOG, JSON)],
            "assets": {"model": _model_asset(exported)},
        },
    }
    if not source:
        data = exported.provenance.data or "tiles"
        found[SOURCE] = {
            **first,
            **_collection(exported, "source", data, f"The images that the embeds are of: {data}. They are not here."),
            "links": [root, _link("parent", CATALOG, JSON)],
        }
    for sensor, name in items.items():
        box = {} if exported.bounds is None else {"bbox": list(exported.bounds)}
        found[name] = {
            **first,
            "stac_extensions": [EMBEDDINGS],
            "type": "Feature",
            "id": f"embeds-{sensor}",
            "collection": "embeds",
            "geometry": _outline(exported.bounds),
            **box,
            "properties": {**_time(exported, sensor), **_item_fields(exported, sensor)},
            "links": [root, _link("parent", COLLECTION, JSON), _link("collection", COLLECTION, JSON)],
            "assets": {"embeddings": {"href": f"./{exported.files[sensor]}", "type": PARQUET, "roles": ["data"]}},
        }
    return found


def as_text(content: Mapping[str, Any]) -> str:
    """Write one object of a catalogue."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def model_place(made_with: Identity) -> str:
    """Where a model is: its page on the Hub, or what names its weights wherever they lie."""
    if not HUB_NAME.fullmatch(made_with.model):
        return f"urn:sha256:{made_with.weights}"
    return f"https://huggingface.co/{made_with.model}" + (f"/tree/{made_with.revision}" if made_with.revision else "")


def _source_place(exported: Exported) -> str | None:
    data = exported.provenance.data
    if exported.source_data or not data or not HUB_NAME.fullmatch(data):
        return exported.source_data
    return f"https://huggingface.co/datasets/{data}"


def _model_title(exported: Exported) -> str:
    return exported.provenance.made_with.described.removeprefix(PREFIX)


def _link(rel: str, place: str, kind: str | None = None, title: str | None = None) -> dict[str, str]:
    href = place if re.match(r"[a-z]+:", place) else f"./{place}"
    return {"rel": rel, "href": href} | ({"type": kind} if kind else {}) | ({"title": title} if title else {})


def _collection(exported: Exported, name: str, title: str, description: str) -> dict[str, Any]:
    """What STAC asks of any collection."""
    first, last = _interval(exported, None) or (None, None)
    return {
        "type": "Collection",
        "id": name,
        "title": title,
        "description": description,
        # STAC 1.0.0 has no word for a licence that nobody has said
        "license": exported.license or "proprietary",
        "extent": {
            "spatial": {"bbox": [list(exported.bounds or _WORLD)]},
            "temporal": {"interval": [[first and _utc(first), last and _utc(last)]]},
        },
    }


def _collection_fields(exported: Exported) -> dict[str, Any]:
    return {
        "emb:type": "chip",
        "emb:dimensions": exported.width,
        "data_type": "float32",
        "emb:fit_for_use": ["retrieval"],
    }


def _item_fields(exported: Exported, sensor: str) -> dict[str, Any]:
    """How the embeds of a sensor came about."""
    told, made_with = exported.provenance, exported.provenance.made_with
    steps = [*([] if told.alignment_hash is None else [told.alignment]), "l2_normalize"]
    parameters = {
        "sensor": sensor,
        "bands": bands_of(made_with, sensor),
        "model": made_with.model.removeprefix(PREFIX) or None,
        "revision": made_with.revision,
        "weights_sha256": made_with.weights,
        "processor_sha256": made_with.processor,
        "precision": made_with.precision,
        "csmae-hf": made_with.code,
        "alignment": told.alignment,
        "alignment_sha256": told.alignment_hash,
        "generated_scenes": told.generated,
    }
    return {
        "emb:runtime_parameters": {name: value for name, value in parameters.items() if value is not None},
        "emb:postprocessing": {"format": "csmae-hf", "expression": ", ".join(steps)},
    }


def bands_of(made_with: Identity, sensor: str) -> list[str] | None:
    """The bands of a sensor, in the model's order, where its settings say them."""
    config = made_with.config or {}
    sensors = config.get("sensors")
    found = sensors.get(sensor) if isinstance(sensors, Mapping) else config.get(f"sensors.{sensor}")
    return [str(band) for band in found] if isinstance(found, (list, tuple)) and found else None


def _model_fields(exported: Exported) -> dict[str, Any]:
    """The model in the words of the MLM extension."""
    made_with = exported.provenance.made_with
    config = made_with.config or {}
    side = next((size for name in ("image_size", "tile_size") if isinstance(size := config.get(name), int)), -1)
    inputs = []
    for sensor in exported.files:
        bands = bands_of(made_with, sensor)
        axis = {"bands": bands} if bands else {}
        inputs.append(
            {
                "name": sensor,
                **axis,
                "input": {
                    "shape": [-1, len(bands) if bands else -1, side, side],
                    "dim_order": ["batch", "bands" if bands else "channel", "height", "width"],
                    "data_type": "float32",
                },
            }
        )
    name = re.sub(r"[^A-Za-z0-9_.\-\s]+", "-", _model_title(exported)).strip("-_. \t\n")
    result = {"shape": [-1, exported.width], "dim_order": ["batch", "embedding"], "data_type": "float32"}
    return {
        "mlm:name": name if re.match(r"[A-Za-z]..", name) else f"model-{name or 'unnamed'}",
        "mlm:architecture": "CSMAE" if "cross_sensor_encoder_depth" in config else "unknown",
        "mlm:framework": "PyTorch",
        "mlm:tasks": ["similarity-search"],
        "mlm:pretrained": True,
        **({"mlm:pretrained_source": "generated scenes"} if made_with.trained_on_generated else {}),
        "mlm:input": inputs,
        "mlm:output": [{"name": "embedding", "tasks": ["similarity-search"], "result": result}],
        "mlm:hyperparameters": {"weights_sha256": made_with.weights, "processor_sha256": made_with.processor},
    }


def _model_asset(exported: Exported) -> dict[str, Any]:
    made_with = exported.provenance.made_with
    bands = {band: None for sensor in exported.files for band in bands_of(made_with, sensor) or ()}
    return {
        "href": model_place(made_with),
        "title": _model_title(exported),
        "roles": ["mlm:model"],
        "mlm:artifact_type": "unknown" if made_with.model.startswith(PREFIX) else "safetensors.torch.save_file",
        **({"raster:bands": [{"name": band} for band in bands]} if bands else {}),
    }


def _interval(exported: Exported, sensor: str | None) -> tuple[datetime, datetime] | None:
    """First and last time of a sensor, or of all."""
    found = [span for name, span in exported.interval.items() if span is not None and sensor in (None, name)]
    return (min(first for first, _ in found), max(last for _, last in found)) if found else None


def _time(exported: Exported, sensor: str | None) -> dict[str, Any]:
    """The times of an item; where none is known the time of the export, which STAC asks for then."""
    span = _interval(exported, sensor)
    if span is None:
        return {
            "datetime": _utc(datetime.now(UTC)),
            "description": "No time of the images is known; this is the time of the export.",
        }
    return {"datetime": None, "start_datetime": _utc(span[0]), "end_datetime": _utc(span[1])}


def _utc(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _outline(bounds: Sequence[float] | None) -> dict[str, Any] | None:
    if bounds is None:
        return None
    west, south, east, north = bounds
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}
