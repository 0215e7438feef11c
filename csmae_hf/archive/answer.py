"""From what an index found to what a person is told: own tiles left out, and a word wherever the answer is short or approximate."""

import numpy as np

from csmae_hf.search.index import Found, Selection
from csmae_hf.search.vectors import IntArray


def leave_out(found: Found, out: IntArray, k: int) -> Found:
    """Take rows `out`, (Q, M), -1 for none, that a query must not find out of its results, (Q, k + M); (Q, k) are left."""
    drop = (found.rows[:, :, None] == out[:, None, :]).any(axis=2)
    scores = np.where(drop, -np.inf, found.scores).astype(np.float32)
    rows = np.where(drop, -1, found.rows)
    order = np.argsort(rows < 0, axis=1, kind="stable")[:, :k]
    return Found(np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1), found.exact)


def notes_on(
    found: Found, out: IntArray, kept: int, total: int, k: int, selection: Selection | None, backend: str
) -> list[str]:
    """Say what must be said of an answer, (Q, k), to queries that must not find `out`, (Q, M), -1 for none: nothing where it is exact
    and full. The filter keeps `kept` of the archive's `total` tiles."""
    notes = []
    counts = (found.rows >= 0).sum(axis=1)
    left = [np.unique(row[row >= 0]) for row in out]
    if selection is not None and len(selection.rows):  # whose rows ascend
        places = [np.searchsorted(selection.rows, rows).clip(max=len(selection.rows) - 1) for rows in left]
        left = [rows[selection.rows[place] == rows] for rows, place in zip(left, places, strict=True)]
    possible = np.array([max(kept - len(rows), 0) for rows in left])
    if not total:
        notes.append("The archive is empty.")
    elif not kept:
        notes.append(f"The filter keeps none of the {total} tiles.")
    elif (possible < k).any():
        what = f"the archive has {total}" if selection is None else f"the filter keeps {kept} of {total}"
        notes.append(f"Fewer than k = {k} tiles can be found: {what}.")
    if (counts < np.minimum(possible, k)).any():
        notes.append(
            f"The {backend} index found {counts.min()} tiles for a query where {possible.min()} or more could be found: raise its "
            "effort, or search exactly."
        )
    if not found.exact:
        notes.append(f"Approximate: the {backend} index may have missed nearer tiles.")
    return notes
