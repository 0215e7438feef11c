"""Fixtures shared by all tests."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_double import HubDouble
from warm import ROOT, Warm

SHARED = Path(__file__).resolve().parents[2] / "shared"
WHERE_TO_GET_IT = "no shared/ folder beside the checkout, so the real tiles are not here; BigEarthNet itself is at https://bigearth.net"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that at the end no process works on one while the others have nothing left."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


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


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """What is imported stays: without this, the garbage collector, which accelerate calls again and again, looks through it each time,
    and takes half of the time of small trainings."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """The process's environment is after every test what it was: accelerate and others keep settings there, and `map` of datasets in
    several processes puts a copy in its place."""
    own, before = os.environ, dict(os.environ)
    yield
    os.environ = own  # noqa: B003
    for name in {*own, *before} - {"PYTEST_CURRENT_TEST"}:
        if name not in before:
            del own[name]
        elif own.get(name) != before[name]:
            own[name] = before[name]


@pytest.fixture
def hub() -> Iterator[HubDouble]:
    """A loopback Hub: real HTTP, a repository of its own for each test."""
    with HubDouble() as double:
        yield double


@pytest.fixture(scope="module")
def open_hub() -> Iterator[HubDouble]:
    """A loopback Hub for all tests of a file, who take other names for their repositories."""
    with HubDouble() as double:
        yield double


@pytest.fixture(scope="session")
def forks() -> None:
    """Skip what needs processes that are forked."""
    if not hasattr(os, "fork"):
        pytest.skip("no os.fork here")


@pytest.fixture(scope="session")
def warm(forks: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """Processes that have imported already what they need; they can import the scripts as well, and know no Hub."""
    scripts = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    changes = {"PYTHONPATH": scripts, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path_factory.mktemp("warm"))}
    with Warm({**os.environ, **changes}) as server:
        yield server


@pytest.fixture(scope="module")
def warm_at_hub(forks: None, open_hub: HubDouble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """Processes that have imported already what they need, at `open_hub`."""
    with Warm(open_hub.env(tmp_path_factory.mktemp("at_hub"))) as server:
        yield server
