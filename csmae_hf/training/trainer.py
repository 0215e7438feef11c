"""The Transformers Trainer with what CSMAE needs on top: repeatable flips and masks, loss terms and speed in the log, decay on
everything, whole checkpoints, and a stop at a loss that is not finite."""

import json
import logging
import shutil
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.integrations import TrackioCallback
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from csmae_hf.evaluation.trainings import ARGUMENTS_NAME
from csmae_hf.training.callbacks import EvaluationCallback, StopOnSignal, TrackioByStep, ends_epoch
from csmae_hf.training.checkpoints import (
    SEAL_NAME,
    checkpoint_problem,
    describe_failed_save,
    last_checkpoint,
    prune_checkpoints,
    refuse_without_state,
    seal_checkpoint,
)
from csmae_hf.training.errors import CheckpointError
from csmae_hf.training.flops import training_flops
from csmae_hf.training.loss_terms import LossTerms, count_rows
from csmae_hf.training.nonfinite import UnreadLoss
from csmae_hf.training.optimizers import get_muon, is_own
from csmae_hf.training.randomness import draw_flips_and_noise, flip_together, preserved_generators
from csmae_hf.training.sharding import shard_on_cpu
from csmae_hf.training.throughput import Throughput

logger = logging.getLogger(__name__)

WINDOW_NAME = "log_window_{process}.pt"
"""File of a checkpoint with the losses since the last line of the log and in all, by process."""

TILES_NAME = "tiles.json"
"""File of a checkpoint that says which tiles the run trains on and is judged on, as of `fingerprint_tiles`."""

PRIVATE_API = {
    "transformers.Trainer._run_epoch": "overridden: a run that was finished when it was resumed would train a step more",
    "transformers.Trainer._prepare_inputs": "overridden: bands at their own resolutions are resampled on the device",
    "transformers.Trainer._save_checkpoint": "overridden: a checkpoint is sealed when it is whole, and only then others deleted",
    "transformers.Trainer._determine_best_metric": "overridden: a run that was asked to stop saves whether it is the best or not",
    "transformers.Trainer._load_best_model": "overridden: a checkpoint that is not whole is not loaded",
    "transformers.Trainer._save": "overridden: sharding gives the model another class, whose code would be saved",
    "transformers.Trainer._get_output_dir": "read: the folder that the checkpoint goes to",
    "transformers.Trainer._train_batch_size": "read: tiles a step and process, which auto_find_batch_size may lower",
    "transformers.Trainer._tr_loss": "kept and restored: the loss since the last line of the log",
    "transformers.Trainer._total_loss_scalar": "kept and restored: what the mean loss of the run is taken of",
    "transformers.Trainer._globalstep_last_logged": "kept and restored: the step of the last line of the log",
    "accelerate.PartialState._shared_state": "written: Accelerate shards on GPUs only",
    "argparse.ArgumentParser._actions": "read: the help shows the options of this package only",
    "torch.cpu._is_avx512_bf16_supported": "read: before PyTorch could name its capabilities",
    "torch.cpu._is_amx_tile_supported": "read: before PyTorch could name its capabilities",
    "transformers.integrations.TrackioCallback._trackio": "replaced: it would count the lines of the log in place of the steps",
}
"""What this room uses or overrides of others' private parts, and why; a release may rename any of it."""


class CSMAETrainer(Trainer):
    """Trains [`CSMAEForPreTraining`].

    Batches hold images by sensor, standardised or as `TileCollator(native=True)` stacks them, perhaps `present`, and perhaps
    `ids`, the tiles' names, which are for messages only. The arguments are those of `Trainer`, and whether to flip at random.
    """

    def __init__(self, *args: Any, flips: bool = True, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TrackioCallback):
                callback._trackio = TrackioByStep(callback._trackio)
        self.flips = flips
        self.model_config = self.accelerator.unwrap_model(self.model).config
        self._model_class = type(self.model)
        self.throughput: Throughput | None = None
        self.tiles: dict[str, Any] = {}  # what the run trains on and is judged on, as of `fingerprint_tiles`
        self._began, self._before = time.perf_counter(), {"loss": 0.0, "seconds": 0.0}
        self._unread: UnreadLoss | None = None
        self._terms = LossTerms(self.model_config, self.args.device)
        self._eval_terms = LossTerms(self.model_config, self.args.device)
        self._step, self._batches_of_step = -1, 0

    def train(
        self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, ignore_keys_for_eval: Any = None
    ) -> TrainOutput:
        """Train as the Trainer does.

        Raises:
            CheckpointError: If the checkpoint to go on from holds the model alone, or not all of the training's state.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = str(last_checkpoint(Path(str(self.args.output_dir))) or "") or True
        if resume_from_checkpoint and Path(str(resume_from_checkpoint)).is_dir():
            refuse_without_state(Path(str(resume_from_checkpoint)))
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def create_accelerator_and_postprocess(self) -> None:
        """Set up Accelerate, with sharding where it is asked for, on CPUs too."""
        super().create_accelerator_and_postprocess()
        if self.args.fsdp_plugin_args is not None and shard_on_cpu(self.accelerator, self.args.fsdp_plugin_args):
            self.is_fsdp_enabled = True

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Train for an epoch, unless the run was finished when it was resumed; the Trainer would add a step each time."""
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*args, **kwargs)
            self._take_averaged_weights()
        else:
            self.control.should_training_stop = True

    # Batches: what a process sees is its rows of the global batch, wherever they are computed

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute the gradients of a batch.

        Raises:
            NonFiniteLossError: If its loss is NaN or infinite; the optimiser takes no step then.
        """
        loss = super().training_step(*args, **kwargs)
        unread, self._unread = self._unread, None
        if unread is not None:
            unread.refuse_non_finite()
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Compute the loss of a batch and remember its terms for the log."""
        ids: Any = inputs.get("ids")
        batch = {name: value for name, value in inputs.items() if name != "ids"}
        batch = self._training_batch(batch) if model.training else batch  # the model itself masks alike in evaluation
        outputs = model(**batch, output_predictions=not self.args.prediction_loss_only)
        loss, losses = outputs["loss"], outputs["losses"]
        (self._terms if model.training else self._eval_terms).add(losses, count_rows(batch, self.model_config))
        if model.training:
            run, step = Path(str(self.args.output_dir)), self.state.global_step + 1
            self._unread = UnreadLoss(loss, losses, batch, ids, run, step, self.args.process_index)
            if self.is_deepspeed_enabled:  # its backward pass also takes the optimiser's step
                self._unread.refuse_non_finite()
        return (loss, outputs) if return_outputs else loss

    def _training_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Flip a batch and draw its masks, by the place of its rows in the global batch of the step."""
        if self._step != self.state.global_step:
            self._step, self._batches_of_step = self.state.global_step, 0
        first_row = self._first_row(self._batches_of_step, self._train_batch_size)
        self._batches_of_step += 1
        flips, noise = self._draw(batch, self.args.seed, self.state.global_step, first_row)
        images = self._images(batch)
        if self.flips:
            images = flip_together(images, flips)
        return {**batch, **images, "noise": noise}

    def _first_row(self, batches_before: int, batch_size: int) -> int:
        return (batches_before * self.args.world_size + self.args.process_index) * batch_size

    def _draw(self, batch: Mapping[str, Any], seed: int, step: int, first_row: int) -> tuple[torch.Tensor, Any]:
        """Flips and noise by sensor, of the sensors that the batch has."""
        images, config = self._images(batch), self.model_config
        rows, device = len(next(iter(images.values()))), next(iter(images.values())).device
        place = (seed, step, first_row, rows)
        flips, noise = draw_flips_and_noise(*place, config.sensors, config.num_patches, device)
        return flips, {sensor: noise[sensor] for sensor in images}

    def _images(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {name: batch[name] for name in self.model_config.sensors if batch.get(name) is not None}

    def _prepare_inputs(self, inputs: dict[str, torch.Tensor | Any]) -> dict[str, torch.Tensor | Any]:
        """Move a batch to the device, and there resample and standardise what comes as bands at their own resolutions."""
        inputs = super()._prepare_inputs(inputs)
        native = {name: value for name, value in self._images(inputs).items() if isinstance(value, Mapping)}
        if not native:
            return inputs
        processor: Any = self.processing_class
        return {**inputs, **processor.process_native(native)}

    @property
    def train_batch_size(self) -> int:
        """Tiles of a training step on one process."""
        return self._train_batch_size

    # The log

    def floating_point_ops(self, inputs: dict[str, torch.Tensor | Any]) -> int:
        """Count the operations of a training step on a batch; what the Trainer assumes is true of language models."""
        counts = {sensors: float(count) for sensors, count in count_rows(inputs, self.model_config).items()}
        gathered = self.args.world_size if self.model_config.mim_gather else 1
        flops = training_flops(self.model_config, counts, gathered)
        if self.throughput is not None:
            self.throughput.add(max(counts.values(), default=0.0), flops)
        return int(flops)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add to a line of the training log the mean of each loss term since the last, and the speed."""
        if "loss" in logs:
            logs.update(self._terms.means(self._reduce))
            if self.throughput is not None:
                logs.update(self.throughput.rates(self._reduce, self.args.world_size))
        if "train_runtime" in logs and self._before["seconds"]:
            self._count_from_the_beginning(logs)
        super().log(logs, *args, **kwargs)

    def _count_from_the_beginning(self, logs: dict[str, float]) -> None:
        """Let what is said of a run at its end be of all of it; the Trainer says it of the steps since it was resumed."""
        steps, seconds = self.state.global_step, logs["train_runtime"] + self._before["seconds"]
        rows = steps * self.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        logs["train_runtime"] = round(seconds, 4)
        logs["train_steps_per_second"] = round(steps / seconds, 3)
        logs["train_samples_per_second"] = round(rows / seconds, 3)
        logs["train_loss"] = (self._before["loss"] + self._total_loss_scalar) / max(steps, 1)

    def _untimed(self) -> AbstractContextManager[None]:
        """Leave out of the speed what is done inside."""
        return self.throughput.paused() if self.throughput is not None else nullcontext()

    def _reduce(self, values: torch.Tensor) -> torch.Tensor:
        """Add up over the processes."""
        return self.accelerator.reduce(values.to(self.args.device), reduction="sum")

    # Evaluation

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate as the Trainer does; the time does not count as training."""
        with self._untimed():
            return super().evaluate(*args, **kwargs)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate, add each loss term, and let each [`EvaluationCallback`] add what it measures."""
        with preserved_generators():
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
            measured = {**self._eval_terms.means(self._reduce), **self._callback_metrics()}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in measured.items()}
        return output._replace(metrics={**(output.metrics or {}), **metrics})

    def _callback_metrics(self) -> dict[str, float]:
        """What the callbacks measure, by the main process, the same on all: they must agree on which model is best."""
        sources = [each for each in self.callback_handler.callbacks if isinstance(each, EvaluationCallback)]
        metrics: dict[str, float] = {}
        if sources and (self.args.process_index == 0 or self.is_fsdp_enabled or self.is_deepspeed_enabled):
            model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            for source in sources:
                metrics.update(source.evaluation_metrics(model, self.state))
        if sources and self.args.world_size > 1:
            (metrics,) = broadcast_object_list([metrics])
        return metrics

    # Checkpoints

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save a checkpoint, seal it when every process has written its part, and only then delete older ones."""
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        keep, self.args.save_total_limit = self.args.save_total_limit, None  # the Trainer would delete before the seal
        self._take_averaged_weights()
        with self._untimed():
            try:
                if self.args.should_save and folder.exists():  # what an interrupted save has left
                    shutil.rmtree(folder)
                self.accelerator.wait_for_everyone()
                super()._save_checkpoint(model, trial)
                mean_loss = self._reduce(self._tr_loss.detach().clone()).item() / self.args.world_size
                window = {
                    "loss": self._tr_loss.cpu(),
                    "last_logged": self._globalstep_last_logged,
                    "terms": self._terms.sums.cpu(),
                    "run": {
                        "loss": self._before["loss"] + self._total_loss_scalar + mean_loss,
                        "seconds": self._before["seconds"] + time.perf_counter() - self._began,
                    },
                }
                torch.save(window, folder / WINDOW_NAME.format(process=self.args.process_index))
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    record = folder.parent / ARGUMENTS_NAME
                    if record.is_file():  # the checkpoint may be resumed from elsewhere
                        shutil.copyfile(record, folder / ARGUMENTS_NAME)
                    if self.tiles:
                        (folder / TILES_NAME).write_text(json.dumps(self.tiles, indent=1))
                    seal_checkpoint(folder, self.state.global_step)
                    prune_checkpoints(folder.parent, keep, self.state.best_model_checkpoint)
            except (OSError, RuntimeError, SafetensorError) as error:  # PyTorch reports a full disk as a RuntimeError
                shutil.rmtree(folder, ignore_errors=True)  # it would keep the disk full
                raise CheckpointError(describe_failed_save(folder, error)) from error
            finally:
                self.args.save_total_limit = keep
            self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save the model under its own class: sharding gives it another, whose code would be saved in place of ours."""
        sharded_class = type(self.model)
        self.model.__class__ = self._model_class
        try:
            super()._save(output_dir, state_dict)
        finally:
            self.model.__class__ = sharded_class

    def _determine_best_metric(self, *args: Any, **kwargs: Any) -> bool:
        """Say whether the model is the best so far, by which `save_strategy best` saves; a run that stops saves in any case."""
        stops = [each for each in self.callback_handler.callbacks if isinstance(each, StopOnSignal)]
        return super()._determine_best_metric(*args, **kwargs) or any(each.stopped for each in stops)

    def _load_best_model(self) -> None:
        """Load the best model, if its checkpoint is whole."""
        best = Path(str(self.state.best_model_checkpoint))
        problem = checkpoint_problem(best) if (best / SEAL_NAME).is_file() else None
        if problem:
            raise CheckpointError(
                f"Cannot load the best model at the end: it is that of {best}, and {problem}. Put it back, or end with the last "
                "model: --resume_from_checkpoint last --load_best_model_at_end false."
            )
        super()._load_best_model()

    def begin_from(self, checkpoint: Path | None, best: Path | None) -> None:
        """Begin where a checkpoint, perhaps of other processes, was saved, the best of the run so far being here.

        What the Trainer keeps of a checkpoint's state although the arguments say it is taken from them; the line of the log that it
        was saved in the middle of goes on.
        """
        self._began = time.perf_counter()
        if checkpoint is None:
            return
        self.state.compute_steps(self.args, self.state.max_steps)
        if best is not None:
            self.state.best_model_checkpoint = str(best)
        self._restore_window(checkpoint)
        # a checkpoint that was saved after the last step of an epoch, before its end, owes what an epoch ends with
        state, due = self.state, self.args.eval_strategy == "epoch" and ends_epoch(self.state)
        evaluated = any("eval_loss" in entry and entry["step"] == state.global_step for entry in state.log_history)
        if due and not evaluated and self.args.eval_delay <= (state.epoch or 0):
            self._determine_best_metric(metrics=self.evaluate(), trial=None)

    def _restore_window(self, checkpoint: Path) -> None:
        """Go on with the line of the log that a checkpoint was saved in the middle of, and count from the beginning of the run."""
        paths = sorted(checkpoint.glob(WINDOW_NAME.format(process="*")))
        windows = {path.name: torch.load(path, weights_only=True) for path in paths}
        if not windows:
            return
        self._before = next(iter(windows.values())).get("run", self._before)
        me, device = self.args.process_index, self.args.device
        if len(windows) == self.args.world_size:
            mine = windows[WINDOW_NAME.format(process=me)]
            loss, terms = mine["loss"], mine["terms"]
        else:
            loss = torch.stack([window["loss"] for window in windows.values()]).mean()
            terms = torch.stack([window["terms"] for window in windows.values()]).sum(dim=0) * (me == 0)
        self._tr_loss += loss.to(device)
        self._total_loss_scalar -= self._reduce(self._tr_loss).item() / self.args.world_size  # of steps not run here
        self._globalstep_last_logged = next(iter(windows.values()))["last_logged"]
        self._terms.sums += terms.to(device)

    # The optimiser

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the optimiser as the Trainer does, or Muon.

        Raises:
            ValueError: If its package is not installed, or it does not take these arguments or this model.
        """
        args = self.args
        if is_own(args.optim) and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise ValueError(
                f"optim = {args.optim!r} needs each matrix whole, and FSDP and DeepSpeed divide them: train without, or use "
                "--optim adamw_torch."
            )
        if args.optim == "galore_adamw_8bit" and args.device.type == "cpu":  # it would fail at the first step
            raise ValueError("optim = 'galore_adamw_8bit' needs a CUDA GPU: use --optim galore_adamw on a CPU.")
        try:
            return super().create_optimizer(model)
        except (ImportError, ValueError, TypeError, RuntimeError, NotImplementedError) as error:
            given = f", optim_args = {args.optim_args!r}" if args.optim_args else ""
            name = getattr(args.optim, "value", args.optim)
            raise ValueError(f"optim = {name!r}{given} cannot be used: {' '.join(str(error).split())}") from error

    @staticmethod
    def get_optimizer_cls_and_kwargs(args: TrainingArguments, model: PreTrainedModel | None = None) -> tuple[Any, Any]:
        """Say what the optimiser is made of, and let each decay as the arguments say and warm up once."""
        if is_own(args.optim):
            return get_muon(args)
        optimizer, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
        for group in options.get("params", ()):  # GaLore's and APOLLO's, which Transformers would not decay
            group["weight_decay"] = args.weight_decay
        if "warmup_steps" in options:  # schedule-free: the schedule warms up
            options["warmup_steps"] = 0
        return optimizer, options

    def _take_averaged_weights(self) -> None:
        """Let a schedule-free optimiser give the model the weights to use; it goes on with its own at the next training step."""
        optimizer: Any = self.optimizer
        if hasattr(optimizer, "eval"):
            optimizer.eval()

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Decay every parameter, as the original does; Transformers would leave out biases and norms."""
        return [name for name, _ in model.named_parameters()]
