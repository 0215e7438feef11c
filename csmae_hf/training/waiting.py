"""Copies between the host and a GPU for which the host does not wait: a GPU that has run out of work stands still."""

import torch

_WITHOUT_WAITING = ("cuda",)
"""Types of devices for which copies to and from page-locked memory are safe while the host goes on."""


def send(values: torch.Tensor, device: str | torch.device) -> torch.Tensor:
    """Copy values from the host to a device, behind what the device has to do before.

    Args:
        values: On the CPU.
        device: Where to.

    Returns:
        The values there.
    """
    device = torch.device(device)
    if device.type not in _WITHOUT_WAITING:
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)  # from other memory the driver copies while the host waits


class Readback:
    """Values on their way from a device to the host. Give the device more work before asking for them.

    Args:
        values: On any device.
    """

    def __init__(self, values: torch.Tensor):
        values = values.detach()
        self._event: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            self._values = values.to("cpu", non_blocking=True)  # into page-locked memory, which torch sees to
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(values.device))
        else:
            self._values = values

    def wait(self) -> torch.Tensor:
        """Wait until the values are here, not for anything that the device was given later.

        Returns:
            The values on the CPU, or where they were if that is no CUDA device.
        """
        if self._event is not None:
            self._event.synchronize()
        return self._values
