"""Work shared between processes, with its results in order and memory bounded."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerDiedError(ValueError):
    """A worker process was ended from outside, or crashed."""


def default_workers() -> int:
    """Count the processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """Apply a function, importable by its name, to items in worker processes (0: in this one); gives the results in their order.

    The processes start at once and run a little ahead, no more. The function should return what goes wrong with an item, not raise it.
    If a process dies, taking a result raises a `WorkerDiedError`, after all results before it were given.
    """
    if workers == 0 or not items:
        return map(function, items)
    from torch.utils.data import DataLoader  # it gives results in order, and notices a worker that dies

    loader: DataLoader[Any] = DataLoader(
        cast(Any, _Calls(function, items)),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=16,
        collate_fn=_as_is,
        worker_init_fn=_end_with_parent,
    )
    return _results(iter(loader))  # the processes start here, not when the first result is taken


def _results(results: Iterator[Result]) -> Iterator[Result]:
    try:
        yield from results
    except RuntimeError as error:
        if "exited unexpectedly" not in str(error):
            raise
        raise WorkerDiedError(
            f"A worker process was ended from outside or crashed, as when memory runs out: {error}"
        ) from error


class _Calls:
    """A function of items, as the `Dataset` that a DataLoader wants."""

    def __init__(self, function: Callable[[Any], Any], items: Sequence[Any]):
        self.function = function
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: int) -> Any:
        return self.function(self.items[place])


def _end_with_parent(_: int) -> None:
    """End this worker when its parent is gone; else, after a kill, it would wait for ever for its results to be taken."""
    parent: Any = multiprocessing.parent_process()

    def follow() -> None:
        parent.join()
        os._exit(1)

    if parent is not None:
        threading.Thread(target=follow, daemon=True).start()


def _as_is(result: Any) -> Any:
    return result
