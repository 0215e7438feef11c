"""Where tiles lie, as a page needs it: rings in degrees, distances, and a map drawn without a tile server."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from csmae_hf.app.html import escape
from csmae_hf.search.places import geometry_of

EARTH_RADIUS = 6371.0
"""Kilometres, of the sphere of equal volume."""

Point = tuple[float, float]

LAND = Path(__file__).with_name("assets") / "land.json"
"""Outlines of land: longitudes and latitudes in turn, a list for each ring. Natural Earth, 1:110 million (public domain)."""

_LEAST_DEGREES = 4.0  # across a map with coastlines: nearer by, such coarse ones would lie

_WIDTH, _HEIGHT, _MARGIN = 640.0, 400.0, 26.0
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)


@dataclass(frozen=True)
class Place:
    """Where a tile lies: its corners, (longitude, latitude) in degrees; one where only a point is known."""

    ring: tuple[Point, ...]

    @property
    def centre(self) -> Point:
        """(longitude, latitude) of its middle."""
        longitudes, latitudes = zip(*self.ring, strict=True)
        return sum(longitudes) / len(self.ring), sum(latitudes) / len(self.ring)


@dataclass(frozen=True)
class Marker:
    """A tile to be shown on a map, by its id."""

    tile: str
    place: Place
    label: str  # what stands on it: a rank, or "Q" for the query
    kind: str  # "query", "hit", "miss" or "unknown"


def place_of(tile: Mapping[str, Any]) -> Place | None:
    """Where a tile of this metadata lies; None where that is not known, or rasterio, which knows coordinate systems, is missing."""
    try:
        geometry = geometry_of(tile)
    except ImportError:
        return None
    if geometry is None:
        return None
    if geometry["type"] == "Point":
        return Place((tuple(geometry["coordinates"]),))
    parts = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    # Cut at the antimeridian: the corners, without those of the cut, as if longitudes went on beyond 180.
    corners = (
        [(x + 360 * (x < 0), y) for part in parts for x, y in part[0][:-1] if abs(x) != 180]
        if len(parts) > 1
        else parts[0][0]
    )
    return Place(tuple((float(point[0]), float(point[1])) for point in (corners[:-1] or corners)))


def distance(first: Place, second: Place) -> float:
    """Measure the way between two places along a great circle (haversine), in kilometres."""
    (lon, lat), (other_lon, other_lat) = (map(math.radians, place.centre) for place in (first, second))
    half = math.sin((other_lat - lat) / 2) ** 2
    half += math.cos(lat) * math.cos(other_lat) * math.sin((other_lon - lon) / 2) ** 2
    return 2 * EARTH_RADIUS * math.asin(math.sqrt(min(1.0, half)))


def draw_map(markers: Sequence[Marker], others: Sequence[Place] = ()) -> str:
    """Draw a map of footprints as SVG: equirectangular, true to scale in its middle, north up.

    Each marker has the attribute `data-tile`, by which the page links it with its card; others are faint dots.
    """
    if not markers:
        return '<p class="quiet">None of these tiles has a known place.</p>'
    view = _View([point for marker in markers for point in marker.place.ring])
    placed = (view.to_page(other.centre) for other in others)
    dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in placed if 0 <= x <= _WIDTH and 0 <= y <= _HEIGHT)
    drawn = "".join(_draw_marker(marker, view) for marker in reversed(markers))
    return (
        f'<svg class="map" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="group" aria-label="Map of the results">'
        f'<rect width="{_WIDTH:g}" height="{_HEIGHT:g}" class="sea"/>{view.land()}{view.grid()}'
        f'<path class="others" d="{dots}"/>{drawn}{view.scale_bar()}</svg>'
    )


@cache
def _outlines() -> list[list[Point]]:
    """Rings of land, (longitude, latitude) in degrees."""
    return [list(zip(ring[::2], ring[1::2], strict=True)) for ring in json.loads(LAND.read_text(encoding="utf-8"))]


class _View:
    """From degrees to the page: all of some points, with room around them."""

    def __init__(self, points: Sequence[Point]):
        longitudes, latitudes = zip(*points, strict=True)
        west, east, south, north = min(longitudes), max(longitudes), min(latitudes), max(latitudes)
        self.middle = ((west + east) / 2, (south + north) / 2)
        self.squeeze = max(math.cos(math.radians(self.middle[1])), 0.05)
        wide = max((east - west) * self.squeeze, 0.04) * 1.15
        high = max(north - south, 0.04) * 1.15
        self.scale = min((_WIDTH - 2 * _MARGIN) / wide, (_HEIGHT - 2 * _MARGIN) / high)

    def to_page(self, point: Point) -> Point:
        return (
            _WIDTH / 2 + (point[0] - self.middle[0]) * self.squeeze * self.scale,
            _HEIGHT / 2 - (point[1] - self.middle[1]) * self.scale,
        )

    def land(self) -> str:
        """Land, where the map is of a part of the earth and not of a town."""
        if _HEIGHT / self.scale < _LEAST_DEGREES:
            return ""
        path = ""
        for ring in _outlines():
            across, down = zip(*map(self.to_page, ring), strict=True)
            if max(across) >= 0 and min(across) <= _WIDTH and max(down) >= 0 and min(down) <= _HEIGHT:
                path += "M" + "L".join(f"{x:.0f} {y:.0f}" for x, y in zip(across, down, strict=True)) + "z"
        return f'<path class="land" d="{path}"/>'

    def grid(self) -> str:
        """Meridians and parallels, with their degrees."""
        half_wide = _WIDTH / 2 / self.scale / self.squeeze
        half_high = _HEIGHT / 2 / self.scale
        lines, words = [], []
        step = next((step for step in _STEPS if 2 * half_wide / step <= 6), _STEPS[-1])
        for place in _multiples(self.middle[0] - half_wide, self.middle[0] + half_wide, step):
            x = self.to_page((place, 0.0))[0]
            lines.append(f"M{x:.1f} 0V{_HEIGHT:g}")
            words.append(f'<text x="{x + 3:.1f}" y="{_HEIGHT - 6:g}">{_degrees(place, "E", "W", step)}</text>')
        step = next((step for step in _STEPS if 2 * half_high / step <= 5), _STEPS[-1])
        for place in _multiples(max(self.middle[1] - half_high, -90), min(self.middle[1] + half_high, 90), step):
            y = self.to_page((0.0, place))[1]
            lines.append(f"M0 {y:.1f}H{_WIDTH:g}")
            if y >= 16:  # else there is no room for words above the line
                words.append(f'<text x="4" y="{y - 3:.1f}">{_degrees(place, "N", "S", step)}</text>')
        return f'<path class="grid" d="{"".join(lines)}"/><g class="degrees">{"".join(words)}</g>'

    def scale_bar(self) -> str:
        """A bar of a round length in kilometres, true in the middle of the map."""
        per_kilometre = self.scale / (math.pi / 180 * EARTH_RADIUS)
        wanted = 120 / per_kilometre
        power = 10.0 ** math.floor(math.log10(wanted))
        length = max(round_ * power for round_ in (1, 2, 5) if round_ * power <= wanted)
        x = _WIDTH - 14 - length * per_kilometre
        return (
            f'<g class="scale"><path d="M{x:.1f} 14v5H{_WIDTH - 14:g}v-5"/>'
            f'<text x="{_WIDTH - 14:g}" y="34" text-anchor="end">{length:,g} km</text></g>'
        )


def _multiples(low: float, high: float, step: float) -> list[float]:
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _degrees(value: float, above: str, below: str, step: float) -> str:
    digits = 0 if step >= 1 else 1 if step >= 0.1 else 2
    return f"{abs(value):.{digits}f}°{above if value > 0 else below if value < 0 else ''}"


def _draw_marker(marker: Marker, view: _View) -> str:
    x, y = view.to_page(marker.place.centre)
    ring = " ".join(f"{a:.1f},{b:.1f}" for a, b in map(view.to_page, marker.place.ring))
    shape = f'<rect x="{x - 9:.1f}" y="{y - 9:.1f}" width="18" height="18" rx="3"/>'
    if marker.kind != "query":
        shape = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="9"/>'
    what = "Query" if marker.kind == "query" else f"Result {marker.label}"
    sign = {"hit": ", shares a label", "miss": ", shares no label"}.get(marker.kind, "")
    return (
        f'<g class="marker {marker.kind}" data-tile="{escape(marker.tile)}" tabindex="0" role="button" '
        f'aria-label="{escape(f"{what}{sign}: {marker.tile}")}"><polygon points="{ring}"/>{shape}'
        f'<text x="{x:.1f}" y="{y + 3.5:.1f}" text-anchor="middle">{escape(marker.label)}</text></g>'
    )
