"""The optimisers of a run: those of Transformers that it can train with and resume, and Muon, which Transformers does not know."""

import difflib
import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments
from transformers.training_args import OptimizerNames
from transformers.utils import strtobool

from modeling_csmae import CSMAELayer

logger = logging.getLogger(__name__)

MUON = "muon"
"""Name of Muon for `--optim`; a release of Transformers that has it under this name is left to it."""

_TRANSFORMERS = [each.value for each in OptimizerNames]
_TAKE_NO_ARGS = ("adamw_torch", "adamw_torch_fused", "adafactor")  # Transformers would leave `optim_args` unread
_MUON_ARGS: dict[str, Callable[[str], Any]] = {
    "lr": float,
    "momentum": float,
    "nesterov": lambda text: bool(strtobool(text)),
    "ns_steps": int,
    "eps": float,
    "adjust_lr_fn": str,
}


def choose_schedule(optim: str, asked: str | None) -> str:
    """Say which schedule an optimiser runs under where one was asked for, or none.

    The schedule-free ones average the weights in place of lowering the rate (Defazio et al., arXiv 2405.15682). Their warm-up is the
    schedule's, so that there is one, and the log shows it; RAdam needs none.
    """
    if not optim.startswith("schedule_free"):
        return asked or "cosine"
    if asked in (None, "constant"):
        return "constant" if optim == "schedule_free_radam" else "constant_with_warmup"
    if asked != "constant_with_warmup":
        logger.warning(
            "lr_scheduler_type = %s lowers the rate although %s averages the weights in its place: leave it out, or give "
            "--lr_scheduler_type constant.",
            asked,
            optim,
        )
    return str(asked)


def is_own(name: str) -> bool:
    """Say whether an optimiser is this package's and not the Trainer's."""
    return name == MUON and MUON not in _TRANSFORMERS


def check_optimizer(name: str, optim_args: str | None, is_saved: bool) -> None:
    """Refuse an optimiser that does not exist or cannot be resumed, and arguments that would not be used.

    Args:
        name: The optimiser.
        optim_args: Its further arguments, as given.
        is_saved: Whether the run saves checkpoints to go on from.

    Raises:
        ValueError: The message says what to give instead.
    """
    known = dict.fromkeys([*_TRANSFORMERS, MUON])
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        meant = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}."
        raise ValueError(f"optim = {name!r} is no optimiser that the Trainer knows: {meant}")
    if name.endswith("_layerwise") or name in ("lomo", "adalomo"):  # a run's trial steps would train, too
        instead = f"--optim {name.removesuffix('_layerwise')}" if name.endswith("_layerwise") else "--optim adafactor"
        raise ValueError(
            f"optim = {name!r} changes the weights during the backward pass and keeps its state out of checkpoints, so that a "
            f"run could not be resumed: use {instead} in its place."
        )
    if name.startswith(("galore", "apollo")) and is_saved:  # objects of theirs, which loading without pickle refuses
        raise ValueError(
            f"optim = {name!r} saves a state that cannot be loaded again, so that a run could not be resumed: add "
            "--save_only_model true or --save_strategy no to train without."
        )
    if optim_args and name in _TAKE_NO_ARGS:
        raise ValueError(
            f"optim_args = {optim_args!r} would not be used: {name} has its arguments by name, such as --learning_rate, "
            "--adam_beta1, --adam_beta2, --adam_epsilon and --weight_decay."
        )
    if is_own(name):
        muon_args(optim_args)


def muon_args(text: str | None) -> dict[str, Any]:
    """Read the `optim_args` of Muon, `name=value,...`.

    Raises:
        ValueError: If it names what Muon does not take, or a value cannot be read.
    """
    found: dict[str, Any] = {}
    for part in filter(None, (text or "").replace(" ", "").split(",")):
        name, _, value = part.partition("=")
        try:
            found[name] = _MUON_ARGS[name](value)
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"optim_args = {text!r}: {part!r} is nothing that muon takes. Expected name=value, with commas between, of "
                f"{', '.join(_MUON_ARGS)}."
            ) from error
    if found.get("adjust_lr_fn", "original") not in ("original", "match_rms_adamw"):
        raise ValueError(f"optim_args = {text!r}: adjust_lr_fn must be original or match_rms_adamw.")
    return found


def get_muon(args: TrainingArguments) -> tuple[Callable[[], Callable[..., "MuonWithAdamW"]], dict[str, Any]]:
    """Give Muon as `Trainer.get_optimizer_cls_and_kwargs` gives an optimiser that looks at the whole model."""
    adamw = {
        "lr": args.learning_rate,
        "betas": (args.adam_beta1, args.adam_beta2),
        "eps": args.adam_epsilon,
        "weight_decay": args.weight_decay,
    }
    # Moonlight's scaling (arXiv 2502.16982): the rate and the decay of AdamW suit Muon's matrices too
    muon = {
        "lr": args.learning_rate,
        "weight_decay": args.weight_decay,
        "adjust_lr_fn": "match_rms_adamw",
        **muon_args(args.optim_args),
    }
    return lambda: make_muon, {"muon": muon, "adamw": adamw}


def make_muon(model: nn.Module, muon: dict[str, Any], adamw: dict[str, Any]) -> "MuonWithAdamW":
    """Make the optimiser of a model: Muon for the matrices of its blocks, AdamW for all else that is trained.

    Raises:
        ValueError: If PyTorch has no Muon.
    """
    if not hasattr(torch.optim, "Muon"):
        raise ValueError(f"optim = {MUON!r} needs PyTorch 2.9 or newer, and this is {torch.__version__}.")
    matrices, rest = split_parameters(model)
    return MuonWithAdamW(matrices, rest, muon=muon, adamw=adamw)


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Divide what is trained into the matrices of the Transformer blocks and everything else.

    Muon is for hidden matrices; embeddings, the first and the last layer, biases and gains are for AdamW (Jordan et al.,
    https://kellerjordan.github.io/posts/muon). So query-key-value (one matrix, as it is stored), projection and both layers of the MLP
    of each block of encoders and decoders go to Muon; patch projections, the decoders' input layers, heads, norms, biases and
    tokens to AdamW.
    """
    blocks = [module for module in model.modules() if isinstance(module, CSMAELayer)]
    hidden = {id(each) for block in blocks for each in block.parameters() if each.ndim == 2}
    trained = [each for each in model.parameters() if each.requires_grad]
    return [each for each in trained if id(each) in hidden], [each for each in trained if id(each) not in hidden]


class MuonWithAdamW(torch.optim.Optimizer):
    """One optimiser of two: PyTorch's Muon for some matrices, its AdamW for other parameters.

    To schedulers, clipping and checkpoints it is one, with groups of both kinds; AdamW's come first, so that the learning rate in
    the log is theirs.

    Args:
        matrices: Parameters of two dimensions.
        rest: Other parameters.
        muon: Arguments of `torch.optim.Muon`.
        adamw: Arguments of `torch.optim.AdamW`.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        rest: Iterable[nn.Parameter],
        *,
        muon: dict[str, Any],
        adamw: dict[str, Any],
    ):
        chosen = ((torch.optim.AdamW, list(rest), adamw), (torch.optim.Muon, list(matrices), muon))
        self.parts = [optimizer(parameters, **options) for optimizer, parameters, options in chosen if parameters]
        super().__init__([group for part in self.parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            # this object's groups and state, which a scheduler changes and a checkpoint replaces, are theirs
            is_muon = "ns_steps" in part.defaults
            part.param_groups = [group for group in self.param_groups if ("ns_steps" in group) == is_muon]
            part.state = self.state
            part.step()
        return loss
