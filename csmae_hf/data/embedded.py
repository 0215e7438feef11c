"""One image as bytes that need no store and no file beside them: a safetensors file of its bands, with what is said of them."""

import datetime
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from csmae_hf.data.codecs import CorruptTileError
from csmae_hf.images.image import NOTHING, BandImage, Facts
from csmae_hf.images.products import Product

_FACTS = "facts"  # the entry of the metadata of the file
_KINDS = "biuf"
_SAID = ("unit", "unit_by", "crs", "bounds", "metres", "no_data", "notes")


def pack_image(bands: Mapping[str, Any], facts: Facts | None = None) -> bytes:
    """Write an image; every number, its type included, is kept as it is.

    Args:
        bands: (H, W) by name, real numbers of 8 to 64 bits.
        facts: What is said of them; names of files are left out, for they are of this machine.

    Returns:
        A safetensors file, which any reader of that format opens: the bands by name.

    Raises:
        ValueError: If there is no band, or one is not of that shape or type; the message names it.
    """
    if not bands:
        raise ValueError("An image without bands was given; expected (H, W) numbers by the band's name.")
    arrays = {str(name): _as_stored(str(name), values) for name, values in bands.items()}
    said = {name: value for name in _SAID if facts is not None and (value := getattr(facts, name))}
    if facts is not None and facts.product != NOTHING:
        said["product"] = facts.product._asdict()
    metadata = {_FACTS: json.dumps(said, default=_as_text)} if said else None
    return safetensors.numpy.save(arrays, metadata)


def _as_stored(band: str, values: Any) -> np.ndarray[Any, Any]:
    """A band as safetensors holds it: in one piece, little-endian."""
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of several lengths
        raise ValueError(f"Band {band} is no array: {error}; expected real numbers of shape (H, W).") from error
    if array.ndim != 2 or not array.size or array.dtype.kind not in _KINDS or array.dtype.itemsize > 8:
        raise ValueError(
            f"Band {band} is {array.dtype} of shape {array.shape}; expected real numbers of at most 64 bits of shape (H, W)."
        )
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))


def _as_text(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime.datetime) else str(value)


def unpack_image(value: bytes, name: str, wanted: Iterable[str]) -> BandImage:
    """Read what [`pack_image`] wrote.

    Args:
        value: The bytes.
        name: Of the image, for messages.
        wanted: Bands to return, in this order.

    Returns:
        (H, W) by band, and what is said of them.

    Raises:
        CorruptTileError: If they are no such file, or lack a band.
    """
    try:
        arrays = safetensors.numpy.load(value)
        facts = unpack_facts(value)
    except Exception as error:  # SafetensorError, KeyError, JSON...: the bytes are anyone's
        raise CorruptTileError(
            f"Tile {name!r}: its embedded bytes are no safetensors file of bands: {error}"
        ) from error
    absent = [band for band in wanted if band not in arrays]
    if absent:
        raise CorruptTileError(f"Tile {name!r} has no band {', '.join(absent)}; it has {', '.join(arrays)}.")
    return BandImage({band: arrays[band] for band in wanted}, facts)


def unpack_facts(value: bytes) -> Facts:
    """Read what is said of an image, and none of its pixels."""
    header = json.loads(value[8 : 8 + int.from_bytes(value[:8], "little")])
    said = json.loads(header.get("__metadata__", {}).get(_FACTS, "{}"))
    product = said.pop("product", None)
    if product is not None:
        date = product["date"] and datetime.datetime.fromisoformat(product["date"])
        said["product"] = Product(**product | {"date": date})
    for name in {"bounds", "notes"} & said.keys():
        said[name] = tuple(said[name])
    return Facts(**said)
