"""The panel that answers "why?": what the model expects the other sensor to see, and which patches resemble which."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from csmae_hf.app.explorer import Explorer
from csmae_hf.app.html import escape
from csmae_hf.app.pictures import to_data_uri
from csmae_hf.app.state import Search
from csmae_hf.app.why import FloatArray, patch_similarity, patch_tokens, reconstruct

Pixels = Mapping[str, Mapping[str, Any]]


def why_panel(explorer: Explorer, search: Search, tile: str, score: float | None, uploads: Pixels) -> str:
    """Explain a result.

    Args:
        explorer: The archive.
        search: That found it.
        tile: Id of the result.
        score: Its similarity, where known.
        uploads: Pixels of an uploaded query, by sensor.

    Returns:
        HTML.

    Raises:
        ValueError: If the tile is unknown.
    """
    explorer.metadata(tile)
    query = explorer.bands_of(search, uploads)
    result = explorer.pictures.bands(tile, search.archive_sensor)
    words = f"Why {tile}?" + (f" Similarity {score:.3f}." if score is not None else "")
    if search.sensor not in query or result is None:
        body = '<p class="quiet">There are no pixels of the query or of the result here, so there is nothing to compare.</p>'
    else:
        body = _guarded(
            lambda: similarity_part(explorer, query[search.sensor], search.sensor, result, search.archive_sensor)
        )
        targets = [sensor for sensor in explorer.bands if sensor != search.sensor]
        body += "".join(
            _guarded(lambda target=target: reconstruction_part(explorer, query, search.sensor, target))
            for target in targets
        )
    return f'<section class="why" id="why" tabindex="-1" aria-label="Why"><h2>{escape(words)}</h2>{body}</section>'


def _guarded(part: Any) -> str:
    """A part, or in its place why there is none."""
    try:
        return str(part())
    except (ValueError, FileNotFoundError, ImportError) as error:
        return f'<p class="quiet">{escape(error)}</p>'


def similarity_part(
    explorer: Explorer, query: Mapping[str, Any], sensor: str, result: Mapping[str, Any], target: str
) -> str:
    """Which patches of the result resemble which of the query."""
    model, processor = explorer.archive.load_model()
    similarity = patch_similarity(
        patch_tokens(model, processor, query, sensor), patch_tokens(model, processor, result, target)
    )
    best = (similarity.max(axis=1), similarity.max(axis=0))
    low, high = (float(end(np.concatenate(best))) for end in (np.min, np.max))
    data = json.dumps(np.round(similarity, 3).tolist(), separators=(",", ":"))
    left = _grid(explorer, query, sensor, best[0], (low, high), "query")
    right = _grid(explorer, result, target, best[1], (low, high), "result")
    words = (
        f"Cosine between the model's {len(similarity)} patch tokens of the query ({sensor.upper()}) and of the result "
        f"({target.upper()}). Shown first: how well each patch is matched anywhere in the other image; dark is least alike. "
        "Choose a patch (mouse, or arrow keys once it has the focus): the other image shows how alike each of its patches is."
    )
    return (
        f'<div class="similarity" data-matrix="{escape(data)}">'
        f'<h3>Patches that resemble each other</h3><div class="pair">{left}{right}</div>'
        f'<p class="bar"><span>{low:.2f}</span><i></i><span>{high:.2f}</span></p>'
        f'<p class="quiet">{escape(words)} <span class="chosen" role="status"></span></p></div>'
    )


def _grid(
    explorer: Explorer, bands: Mapping[str, Any], sensor: str, values: FloatArray, ends: tuple[float, float], role: str
) -> str:
    side = math.isqrt(len(values))
    uri = to_data_uri(explorer.pictures.paint(bands, sensor)[0])
    step = 120 / side
    squares = "".join(
        f'<rect x="{place % side * step:g}" y="{place // side * step:g}" width="{step:g}" height="{step:g}" data-patch="{place}" '
        f'style="--v:{(float(value) - ends[0]) / max(ends[1] - ends[0], 1e-6):.3f}"/>'
        for place, value in enumerate(values)
    )
    title = explorer.pictures.composites[sensor][0].title
    return (
        f'<figure><svg class="patches" viewBox="0 0 120 120" data-role="{role}" data-side="{side}" tabindex="0" role="application" '
        f'aria-label="Patches of the {role}, {escape(title)}; arrow keys choose one"><image href="{uri}" width="120" height="120"/>'
        f"{squares}</svg><figcaption>{role.capitalize()}, {escape(title)}</figcaption></figure>"
    )


def reconstruction_part(explorer: Explorer, images: Pixels, source: str, target: str) -> str:
    """What the model expects another sensor to see at the place of the query."""
    model = explorer.reconstructor()
    _, processor = explorer.archive.load_model()
    made = reconstruct(model, processor, images, source, target)
    ways = explorer.pictures.composites[target]
    figures = []
    predicted = explorer.pictures.paint(made.predicted, target)
    true = explorer.pictures.paint(images[target], target) if target in images else []
    for place, way in enumerate(ways):
        figures.append(_shown(to_data_uri(predicted[place]), f"{way.title}, predicted from {source.upper()}"))
        if true:
            figures.append(_shown(to_data_uri(true[place]), f"{way.title}, true"))
    error = "" if made.error is None else f" Root mean square error {made.error:.2f} standard deviations of a band."
    seen = "" if true else f" The true {target.upper()} image of the query is not known."
    return (
        f"<h3>What {escape(source.upper())} makes the model expect of {escape(target.upper())}</h3>"
        f'<div class="pair">{"".join(figures)}</div><p class="quiet">Each patch is predicted while it is hidden, from the '
        f"{escape(source.upper())} patches that are not.{escape(error)}{escape(seen)}</p>"
    )


def _shown(uri: str, title: str) -> str:
    return f'<figure><img src="{uri}" alt="{escape(title)}" width="120" height="120"><figcaption>{escape(title)}</figcaption></figure>'
