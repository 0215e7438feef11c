"""One run in an output folder: two would delete each other's checkpoints."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout
from transformers import TrainingArguments

from csmae_hf.files import LOCK_NAME

logger = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def only_run(output_dir: Path, args: TrainingArguments) -> Iterator[None]:
    """Keep other runs out of a folder; all processes of a run call it, and its main process holds the lock, which ends with it.

    Raises:
        FileExistsError: On every process, if another run is under way there.
    """
    lock = FileLock(output_dir / LOCK_NAME, timeout=0)
    problem: str | None = None
    if args.process_index == 0:
        output_dir.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            problem = (
                f"Another run trains in {output_dir}, and the two would delete each other's checkpoints: wait for its end or end it, "
                "or choose another --output_dir."
            )
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                raise
            logger.warning("%s has no file locks: see to it that no other run trains there.", output_dir)
    try:
        if args.world_size > 1:
            (problem,) = broadcast_object_list([problem])
        if problem:
            raise FileExistsError(problem)
        yield
    finally:
        lock.release()
