"""Rows of a table of tiles by their ids."""

import pyarrow as pa

ID = "id"
"""Column that names a tile."""


def rows_by_id(tiles: pa.Table) -> dict[str, int]:
    """Row of each tile by its id."""
    return {name: row for row, name in enumerate(tiles.column(ID).to_pylist())}


class TileRows:
    """Keeps `rows_by_id` of a table until it is asked about another: a query by id then costs nothing that grows with the table."""

    def __init__(self) -> None:
        self._kept: tuple[pa.Table, dict[str, int]] | None = None

    def of(self, tiles: pa.Table) -> dict[str, int]:
        """Row of each tile by its id; to be read only."""
        kept = self._kept
        if kept is None or kept[0] is not tiles:
            self._kept = kept = tiles, rows_by_id(tiles)
        return kept[1]
