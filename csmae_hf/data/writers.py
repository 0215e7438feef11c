"""What writes a dataset takes its pixels in, or refuses; what adds a row encodes it.

`datasets` asks a feature to embed what it refers to in `save_to_disk` and `push_to_hub`, and nowhere else: `to_parquet`, `to_csv`,
`to_json` and `to_sql` would write where pixels lie on this machine and not the pixels, and the number of shards is reckoned without
them. `add_item` takes no feature of several parts. Where nobody names the features (`from_list` of rows), an image would become
what its row stores, a place on this machine. There is no hook for these, so the methods are wrapped here; datasets without pixel
columns go through unchanged.
"""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets
from datasets.arrow_writer import TypedSequence
from datasets.table import embed_table_storage

_ROWS_AT_ONCE = 100
_NO_PIXELS = ("to_csv", "to_json", "to_sql")

Names = Callable[[Dataset], list[str]]
Size = Callable[[Dataset], int]
Infer = Callable[[Any], tuple[Any, Any]]


def wrap_writers(pixel_columns: Names, referring: Names, pixel_bytes: Size, feature_of: Callable[[Any], Any]) -> None:
    """Wrap the methods of `datasets.Dataset`.

    Args:
        pixel_columns: Names a dataset's pixel columns.
        referring: Names those of them with rows that do not hold their pixels.
        pixel_bytes: Says how many bytes they will have.
        feature_of: Gives the feature of a row's image; None of anything else.
    """
    TypedSequence._infer_custom_type_and_encode = staticmethod(
        _inferring(TypedSequence._infer_custom_type_and_encode, feature_of)
    )
    Dataset.to_parquet = _embedding(Dataset.to_parquet, referring)
    Dataset._estimate_nbytes = _reckoning(Dataset._estimate_nbytes, pixel_bytes)
    for name in _NO_PIXELS:
        setattr(Dataset, name, _refusing(getattr(Dataset, name), pixel_columns))
    Dataset.add_item = _encoding(Dataset.add_item, pixel_columns)


def _inferring(infer: Infer, feature_of: Callable[[Any], Any]) -> Infer:
    """The feature of a column that is made of rows' images without its features, as `datasets` finds its own of pictures."""

    @functools.wraps(infer)
    def wrapped(data: Any) -> tuple[Any, Any]:
        feature = feature_of(next((value for value in data if value is not None), None))
        if feature is None:
            return infer(data)
        return [None if value is None else feature.encode_example(value) for value in data], feature

    return wrapped


def _embedding(write: Callable[..., Any], referring: Names) -> Callable[..., Any]:
    """`to_parquet` with the pixels; they are read into a temporary file first, so that not all are in memory."""

    @functools.wraps(write)
    def wrapped(self: Dataset, *args: Any, **options: Any) -> Any:
        if not referring(self):
            return write(self, *args, **options)
        with tempfile.TemporaryDirectory(prefix="csmae-") as folder:
            embedded = self.with_format("arrow").map(
                embed_table_storage,
                batched=True,
                batch_size=_ROWS_AT_ONCE,
                writer_batch_size=_ROWS_AT_ONCE,
                cache_file_name=str(Path(folder) / "embedded.arrow"),
                desc="Embedding pixels",
            )
            return write(embedded, *args, **options)

    return wrapped


def _refusing(write: Callable[..., Any], pixel_columns: Names) -> Callable[..., Any]:
    """A writer of text, which holds no pixels."""

    @functools.wraps(write)
    def wrapped(self: Dataset, *args: Any, **options: Any) -> Any:
        pixels = pixel_columns(self)
        if pixels:
            raise ValueError(
                f"{write.__name__} writes text, and {', '.join(pixels)} hold pixels. Leave them out with "
                f"dataset.remove_columns({pixels}).{write.__name__}(...), or write them with to_parquet, save_to_disk or push_to_hub."
            )
        return write(self, *args, **options)

    return wrapped


def _reckoning(estimate: Size, pixel_bytes: Size) -> Size:
    """The size of a dataset with the pixels that writing takes in, by which it is divided into shards."""

    @functools.wraps(estimate)
    def wrapped(self: Dataset) -> int:
        return estimate(self) + pixel_bytes(self)

    return wrapped


def _encoding(add: Callable[..., Any], pixel_columns: Names) -> Callable[..., Any]:
    """`add_item` of a row as `from_list` takes it."""

    @functools.wraps(add)
    def wrapped(self: Dataset, item: dict[str, Any], *args: Any, **options: Any) -> Any:
        if not pixel_columns(self):
            return add(self, item, *args, **options)
        unknown = [name for name in item if name not in self.features]
        if unknown:
            raise ValueError(f"The row has {', '.join(unknown)}, and the dataset {', '.join(self.features)}.")
        row = {name: item.get(name) for name in self.features}
        return concatenate_datasets([self.with_format(None), Dataset.from_list([row], features=self.features)])

    return wrapped
