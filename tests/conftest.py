"""Fixtures shared by all tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_double import HubDouble

SHARED = Path(__file__).resolve().parents[2] / "shared"
WHERE_TO_GET_IT = "no shared/ folder beside the checkout, so the real tiles are not here; BigEarthNet itself is at https://bigearth.net"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and parity cases beside the checkout."""
    if not (SHARED / "data").is_dir():
        pytest.skip(WHERE_TO_GET_IT)
    return SHARED


@pytest.fixture(scope="session")
def shared_data(shared: Path) -> Path:
    """Real, redistributable tiles."""
    return shared / "data"


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """The process's own environment after every test: `map` of datasets in several processes puts a copy in its place, which keeps
    what a test had set for itself."""
    own = os.environ
    yield
    os.environ = own  # noqa: B003


@pytest.fixture
def hub() -> Iterator[HubDouble]:
    """A loopback Hub: real HTTP, a repository of its own for each test."""
    with HubDouble() as double:
        yield double
