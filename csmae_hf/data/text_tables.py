"""Tables and lists written as text, however a spreadsheet or a script wrote them: byte order mark, separator, encoding, line ends."""

import bz2
import csv
import gzip
import io
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

logger = logging.getLogger(__name__)

_SEPARATORS = ",;\t|"
_OPENERS = {".bz2": bz2.decompress, ".gz": gzip.decompress}
_CODE = r"^[+-]?0\d+$"  # as of a postal code: a number would lose its zero
_NULL = "\x1anull"


def read_text(path: Path) -> str:
    """Read a text file, packed or not, as UTF-8 or UTF-16 by its mark, else as UTF-8, else as Windows-1252, with a warning.

    Line ends are as in the file. A ValueError names a file that is no text.
    """
    try:
        data = _OPENERS.get(path.suffix.lower(), bytes)(path.read_bytes())
    except (EOFError, ValueError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} cannot be unpacked: {error}. Copy it again.") from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    if b"\0" in data:
        raise ValueError(f"{path} is no text: it holds zero bytes. Save it as CSV in UTF-8.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # every byte is a letter in Latin-1, which differs from Windows-1252 in characters that no name has
        text = data.decode("cp1252", errors="replace")
        line = text[: error.start].count("\n")
        logger.warning(
            "%s is not UTF-8; it is read as Windows-1252 (Latin-1), so that line %d is %r. Save it as UTF-8 if that is wrong.",
            path,
            line + 1,
            text.split("\n")[line].strip()[:100],
        )
        return text


def read_lines(path: Path) -> list[list[str]]:
    """Read the lines of a text file that are not empty, each as its cells, without blanks around them."""
    text, separator = _separated(read_text(path))
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    return [cells for line in lines if any(cells := [cell.strip() for cell in line])]


def read_csv(path: Path, is_text: Callable[[str], bool]) -> pa.Table:
    """Read a text file with a line of column names as a table.

    Args:
        path: The file.
        is_text: Whether a column, by its name, is text whatever it holds. The others have the type that all their values fit: whole
            numbers (text where one begins with a zero, such as a code), numbers (with a comma in files separated by semicolons), truth
            values, dates, times; an empty cell is null.

    Returns:
        The table; columns without a name are left out.

    Raises:
        ValueError: If it has no line of names, two columns of one name, or a line of another number of cells.
    """
    text, separator = _separated(read_text(path))
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    header = [name.strip() for name in next(lines, [])]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice or not any(header):
        raise ValueError(
            f"{path} has two columns of the name {twice[0]!r}; rename one."
            if twice
            else f"{path} has no line of column names."
        )
    columns: list[list[str]] = [[] for _ in header]
    for cells in lines:
        if not any(cells):
            continue
        if len(cells) < len(header) or any(cells[len(header) :]):
            raise ValueError(
                f"{path} is no CSV with a header: line {lines.line_num}: Expected {len(header)} columns, got {len(cells)}, separated "
                f"by {separator!r}. Put a cell that holds {separator!r} in quotes; write one that is empty too."
            )
        for column, cell in zip(columns, cells, strict=False):
            column.append(cell.strip())
    texts = {name: column for name, column in zip(header, columns, strict=True) if name}
    return pa.table(
        {
            name: pa.array([cell or None for cell in column], pa.string())
            if is_text(name)
            else _typed(column, separator == ";")
            for name, column in texts.items()
        }
    )


def _separated(text: str) -> tuple[str, str]:
    """A text without what lies before its first line, and the separator that gives this line the most cells."""
    text = text.lstrip("\ufeff\r\n")
    if match := re.match(r"sep=(.)\r?\n", text):  # as spreadsheets write
        return text[match.end() :], match[1]
    first = text[: 1 << 16].splitlines()[:1]
    counts = {separator: len(next(csv.reader(first, delimiter=separator), [])) for separator in _SEPARATORS}
    return text, max(counts, key=lambda separator: counts[separator])


def _typed(column: Sequence[str], decimal_comma: bool) -> pa.Array:
    """Cells in the type that all fit, as Arrow finds it."""
    texts = pa.array([cell or None for cell in column], pa.string())
    if texts.null_count == len(texts) or pc.any(pc.match_substring_regex(texts, _CODE)).as_py():
        return texts
    lines = io.StringIO()
    csv.writer(lines).writerows([["cell"], *([cell or _NULL] for cell in column)])
    data = lines.getvalue().encode()
    whole = arrow_csv.ReadOptions(block_size=len(data) + 1)  # else the first megabyte alone decides the type
    for point in (".", ",") if decimal_comma else (".",):
        options = arrow_csv.ConvertOptions(decimal_point=point, null_values=[_NULL])
        parsed = arrow_csv.read_csv(
            io.BytesIO(data), whole, arrow_csv.ParseOptions(newlines_in_values=True), options
        ).column(0)
        if not pa.types.is_string(parsed.type) and not pa.types.is_binary(parsed.type):
            return parsed.combine_chunks()
    return texts
