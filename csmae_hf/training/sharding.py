"""Fully sharded training on CPU processes: slow, and a true rehearsal of a run on several GPUs."""

from typing import Any

from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin


def shard_on_cpu(accelerator: Accelerator, plugin_args: dict[str, Any]) -> bool:
    """Make an accelerator of several CPU processes shard the model, which Accelerate does for GPUs only.

    Args:
        accelerator: As the Trainer has made it.
        plugin_args: As of `TrainingArguments.fsdp_plugin_args`.

    Returns:
        Whether it now shards; False where it runs on other devices, or on one process.
    """
    state = accelerator.state
    if state.distributed_type != DistributedType.MULTI_CPU:
        return False
    plugin = FullyShardedDataParallelPlugin(**plugin_args)
    if accelerator.mixed_precision != "no":
        plugin.set_mixed_precision(accelerator.mixed_precision)
    state.distributed_type, state.fsdp_plugin = DistributedType.FSDP, plugin
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP  # as Accelerate itself does
    return True
