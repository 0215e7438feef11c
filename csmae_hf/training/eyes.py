"""Eyes on a run: at each evaluation, retrieval in every direction, embedding diagnostics and one picture of reconstructions."""

import copy
import difflib
import logging
from collections.abc import Iterable, Sequence
from itertools import combinations, product
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch import distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, TrainerCallback, TrainerState

from csmae_hf.embedding.diagnostics import collapse_warnings, diagnose
from csmae_hf.embedding.embed import embed_dataset
from csmae_hf.evaluation.evaluate import Embedded, evaluate_retrieval
from csmae_hf.metrics.ranking import headlines
from csmae_hf.training.arguments import CSMAETrainingArguments
from csmae_hf.training.callbacks import EvaluationCallback
from csmae_hf.training.reconstructions import draw_reconstructions
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForPreTraining

logger = logging.getLogger(__name__)

HEADLINE = "f1_of_means"
"""The one number to watch: the F1 of the original, mean over all directions."""

RANDOM = f"random_{HEADLINE}"

_TRAINER_METRICS = ("loss", "mim", "mde", "runtime", "samples_per_second", "steps_per_second")
"""What an evaluation measures besides, next to the reconstruction terms."""


def choose_tiles(dataset: Dataset, count: int) -> Dataset:
    """Choose a fixed part of a split: labelled tiles, evenly spread over its order, the same every time.

    Args:
        dataset: The split. Tiles whose `labels` are not known are left out; without such a column every tile is taken.
        count: The most tiles.

    Returns:
        Their rows, in order.
    """
    rows = np.arange(len(dataset))
    if "labels" in dataset.column_names:
        labels = dataset.with_format(None).select_columns(["labels"])[:]["labels"]
        rows = np.flatnonzero([bool(row) for row in labels])
    places = np.linspace(0, max(len(rows) - 1, 0), min(count, len(rows))).round().astype(int)
    return dataset.select(rows[places])


def metric_names(sensors: Sequence[str], *, retrieval: bool = True) -> list[str]:
    """Name everything that the eyes measure.

    Args:
        sensors: Of the model, in its order.
        retrieval: Whether retrieval can be measured: enough tiles, with labels.

    Returns:
        Names without the prefix `eval_`.
    """
    directions = product(sensors, repeat=2)
    names = (
        [f"{metric}_{query}_{archive}" for query, archive in directions for metric in headlines()] if retrieval else []
    )
    names += [HEADLINE, RANDOM] if retrieval else []
    names += [f"{kind}_{sensor}" for sensor in sensors for kind in ("effective_rank", "uniformity", "spread")]
    return names + [f"{kind}_{a}_{b}" for a, b in combinations(sensors, 2) for kind in ("alignment", "gap")]


class EyesCallback(EvaluationCallback):
    """Looks at the model at each evaluation, or at every n-th.

    Retrieval follows the released protocol at small size: pooled features of whole images, cosine, exact search, k results, precision,
    recall and both F1, in every direction. Queries and archive are the same part of the evaluation split, and a query's own tile is
    left out of its ranking, across sensors too.

    Args:
        tiles: The tiles to look at, as [`choose_tiles`] chose them.
        processor: The model's processor.
        folder: Where pictures go.
        k: Results per query. With no more labelled tiles than this retrieval is not measured, and a warning says so.
        pictures: Tiles in each picture; 0 draws none.
        every: Look at every so many evaluations only; the last one counts always.
        by_epoch: Whether the run is evaluated by epochs, not by steps.
        batch_size: Tiles of a forward pass.
        num_workers: Processes that read tiles.

    Raises:
        ValueError: If there are fewer than two tiles.
    """

    def __init__(
        self,
        tiles: Dataset,
        processor: CSMAEImageProcessor,
        folder: Path,
        *,
        k: int = 10,
        pictures: int = 6,
        every: int = 1,
        by_epoch: bool = True,
        batch_size: int = 64,
        num_workers: int = 0,
    ):
        if len(tiles) < 2:
            raise ValueError(
                f"Eyes during training need at least 2 labelled tiles to look at, got {len(tiles)}: evaluate on more tiles, or set "
                "eyes_tiles to 0."
            )
        self.tiles, self.processor, self.folder = tiles, processor, folder
        self.k, self.pictures, self.every, self.by_epoch = k, pictures, every, by_epoch
        self.batch_size, self.num_workers = batch_size, num_workers
        self.measures_retrieval = "labels" in tiles.column_names and len(tiles) > k
        if not self.measures_retrieval:
            logger.warning(
                "Retrieval is not measured during training: it takes more than k = %d labelled tiles, and there are %d.",
                k,
                len(tiles) if "labels" in tiles.column_names else 0,
            )

    def evaluation_metrics(self, model: PreTrainedModel, state: TrainerState) -> dict[str, float]:
        """Look at the model: measure retrieval and diagnostics, warn of a collapse, draw the picture."""
        if not self._is_due(state):
            return {}
        whole = whole_model(model)
        if whole is None:  # sharded, and this is not the main process
            return {}
        embeds = {
            sensor: embed_dataset(
                whole.csmae,
                self.processor,
                self.tiles,
                sensor,
                batch_size=self.batch_size,
                num_workers=self.num_workers,
                progress=False,
            )
            for sensor in whole.config.sensors
        }
        values = self._retrieval(embeds) if self.measures_retrieval else {}
        diagnostics = diagnose(embeds)
        for warning in collapse_warnings(diagnostics):
            logger.warning("Step %d: %s", state.global_step, warning)
        if self.pictures:
            self._draw(whole, state)
        return {name: round(value, 6) for name, value in (values | diagnostics).items()}

    def _is_due(self, state: TrainerState) -> bool:
        """Whether this evaluation is an n-th one; told by the step, so that a resumed run looks when an uninterrupted one would."""
        if self.every == 1 or state.global_step in (0, state.max_steps):
            return True
        done = round(state.epoch or 0.0) if self.by_epoch else state.global_step // int(state.eval_steps or 1)
        return done % self.every == 0

    def _retrieval(self, embeds: dict[str, np.ndarray]) -> dict[str, float]:
        embedded = {sensor: Embedded.from_dataset(each, self.tiles) for sensor, each in embeds.items()}
        results = evaluate_retrieval(embedded, k=self.k, query_split=None, archive_split=None, progress=False)
        values = {
            f"{metric}_{result.query_sensor}_{result.archive_sensor}": result.scores[metric]
            for result in results
            for metric in headlines()
        }
        values[HEADLINE] = float(np.mean([result.scores[HEADLINE] for result in results]))
        values[RANDOM] = results[0].random.expected[HEADLINE]
        return values

    def _draw(self, model: CSMAEForPreTraining, state: TrainerState) -> None:
        rows = choose_tiles(self.tiles, self.pictures)
        names = rows.features["labels"].feature.names if "labels" in rows.column_names else ()
        path = self.folder / f"reconstructions_{state.global_step:07d}.png"
        try:
            draw_reconstructions(
                model,
                self.processor,
                [rows[row] for row in range(len(rows))],
                path,
                title=f"Reconstructions at step {state.global_step}",
                label_names=names,
            )
        except ImportError as error:
            self.pictures = 0
            logger.warning("No pictures of reconstructions are drawn. %s", error)


def whole_model(model: PreTrainedModel) -> CSMAEForPreTraining | None:
    """Give a model that can be called by one process alone.

    A sharded model (FSDP) is gathered into a copy; all processes must call this then, and the main one gets it.

    Args:
        model: The unwrapped model.

    Returns:
        The model itself, or the copy, or None on the other processes of a sharded one.
    """
    if not _is_sharded(model.parameters()) and not hasattr(model, "_fsdp_wrapped_module"):
        return model  # type: ignore[return-value]
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if dist.get_rank() != 0:
        return None
    copied = CSMAEForPreTraining(copy.deepcopy(model.config)).eval()
    copied.load_state_dict(weights)
    return copied.to(next(model.parameters()).device)


def _is_sharded(parameters: Iterable[torch.Tensor]) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in parameters)


def build_eyes(
    evaluation: Dataset | None, processor: CSMAEImageProcessor, args: CSMAETrainingArguments
) -> list[TrainerCallback]:
    """Make the eyes of a run: none where nothing is evaluated or `eyes_tiles` is 0.

    Args:
        evaluation: The evaluation split, with its labels.
        processor: The model's processor.
        args: The run's arguments.

    Returns:
        The callback, in a list.

    Raises:
        ValueError: If `metric_for_best_model` names what these eyes will not measure, or not at every evaluation.
    """
    tiles = choose_tiles(evaluation, args.eyes_tiles) if evaluation is not None and args.eyes_tiles else None
    callbacks: list[TrainerCallback] = []
    measured: list[str] = []
    if tiles is not None and len(tiles) < 2:
        logger.warning(
            "No eyes during training: they need at least 2 labelled tiles to evaluate on, not %d.", len(tiles)
        )
    elif tiles is not None:
        eyes = EyesCallback(
            tiles,
            processor,
            Path(str(args.output_dir)) / "eyes",
            k=args.eyes_k,
            pictures=args.eyes_pictures,
            every=args.eyes_every,
            by_epoch=args.eval_strategy == "epoch",
            batch_size=args.per_device_eval_batch_size,
            num_workers=args.dataloader_num_workers,
        )
        callbacks.append(eyes)
        measured = metric_names(list(processor.sensors), retrieval=eyes.measures_retrieval)
    _check_best_metric(args, measured, metric_names(list(processor.sensors)))
    return callbacks


def _check_best_metric(args: CSMAETrainingArguments, measured: Sequence[str], all_names: Sequence[str]) -> None:
    """Refuse before the first step what the Trainer would refuse after the first evaluation."""
    wanted = (args.metric_for_best_model or "loss").removeprefix("eval_")
    known = [*all_names, *_TRAINER_METRICS]
    if wanted not in known and not wanted.startswith(("umr_", "cmr_")):
        near = difflib.get_close_matches(wanted, known, n=1)
        raise ValueError(
            f"metric_for_best_model = {args.metric_for_best_model!r} is nothing that an evaluation measures"
            + (f": did you mean {near[0]!r}?" if near else f": expected one of {', '.join(known)}.")
        )
    if wanted in all_names and wanted not in measured:
        raise ValueError(
            f"metric_for_best_model = {args.metric_for_best_model!r} will not be measured: evaluate on more than eyes_k = "
            f"{args.eyes_k} labelled tiles, with eyes_tiles = {args.eyes_tiles} above it."
        )
    if wanted in all_names and args.eyes_every != 1:
        raise ValueError(
            f"metric_for_best_model = {args.metric_for_best_model!r} must be measured at every evaluation: set eyes_every to 1, not "
            f"{args.eyes_every}, and evaluate less often."
        )
