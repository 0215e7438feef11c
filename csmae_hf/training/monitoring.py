"""What is measured at each evaluation of a run: retrieval in every direction, embedding diagnostics, a picture of reconstructions."""

import difflib
import logging
from collections.abc import Mapping, Sequence
from itertools import combinations, product
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, TrainerState

from csmae_hf.data.labels import class_names, labels_of
from csmae_hf.embedding.diagnostics import collapse_warnings, diagnose
from csmae_hf.embedding.embed import Embeds, embed_dataset
from csmae_hf.embedding.foreign import Encoder, encoder_pair, load_factory
from csmae_hf.evaluation.evaluate import Embedded, evaluate_retrieval
from csmae_hf.evaluation.results import DirectionResult
from csmae_hf.metrics.ranking import headlines
from csmae_hf.training.arguments import CSMAETrainingArguments
from csmae_hf.training.callbacks import EvaluationCallback
from csmae_hf.training.randomness import preserved_generators
from csmae_hf.training.reconstructions import draw_reconstructions
from csmae_hf.training.sharding import whole_model
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForPreTraining

logger = logging.getLogger(__name__)

HEADLINE = "f1_of_means"
"""The one number to watch: the F1 of the original, mean over all directions."""

_TRAINER_METRICS = ("loss", "mim", "mde", "runtime", "samples_per_second", "steps_per_second")
"""What an evaluation measures besides, next to the reconstruction terms."""


def choose_tiles(dataset: Dataset, count: int) -> Dataset:
    """Choose at most `count` tiles of a split, evenly spread over its order, the same every time.

    Tiles whose `labels` are not known are left out; without such a column every tile may be taken.
    """
    rows = np.arange(len(dataset))
    if "labels" in dataset.column_names:
        rows = np.flatnonzero([bool(numbers) for numbers in labels_of(dataset)])
    places = np.linspace(0, max(len(rows) - 1, 0), min(count, len(rows))).round().astype(int)
    return dataset.select(rows[places])


def metric_names(sensors: Sequence[str], *, retrieval: bool = True) -> list[str]:
    """Name everything that is measured, without the prefix `eval_`; retrieval takes enough tiles, with labels."""
    directions = product(sensors, repeat=2)
    names = (
        [f"{metric}_{query}_{archive}" for query, archive in directions for metric in headlines()] if retrieval else []
    )
    names += [HEADLINE, f"random_{HEADLINE}"] if retrieval else []
    names += [f"{kind}_{sensor}" for sensor in sensors for kind in ("effective_rank", "uniformity", "spread")]
    return names + [f"{kind}_{a}_{b}" for a, b in combinations(sensors, 2) for kind in ("alignment", "gap")]


class MonitoringCallback(EvaluationCallback):
    """Measures the model at each evaluation, or at every n-th.

    Retrieval follows the released protocol at small size: pooled features of whole images, cosine, exact search, k results, precision,
    recall and both F1, in every direction. Queries and archive are the same part of the evaluation split, and a query's own tile is
    left out of its ranking, across sensors too.

    Args:
        tiles: As [`choose_tiles`] chose them.
        processor: The model's.
        folder: Where pictures go.
        k: Results per query. With no more labelled tiles than this retrieval is not measured, and a warning says so.
        pictures: Tiles in each picture; 0 draws none.
        every: Look at every so many evaluations only; the last one counts always.
        by_epoch: Whether the run is evaluated by epochs, not by steps.
        batch_size: Tiles of a forward pass.
        num_workers: Processes that read tiles.
        encoder: An encoder of any kind that is measured once on the same tiles, for a line beside the model's: `encoder_f1_of_means`.

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
        encoder: Encoder | None = None,
    ):
        if len(tiles) < 2:
            raise ValueError(
                f"Eyes during training need at least 2 labelled tiles to look at, got {len(tiles)}: evaluate on more tiles, or set "
                "eyes_tiles to 0."
            )
        self.tiles, self.processor, self.folder = tiles, processor, folder
        self.k, self.pictures, self.every, self.by_epoch = k, pictures, every, by_epoch
        self.batch_size, self.num_workers = batch_size, num_workers
        self.encoder = encoder
        self._beside: dict[str, float] | None = None  # what the encoder scores
        self.measures_retrieval = "labels" in tiles.column_names and len(tiles) > k
        if not self.measures_retrieval:
            logger.warning(
                "Retrieval is not measured during training: it takes more than k = %d labelled tiles, and there are %d.",
                k,
                len(tiles) if "labels" in tiles.column_names else 0,
            )

    def evaluation_metrics(self, model: PreTrainedModel, state: TrainerState) -> dict[str, float]:
        """Measure retrieval and diagnostics, warn of a collapse, draw the picture."""
        if not self.is_due(state):
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
                suspect="accept",  # a run must not end here; its tiles were looked at before it began
            )
            for sensor in whole.config.sensors
        }
        values: dict[str, float] = {}
        if self.measures_retrieval:
            results = self._retrieve(embeds)
            for result, metric in product(results, headlines()):
                values[f"{metric}_{result.query_sensor}_{result.archive_sensor}"] = result.scores[metric]
            values[HEADLINE] = float(np.mean([result.scores[HEADLINE] for result in results]))
            values[f"random_{HEADLINE}"] = results[0].random.expected[HEADLINE]
            values |= self._measure_encoder(next(whole.parameters()).device)
        diagnostics = diagnose(embeds)
        for warning in collapse_warnings(diagnostics):
            logger.warning("Step %d: %s", state.global_step, warning)
        if self.pictures:
            self._draw(whole, state)
        return {name: round(value, 6) for name, value in (values | diagnostics).items()}

    def _retrieve(self, embeds: Mapping[str, Embeds]) -> list[DirectionResult]:
        """Measure retrieval in every direction, of embeds (N, D) of the tiles by sensor."""
        embedded = {sensor: Embedded.from_dataset(each, self.tiles) for sensor, each in embeds.items()}
        return evaluate_retrieval(embedded, k=self.k, query_split=None, archive_split=None, progress=False)

    def _measure_encoder(self, device: torch.device) -> dict[str, float]:
        """What the encoder beside scores, measured when it is first asked for: these tiles and its weights stay."""
        if self.encoder is None:
            return {}
        if self._beside is None:
            pair = encoder_pair(self.encoder)
            known = [sensor for sensor in self.encoder.sensors if sensor in self.tiles.column_names]
            embeds = {
                sensor: embed_dataset(
                    *pair,
                    self.tiles,
                    sensor,
                    batch_size=self.batch_size,
                    device=device,
                    num_workers=self.num_workers,
                    progress=False,
                    suspect="accept",
                )
                for sensor in known
            }
            results = self._retrieve(embeds)
            scores = {f"{result.query_sensor}_{result.archive_sensor}": result.scores[HEADLINE] for result in results}
            self._beside = {f"encoder_{HEADLINE}_{name}": score for name, score in scores.items()}
            self._beside[f"encoder_{HEADLINE}"] = float(np.mean(list(scores.values())))
        return self._beside

    def is_due(self, state: TrainerState) -> bool:
        """Whether this evaluation is an n-th one; told by the step, so that a resumed run looks when an uninterrupted one would."""
        if self.every == 1 or state.global_step in (0, state.max_steps):
            return True
        done = round(state.epoch or 0.0) if self.by_epoch else state.global_step // int(state.eval_steps or 1)
        return done % self.every == 0

    def _draw(self, model: CSMAEForPreTraining, state: TrainerState) -> None:
        rows = choose_tiles(self.tiles, self.pictures)
        names = class_names(rows.features["labels"]) if "labels" in rows.column_names else None
        path = self.folder / f"reconstructions_{state.global_step:07d}.png"
        title = f"Reconstructions at step {state.global_step}"
        try:
            draw_reconstructions(model, self.processor, list(rows), path, title=title, label_names=names or ())
        except ImportError as error:
            self.pictures = 0
            logger.warning("No pictures of reconstructions are drawn. %s", error)


def _encoder_beside(place: str | None, tiles: Dataset) -> Encoder | None:
    """Make the encoder that is named, before the first step; whatever it draws at random changes nothing of the run."""
    if place is None:
        return None
    with preserved_generators():
        encoder = load_factory(place, "--eyes_encoder")
    if not set(encoder.sensors) & set(tiles.column_names):
        raise ValueError(
            f"eyes_encoder = {place!r} has the sensors {', '.join(encoder.sensors)}, the tiles have the columns "
            f"{', '.join(tiles.column_names)}: there is nothing to measure it on."
        )
    return encoder


def build_monitoring(
    evaluation: Dataset | None, processor: CSMAEImageProcessor, args: CSMAETrainingArguments
) -> list[MonitoringCallback]:
    """Make the callback that measures a run on its evaluation split; none where nothing is evaluated or `eyes_tiles` is 0.

    Raises:
        ValueError: If `metric_for_best_model` names what will not be measured, or not at every evaluation.
    """
    tiles = choose_tiles(evaluation, args.eyes_tiles) if evaluation is not None and args.eyes_tiles else None
    callbacks: list[MonitoringCallback] = []
    measured: list[str] = []
    if tiles is not None and len(tiles) < 2:
        logger.warning(
            "No eyes during training: they need at least 2 labelled tiles to evaluate on, not %d.", len(tiles)
        )
    elif tiles is not None:
        callback = MonitoringCallback(
            tiles,
            processor,
            Path(str(args.output_dir)) / "eyes",
            k=args.eyes_k,
            pictures=args.eyes_pictures,
            every=args.eyes_every,
            by_epoch=args.eval_strategy == "epoch",
            batch_size=args.per_device_eval_batch_size,
            num_workers=args.dataloader_num_workers,
            encoder=_encoder_beside(args.eyes_encoder, tiles),
        )
        callbacks.append(callback)
        measured = metric_names(list(processor.sensors), retrieval=callback.measures_retrieval)
    # what the Trainer would refuse after the first evaluation is refused before the first step
    wanted, all_names = (
        (args.metric_for_best_model or "loss").removeprefix("eval_"),
        metric_names(list(processor.sensors)),
    )
    known = [*all_names, *_TRAINER_METRICS]
    problem = None
    if wanted not in known and not wanted.startswith(("umr_", "cmr_")):
        near = difflib.get_close_matches(wanted, known, n=1)
        meant = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}."
        problem = f"is nothing that an evaluation measures: {meant}"
    elif wanted in all_names and wanted not in measured:
        problem = (
            f"will not be measured: evaluate on more than eyes_k = {args.eyes_k} labelled tiles, with eyes_tiles = "
            f"{args.eyes_tiles} above it."
        )
    elif wanted in all_names and args.eyes_every != 1:
        problem = f"must be measured at every evaluation: set eyes_every to 1, not {args.eyes_every}, and evaluate less often."
    if problem:
        raise ValueError(f"metric_for_best_model = {args.metric_for_best_model!r} {problem}")
    return callbacks
