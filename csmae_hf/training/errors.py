"""What ends a run that had begun well."""


class TrainingError(RuntimeError):
    """The run cannot go on; the message says why, and what to do."""


class CheckpointError(TrainingError):
    """A checkpoint could not be saved, or is not whole."""


class NonFiniteLossError(TrainingError):
    """A loss is NaN or infinite."""


class InterruptedRunError(TrainingError):
    """The run was asked to stop, and has saved where it was."""
