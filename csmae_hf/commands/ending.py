"""How every command and script ends: what goes wrong is said in one line with its remedy, and the exit status says what kind it was.

It imports nothing but the standard library, so that an interrupt while torch is imported is answered like any other.
"""

import errno
import itertools
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

MACHINE = 1
"""Exit status where the machine does not let it: a full or read-only disk, rights, memory, a process that was killed. A check that
found something, such as `csmae verify`, ends with it too."""

MISTAKE = 2
"""Exit status where something that was given is wrong or is not there: an option, a file, a package."""

FAULT = 70
"""Exit status of what should not happen: a fault of this software, or of a package that it uses."""

# Transformers imports torchao where it is installed, which warns of each GPU library that a CPU has not, at every start.
_TALKATIVE = ("torchao", "torch.utils._pytree")

DEBUG_HELP = "where something goes wrong, also show the traceback"

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
"""Control characters but tab and end of line, and what turns the direction of text around."""


_CANNOT_START = " cannot start"
_DEBUG = "--debug"
_TRAINER_DEBUG = ("underflow_overflow", "tpu_metrics_debug")  # values of the option that the Trainer has by this name
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room, or write to another disk"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "choose another folder, or change its rights"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit (ulimit -n), or use fewer processes"),
    errno.ENOMEM: "take a smaller batch or fewer processes",
    errno.EIO: "the disk or its connection fails: look at it before anything else is written there",
}
"""What to do, by the number of an error of the machine."""


class Terminated(KeyboardInterrupt):  # no Exception, as Ctrl-C is none: nobody handles it by chance
    """The process was asked to end by SIGTERM."""


def run_to_end(name: str, run: Callable[[list[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """Run a command, and end it in one way whatever happens: an error is one message on standard error, never a traceback.

    Args:
        name: Of the command, the beginning of its messages.
        run: Does the work, given the command line without `--debug`; returns the exit status, None for 0.
        argv: The command line without the program's name; default that of the process, which then is about to end.

    Returns:
        The exit status: that of `run`, or `MACHINE`, `MISTAKE`, `FAULT`, or 128 and the number of the signal that ended it.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    kept = [word for word, following in itertools.zip_longest(words, words[1:]) if not _is_debug(word, following)]
    status = FAULT
    for talkative in _TALKATIVE:
        logging.getLogger(talkative).setLevel(logging.ERROR)
    with _interrupts() as asked:
        try:
            status = run(kept) or 0
            sys.stdout.flush()  # here, where a full disk can be told
            if asked:  # and somebody handled it by chance
                raise KeyboardInterrupt
        except SystemExit as ending:  # of argparse
            status = ending.code if isinstance(ending.code, int) else MISTAKE if ending.code else 0
            raise
        except BaseException as error:
            message, status = _explain(error, asked)
            if len(kept) < len(words):
                traceback.print_exc()
            if message:
                logging.error("%s%s", name, message)
        finally:
            _let_go_of_output()
    if argv is None and threading.current_thread() is threading.main_thread():
        # the work is done: an interrupt ends the process at once, and not in a traceback of its last steps
        signal.signal(signal.SIGINT, lambda *_: os._exit(status))
    return status


def _is_debug(word: str, following: str | None) -> bool:
    return word == _DEBUG and following not in _TRAINER_DEBUG


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Raise SIGINT and SIGTERM in the main thread until one is heard; gives the numbers of those that came."""
    asked: list[int] = []
    main = threading.main_thread()
    if threading.current_thread() is not main:
        yield asked
        return
    owner = os.getpid()

    def interrupt(number: int, _: Any) -> None:
        if os.getpid() != owner:  # a worker process: its parent ends it
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        asked.append(number)
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def deliver(number: int) -> None:
        if hasattr(signal, "pthread_kill"):  # wakes the main thread where it waits; Windows knows the other only
            signal.pthread_kill(main.ident or 0, number)
        else:
            signal.raise_signal(number)

    def again(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):  # it fell into a callback that cannot pass it on
            threading.Timer(0.02, deliver, [asked[-1] if asked else signal.SIGINT]).start()
        else:
            hook(unraisable)

    hook, sys.unraisablehook = sys.unraisablehook, again
    handlers = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        sys.unraisablehook = hook
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _explain(error: BaseException, asked: Sequence[int]) -> tuple[str, int]:
    """What to say of an error after the name of the command, nothing where nobody is there to read it, and the exit status."""
    message, status = _say(error, asked)
    return (message if not message or message.startswith(_CANNOT_START) else f": {message}"), status


def _say(error: BaseException, asked: Sequence[int]) -> tuple[str, int]:
    number = getattr(error, "signal_number", None)  # of a run that ended itself as it should
    if number is not None:
        return str(error), 128 + number
    if asked or isinstance(error, KeyboardInterrupt):  # whatever else was raised while it ended
        number = asked[0] if asked else signal.SIGINT
        return "Interrupted. What was whole by then stays; the same command begins again or goes on.", 128 + number
    if isinstance(error, BrokenPipeError):
        return "", 128 + getattr(signal, "SIGPIPE", 13)
    text, code = _without_traceback(str(error)), _machine_error(error)
    if code is None and any(frame.f_code.co_name == "<module>" for frame, _ in traceback.walk_tb(error.__traceback__)):
        # in an import
        return f"{_CANNOT_START}: {type(error).__name__}: {text}\n`csmae doctor` says what is broken.", MISTAKE
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "can't allocate memory" in text:
        return f"Memory ran out: {_REMEDIES[errno.ENOMEM]}. {text}".rstrip(), MACHINE
    if isinstance(error, RuntimeError) and text.startswith("DataLoader worker"):
        return f"A process that reads tiles was ended from outside, as when memory runs out: use fewer. {text}", MACHINE
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
        if isinstance(error, NotADirectoryError | FileExistsError):
            text += ": there is a file where a folder must be; choose another place"
    if code is not None:
        said = isinstance(error, ValueError) or hasattr(error, "exit_status")  # by ourselves, with a remedy
        return text if said else f"{' '.join(text.split())}: {_REMEDIES[code]}.", MACHINE
    if isinstance(error, ValueError | FileNotFoundError | FileExistsError | NotADirectoryError | IsADirectoryError):
        return text, MISTAKE
    if isinstance(error, ImportError):
        return text, MISTAKE
    if isinstance(error, OSError) or hasattr(error, "exit_status"):
        return text, getattr(error, "exit_status", MACHINE)
    what = " ".join(f"{type(error).__name__}: {text}".split())
    return f"{what} (a fault of this software or of a package: {_DEBUG} shows where; please report it)", FAULT


def _machine_error(error: BaseException | None) -> int | None:
    """The number of the machine's error that is behind an error; None where there is none that we know a remedy for."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _REMEDIES:
            return error.errno
        for code in _REMEDIES:  # libraries in C and Rust give it as text
            if os.strerror(code) in str(error) and not isinstance(error, OSError):
                return code
        error = error.__cause__
    return None


def _without_traceback(text: str) -> str:
    """What an error says, without the traceback that torch puts before it where a worker process raised it."""
    if "Traceback (most recent call last)" not in text:
        return text
    lines = text.rstrip().splitlines()
    last = max(place for place, line in enumerate(lines) if line.startswith((" ", "Traceback")))
    return "\n".join(lines[last + 1 :]).partition(": ")[2] or lines[-1]


def _let_go_of_output() -> None:
    """Where standard output can take no more, let it end in nothing: else the interpreter complains when it ends."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


def visible(text: object) -> str:
    """Give text as a terminal may have it: escape sequences and other unseen characters as `\\u001b`, which JSON reads as the same."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found.group()):04x}", str(text))


class VisibleFormatter(logging.Formatter):
    """Messages of a log as they are, made visible."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        return visible(super().format(record))


def log_to_terminal(level: int) -> None:
    """Send the log to standard error, a message a line, made visible; nothing where the process has a log already."""
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter("%(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
