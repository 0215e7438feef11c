"""What the metadata of a product say of its image: a SAFE's own XML above it, a STAC item beside it."""

import json
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from csmae_hf.images.band_names import canonical_band
from csmae_hf.images.products import NO_BASELINE, OFFSET_BASELINE, parse_product
from csmae_hf.images.raster import RasterError

BANDS_BY_ID = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
"""Bands in the order of `band_id` in ESA's metadata."""

_XML_NAMES = {"MTD_MSIL2A.xml": "L2A", "MTD_MSIL1C.xml": "L1C"}
_EARTH_SEARCH_ID = re.compile(r"S2[A-D]_\d{1,2}[A-Z]{3}_\d{8}_\d+_L2A")
_MOST_BYTES = 8 << 20
_MOST_FILES = 200
"""In a folder of more files no item is looked for but one named as the image: listing it for each image would take long."""


class Beside(NamedTuple):
    """What a metadata file says of an image.

    Attributes:
        by: Which file, in words.
        offsets: What to add to the digital numbers by band; None where the file does not know.
        level: "L1C" or "L2A"; None if it does not say.
        no_data: The digital number that is none; None if it does not say.
        note: What a person should know, where the file cannot be trusted.
    """

    by: str
    offsets: Mapping[str, float] | None = None
    level: str | None = None
    no_data: float | None = None
    note: str = ""


def read_beside(path: Path) -> Beside | None:
    """Read what the metadata of an image's product say; None where there are none.

    Args:
        path: A file of the image.

    Raises:
        RasterError: If the product's own metadata cannot be read.
    """
    for folder in _safe_folders(path):
        for name, level in _XML_NAMES.items():
            if (folder / name).is_file():
                return _read_xml(folder / name, level)
    for item_path in _item_paths(path):
        item = _read_item(item_path)
        if item is not None:
            return _of_item(item_path, item)
    return None


def _safe_folders(path: Path) -> Iterator[Path]:
    """The image's folder, and the folders of its SAFE."""
    yield path.parent
    parents = list(path.parents)[:6]
    inside = any(parent.name in ("IMG_DATA", "GRANULE") or parent.suffix.upper() == ".SAFE" for parent in parents)
    if inside:
        yield from parents[1:]


def _read_xml(path: Path, level: str) -> Beside:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has {path.stat().st_size:,} bytes")
        root = ElementTree.fromstring(path.read_bytes())
        entries = [node for node in root.iter() if node.tag in ("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET")]
        offsets = dict.fromkeys(BANDS_BY_ID, 0.0)  # no list: a baseline before 04.00, which has none
        offsets |= {BANDS_BY_ID[int(node.attrib["band_id"])]: float(node.text or "") for node in entries}
        special = {
            (node.findtext("SPECIAL_VALUE_TEXT") or "").upper(): node.findtext("SPECIAL_VALUE_INDEX")
            for node in root.iter("Special_Values")
        }
        no_data = special.get("NODATA")
        return Beside(f"the metadata {path.name}", offsets, level, float(no_data) if no_data else None)
    except (ElementTree.ParseError, OSError, ValueError, KeyError, IndexError) as error:
        raise RasterError(f"{path}, the metadata of the image, cannot be read: {error}. Copy it again.") from error


def _item_paths(path: Path) -> Iterator[Path]:
    """Files that may be the STAC item of an image: named as it or its folder, or the one of the folder."""
    folder, stem = path.parent, path.stem
    start = stem.rpartition("_")[0]
    yield from dict.fromkeys(folder / f"{name}.json" for name in (start, stem, folder.name) if name)
    entries = []
    with os.scandir(folder) as listing:
        for number, entry in enumerate(listing):
            if number >= _MOST_FILES:
                return
            if entry.name.lower().endswith((".json", ".geojson")) and not entry.name.endswith("_labels_metadata.json"):
                entries.append(entry.name)
    if len(entries) == 1:  # of several one cannot tell which it is
        yield folder / entries[0]


def _read_item(path: Path) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        item = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    is_item = isinstance(item, dict) and "stac_version" in item and isinstance(item.get("properties"), dict)
    return item if is_item else None


def _of_item(path: Path, item: Mapping[str, Any]) -> Beside | None:
    """What a STAC item says of the offset.

    Earth Search's `boa_offset_applied` is right where it says true; where it says false the offset may have been taken off all the
    same, and its `raster:bands` say -0.1 in either case (earth-search, issue 71).
    """
    properties, by = item["properties"], f"the STAC item {path.name}"
    name = str(properties.get("s2:product_uri") or properties.get("sentinel:product_id") or item.get("id", ""))
    product = parse_product(name)
    if product.sensor not in (None, "s2"):
        return None
    baseline = _baseline(properties.get("s2:processing_baseline") or properties.get("processing:version"))
    baseline = product.baseline if baseline is None else baseline
    later = None if baseline is None or baseline == NO_BASELINE else baseline >= OFFSET_BASELINE
    applied = next((value for key, value in properties.items() if key.endswith("boa_offset_applied")), None)
    if applied is True:
        return Beside(by, dict.fromkeys(BANDS_BY_ID, 0.0), product.level)
    collection_1 = "c1" in str(item.get("collection", ""))  # processed again, with the offset, and declared rightly
    if (applied is False and not collection_1) or _EARTH_SEARCH_ID.fullmatch(str(item.get("id"))):
        if later is False:
            return Beside(by, dict.fromkeys(BANDS_BY_ID, 0.0), product.level)
        note = f"{by} cannot be trusted to say whether the offset of 1000 is in the pixels; the pixels decide."
        return Beside(by, None, product.level, note=note)
    declared = _declared_offsets(item)
    if not declared and later is not None:
        declared = dict.fromkeys(BANDS_BY_ID, -1000.0 if later else 0.0)
    return Beside(by, declared, product.level) if declared else None


def _declared_offsets(item: Mapping[str, Any]) -> dict[str, float]:
    """Offsets that assets declare in reflectance (-0.1), in digital numbers (-1000)."""
    found: dict[str, float] = {}
    assets = item.get("assets")
    for key, asset in assets.items() if isinstance(assets, dict) else ():
        if not isinstance(asset, dict) or not (band := canonical_band(key)):
            continue
        layers = asset.get("raster:bands")
        layer = layers[0] if isinstance(layers, list) and layers and isinstance(layers[0], dict) else {}
        offset, scale = (asset.get(f"raster:{name}", layer.get(name)) for name in ("offset", "scale"))
        if isinstance(offset, (int, float)) and isinstance(scale, (int, float)) and scale:
            found[band] = round(offset / scale)
    return found


def _baseline(value: Any) -> int | None:
    """Baseline times 100 of `05.09` or `N0509`; None if it is none."""
    digits = str(value or "").upper().removeprefix("N").replace(".", "")
    return int(digits) if digits.isdigit() and len(digits) == 4 else None
