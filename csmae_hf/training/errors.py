"""What ends a run that had begun well."""


class TrainingError(RuntimeError):
    """The run cannot go on; the message says why, and what to do."""

    exit_status = 1


class CheckpointError(TrainingError):
    """A checkpoint could not be saved, or is not whole."""


class NonFiniteLossError(TrainingError):
    """A loss is NaN or infinite."""


class InterruptedRunError(TrainingError):
    """The run was asked to stop, and has saved where it was.

    Args:
        message: Where it stopped, and how it goes on.
        signal_number: The signal that asked for it: SIGINT (Ctrl-C) or SIGTERM.
    """

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number
