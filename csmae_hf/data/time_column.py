"""A column of times that every format of `datasets` can give."""

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Value
from datasets.features.features import register_feature


@dataclass
class Time(Value):
    """A `datasets` feature: a `Value` of a timestamp, equal to it, whose times the formats of arrays give as text (ISO 8601).

    `Value` gives these formats a `numpy.datetime64`, of which torch makes no tensor: the whole row fails for it. Text and what is not
    known, None, they leave as they are.
    """

    dtype: str = "timestamp[ms]"  # parquet knows no seconds
    _type: str = field(default="CsmaeTime", init=False, repr=False)

    def __eq__(self, other: object) -> bool:
        """Compare with another feature: a time is a time, so that datasets of either go together."""
        return isinstance(other, Value) and other.dtype == self.dtype

    def decode_example(self, value: Any, token_per_repo_id: dict[str, Any] | None = None) -> Any:
        """Give a time as it is, but text for one that comes from numpy."""
        if not isinstance(value, np.datetime64):
            return value
        if np.isnat(value):
            return None
        seconds = value.astype("datetime64[s]")
        return str(seconds if seconds == value and self.dtype.startswith("timestamp") else value)


def is_time(feature: Any) -> bool:
    """Say whether a feature is of points in time or of days."""
    return isinstance(feature, Value) and feature.dtype.startswith(("timestamp", "date"))


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=".*register_feature.*experimental")  # nothing a user could do about it
    register_feature(Time, Time._type)
