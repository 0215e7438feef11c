"""The parts of the page that are drawn by us, as HTML: pure functions of what there is to show."""

from collections.abc import Mapping, Sequence
from typing import Any

from csmae_hf.app.cards import Card, facts_of
from csmae_hf.app.explorer import Answer, Explorer
from csmae_hf.app.geography import Marker, Place, draw_map
from csmae_hf.app.html import escape
from csmae_hf.app.pictures import to_data_uri
from csmae_hf.app.state import Search, Session
from csmae_hf.visualize import abbreviate

Pixels = Mapping[str, Mapping[str, Any]]


def header(explorer: Explorer) -> str:
    """What the page is of."""
    archive = explorer.archive
    model = archive.identity.described
    model = (
        model.rpartition("/")[2] if model.startswith("/") else model
    )  # where it lies on the server is nobody's business
    sensors = " and ".join(sensor.upper() for sensor in archive.sensors)
    notice = f'<p class="notice">{escape(explorer.notice)}</p>' if explorer.notice else ""
    pixels = (
        ""
        if explorer.dataset is not None
        else (
            '<p class="notice">The tiles themselves are not at hand, so there are no pictures: start with <code>--data</code>.</p>'
        )
    )
    return (
        f"<header><h1>CSMAE explorer</h1><p>{len(archive):,} tiles, embedded by {escape(sensors)}; model "
        f"{escape(model)}.</p>{notice}{pixels}</header>"
    )


def example_strip(explorer: Explorer, tiles: Sequence[str], sensor: str) -> str:
    """Tiles to begin with, as buttons."""
    items = []
    for tile in tiles:
        uris = explorer.pictures.uris(tile, sensor)
        inner = f'<img src="{uris[0]}" alt="" width="72" height="72">' if uris else f"<span>{escape(tile[-12:])}</span>"
        items.append(
            f'<li><button type="button" data-action="query" data-tile="{escape(tile)}" '
            f'aria-label="Search by the {sensor.upper()} image of tile {escape(tile)}" title="{escape(tile)}">{inner}</button></li>'
        )
    return f'<ul class="strip">{"".join(items)}</ul>' if items else '<p class="quiet">The archive is empty.</p>'


def message(text: str, kind: str = "status") -> str:
    """A sentence for the person: "status", or "error"."""
    role = "alert" if kind == "error" else "status"
    sign = '<span aria-hidden="true">⚠</span> ' if kind == "error" else ""
    return (
        f'<p class="{kind}" role="{role}">{sign}{escape(text)}</p>' if text else f'<p class="empty" role="{role}"></p>'
    )


def query_panel(explorer: Explorer, search: Search, answer: Answer | None, uploads: Pixels) -> str:
    """The query: its images by every sensor, and what is known of it."""
    if not search.has_query:
        return (
            '<div class="welcome"><h2>Ask the archive</h2><p>Choose one of the example tiles, type the id of a tile, or bring a '
            "GeoTIFF. The query is seen by one sensor, and the archive searched by what another sensor saw.</p></div>"
        )
    if search.upload is not None:
        name, known = search.upload, {}
        pictures = [
            (way.title, to_data_uri(rgb))
            for sensor, bands in uploads.items()
            for way, rgb in zip(
                explorer.pictures.composites[sensor], explorer.pictures.paint(bands, sensor), strict=True
            )
        ]
    elif search.tile is not None:
        name = search.tile
        known = explorer.metadata(name)
        pictures = tile_pictures(explorer, name, [search.sensor, *(s for s in explorer.bands if s != search.sensor)])
    else:
        name, known, pictures = "What you like", {}, []
    images = "".join(
        f"<figure>{_image(uri, f'Query, {title}')}<figcaption>{escape(title)}</figcaption></figure>"
        for title, uri in pictures
    )
    labels = "".join(f"<li>{escape(label)}</li>" for label in (answer.labels if answer is not None else ()))
    facts = ", ".join(facts_of(known))
    moved = []
    if search.like or search.unlike:
        moved.append(f"moved by {len(search.like)} liked and {len(search.unlike)} not liked")
    if search.where:
        moved.append(f"where {search.where}")
    return (
        f'<section class="query" aria-label="Query"><div class="pictures">{images}</div><div><h2>Query '
        f'<span class="sensors">{escape(search.sensor.upper())} → {escape(search.archive_sensor.upper())}</span></h2>'
        f'<p class="id">{escape(name)}</p><ul class="labels">{labels}</ul><p>{escape(facts)}</p>'
        f'<p class="quiet">{escape("; ".join(moved))}</p></div></section>'
    )


def tile_pictures(explorer: Explorer, tile: str, sensors: Sequence[str]) -> list[tuple[str, str]]:
    """Title and `data:` URI of every picture of a tile."""
    return [
        (way.title, uri)
        for sensor in sensors
        if sensor in explorer.pictures.composites
        for way, uri in zip(explorer.pictures.composites[sensor], explorer.pictures.uris(tile, sensor), strict=False)
    ]


def gallery(explorer: Explorer, session: Session, answer: Answer) -> str:
    """The results."""
    if not answer.cards:
        return '<p class="quiet">Nothing was found.</p>'
    cards = "".join(_card(explorer, session, card) for card in answer.cards)
    return f'<ol class="cards" aria-label="Results">{cards}</ol>'


def _card(explorer: Explorer, session: Session, card: Card) -> str:
    target = session.shown.archive_sensor
    others = [sensor for sensor in explorer.bands if sensor != target]
    own = "".join(_figure(title, uri, card) for title, uri in tile_pictures(explorer, card.tile, [target]))
    more = "".join(_figure(title, uri, card) for title, uri in tile_pictures(explorer, card.tile, others))
    tile, rank = escape(card.tile), card.rank
    kind = {True: "hit", False: "miss", None: "unknown"}[card.hit]
    shared = sum(is_shared for _, is_shared in card.labels)
    verdict = {
        True: f'<span class="verdict"><span aria-hidden="true">✓</span> shares {shared} of {len(card.labels)}</span>',
        False: '<span class="verdict"><span aria-hidden="true">✗</span> shares none</span>',
        None: '<span class="verdict"><span aria-hidden="true">?</span> labels not known</span>',
    }[card.hit]
    labels = "".join(
        f'<li class="shared" title="{escape(label)}"><span aria-label="shared with the query:">✓</span> '
        f"{escape(abbreviate(label, 30))}</li>"
        if is_shared
        else f'<li title="{escape(label)}">{escape(abbreviate(label, 30))}</li>'
        for label, is_shared in card.labels
    )
    away = (
        []
        if card.kilometres is None
        else [f"{card.kilometres:,.0f} km away" if card.kilometres >= 1 else "the same place"]
    )
    facts = " · ".join([*away, *([card.day] if card.day else []), *card.facts])
    both = (
        f'<button type="button" data-both="{rank}" aria-expanded="false" aria-controls="both-{rank}">Both sensors</button>'
        if more
        else ""
    )
    where = (
        f'<button type="button" data-show="{tile}" aria-label="Show result {rank} on the map">Map</button>'
        if card.place
        else ""
    )
    return (
        f'<li class="card {kind}" data-tile="{tile}" id="card-{rank}" tabindex="-1"><div class="head"><span class="rank">{rank}</span>'
        f'{verdict}<span class="score" title="cosine similarity">{card.score:.3f}</span></div><div class="pictures">{own}</div>'
        f'<div class="pictures" id="both-{rank}" hidden>{more}</div><ul class="labels">{labels}</ul>'
        f'<p class="facts">{escape(facts)}</p>'
        f'<p class="id" title="{tile}">{tile}</p><div class="actions">{_mark(session, card, "like", "Like")}'
        f"{_mark(session, card, 'unlike', 'Unlike')}{both}{where}"
        f'<button type="button" data-action="why" data-tile="{tile}" aria-label="Why result {rank}?">Why?</button>'
        f'<button type="button" data-action="query" data-tile="{tile}" aria-label="Search by result {rank}">'
        "Search by it</button></div></li>"
    )


def _mark(session: Session, card: Card, verdict: str, word: str) -> str:
    pressed = card.tile in getattr(session.current, verdict)
    sign = {"like": "+", "unlike": "−"}[verdict]  # noqa: RUF001 (a minus as wide as the plus)
    return (
        f'<button type="button" class="{verdict}" data-action="{verdict}" data-tile="{escape(card.tile)}" '
        f'aria-pressed="{"true" if pressed else "false"}" aria-label="{word} result {card.rank}">'
        f'<span aria-hidden="true">{sign}</span> {word}</button>'
    )


def _figure(title: str, uri: str, card: Card) -> str:
    return f"<figure>{_image(uri, f'Result {card.rank}, {title}')}<figcaption>{escape(title)}</figcaption></figure>"


def _image(uri: str, words: str) -> str:
    return f'<img src="{uri}" alt="{escape(words)}" width="120" height="120">'


def marks(explorer: Explorer, session: Session) -> str:
    """What is liked, not liked and collected so far."""
    current = session.current
    if not (current.like or current.unlike or current.collected):
        return '<p class="quiet">Like or unlike results, then search again: the query moves towards what you like.</p>'
    pending = (current.like, current.unlike) != (session.shown.like, session.shown.unlike)
    items = "".join(
        f'<li class="{verdict}"><button type="button" data-action="{verdict}" data-tile="{escape(tile)}" '
        f'aria-label="Take the mark off {escape(tile)}" title="{escape(tile)}">{_thumb(explorer, tile, session.shown.archive_sensor)}'
        f'<span aria-hidden="true">{sign}</span></button></li>'
        for verdict, sign in (("like", "+"), ("unlike", "−"))  # noqa: RUF001
        for tile in getattr(current, verdict)
    )
    words = f"{len(current.like)} liked, {len(current.unlike)} not liked, {len(current.collected)} collected."
    if pending:
        words += " Search again to use these marks."
    return f'<p>{words}</p><ul class="strip small">{items}</ul>'


def _thumb(explorer: Explorer, tile: str, sensor: str) -> str:
    uris = explorer.pictures.uris(tile, sensor) if sensor in explorer.pictures.composites else []
    return f'<img src="{uris[0]}" alt="" width="44" height="44">' if uris else escape(tile[-8:])


def results_map(explorer: Explorer, search: Search, answer: Answer) -> str:
    """Where the query and its results lie."""
    markers = []
    if answer.place is not None and search.tile is not None:
        markers.append(Marker(search.tile, answer.place, "Q", "query"))
    markers += [
        Marker(card.tile, card.place, str(card.rank), {True: "hit", False: "miss", None: "plain"}[card.hit])
        for card in answer.cards
        if card.place is not None
    ]
    unknown = sum(card.place is None for card in answer.cards)
    others: list[Place] = explorer.dots if markers else []
    words = f'<p class="quiet">Of {unknown} results the place is not known.</p>' if unknown and markers else ""
    key = (
        '<p class="quiet">Q: the query; number: rank, a filled mark shares a label. Dots: other tiles of the archive.</p>'
        if markers
        else ""
    )
    return f'<section aria-label="Map">{draw_map(markers, others)}{key}{words}</section>'


def status_of(answer: Answer) -> str:
    """What an answer is, and what should be known of it."""
    hits = answer.hits
    how = "exact" if hits.exact else "approximate"
    hit = sum(card.hit is True for card in answer.cards)
    judged = sum(card.hit is not None for card in answer.cards)
    words = f"{len(answer.cards)} results out of {hits.kept:,} tiles, {how} search, {answer.seconds * 1000:.0f} ms."
    if judged:
        words += f" {hit} of {judged} share a label with the query."
    return " ".join([words, *hits.notes])
