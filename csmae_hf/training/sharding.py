"""Fully sharded training (FSDP): on CPU processes too, as a rehearsal of a run on several GPUs, and gathered to be measured."""

import copy
from typing import Any

from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from modeling_csmae import CSMAEForPreTraining


def shard_on_cpu(accelerator: Accelerator, plugin_args: dict[str, Any]) -> bool:
    """Make an accelerator of several CPU processes shard the model, which Accelerate does for GPUs only; say whether it does."""
    state = accelerator.state
    if state.distributed_type != DistributedType.MULTI_CPU:
        return False
    plugin = FullyShardedDataParallelPlugin(**plugin_args)
    if accelerator.mixed_precision != "no":
        plugin.set_mixed_precision(accelerator.mixed_precision)
    state.distributed_type, state.fsdp_plugin = DistributedType.FSDP, plugin
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP  # as Accelerate itself does
    return True


def whole_model(model: PreTrainedModel) -> CSMAEForPreTraining | None:
    """Give a model that one process can call alone: itself, or of a sharded one a copy, which the main process alone gets.

    All processes must call this where the model is sharded.
    """
    is_sharded = any(isinstance(parameter, DTensor) for parameter in model.parameters())
    if not is_sharded and not isinstance(model, FullyShardedDataParallel):
        return model  # type: ignore[return-value]
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if dist.get_rank() != 0:
        return None
    copied = CSMAEForPreTraining(copy.deepcopy(model.config)).eval()
    copied.load_state_dict(weights)
    return copied.to(next(model.parameters()).device)
