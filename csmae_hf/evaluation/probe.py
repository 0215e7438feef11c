"""Classification on frozen embeds: a linear probe and k nearest neighbours, multi-label.

Both are fitted on labelled training tiles as one sensor sees them, and tested on tiles of the same and of every other sensor: how well
classes transfer across sensors is the other side of retrieval across sensors. The probe's penalty is chosen on validation tiles.

* Linear probe: one logistic regression for each class on standardised embeds, minimising C * (summed log loss) + |w|^2 / 2, the
  intercept not penalised (the objective of scikit-learn's `LogisticRegression`).
* k-NN: the score of a class is the share of the k nearest training tiles (cosine) that have it.

Measured are mAP (average precision as scikit-learn's `average_precision_score`) and F1 at a score of 0.5, each macro (mean over the
classes that a tested tile has) and micro (all decisions together).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from csmae_hf.evaluation.evaluate import Embedded
from csmae_hf.evaluation.results import align_table
from csmae_hf.metrics.labels import BoolArray, FloatArray
from csmae_hf.search.nearest import top_k

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Values of C that are compared on validation tiles: the smaller, the stronger the penalty."""

THRESHOLD = 0.5
PROBE_SCORES = ("macro_map", "micro_map", "macro_f1", "micro_f1")


@dataclass(frozen=True)
class ProbeResult:
    """One classifier, fitted on one sensor and tested on one.

    Attributes:
        classifier: `linear` or `knn`.
        fit_sensor: Sensor whose training tiles it was fitted on.
        test_sensor: Sensor whose tiles it was tested on.
        n_fit: Training tiles.
        n_test: Tested tiles.
        macro_map: Mean average precision over classes.
        micro_map: Average precision of all decisions together.
        macro_f1: Mean F1 over classes.
        micro_f1: F1 of all decisions together.
        penalty: C of the linear probe; None of k-NN.
    """

    classifier: str
    fit_sensor: str
    test_sensor: str
    n_fit: int
    n_test: int
    macro_map: float
    micro_map: float
    macro_f1: float
    micro_f1: float
    penalty: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class LinearProbe:
    """A logistic regression for each class.

    Attributes:
        mean: (D,) subtracted from embeds.
        scale: (D,) by which they are divided.
        weight: (D, C).
        bias: (C,).
    """

    mean: torch.Tensor
    scale: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def fit(
        cls, embeds: NDArray[Any], labels: BoolArray, penalty: float, *, steps: int = 500, device: str | None = None
    ) -> "LinearProbe":
        """Fit it by L-BFGS, in float64.

        Args:
            embeds: (N, D).
            labels: (N, C) multi-hot.
            penalty: C of the objective: the smaller, the stronger the penalty.
            steps: The most steps of the optimiser.
            device: Where; default the CPU.

        Returns:
            The probe.
        """
        features = torch.as_tensor(np.asarray(embeds), dtype=torch.float64, device=device)
        targets = torch.as_tensor(labels, dtype=torch.float64, device=device)
        mean, scale = features.mean(dim=0), features.std(dim=0, correction=0)
        scale = torch.where(scale > 0, scale, 1.0)
        features = (features - mean) / scale
        weight = torch.zeros(
            features.shape[1], targets.shape[1], dtype=torch.float64, device=device, requires_grad=True
        )
        share = targets.mean(dim=0).clamp(1e-6, 1 - 1e-6)
        bias = torch.logit(share).requires_grad_()
        optimizer = torch.optim.LBFGS(
            [weight, bias],
            max_iter=steps,
            tolerance_grad=1e-9,
            tolerance_change=1e-12,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            logits = features @ weight + bias
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
            total = (loss + weight.square().sum() / (2 * penalty)) / len(features)
            total.backward()
            return total

        optimizer.step(closure)
        return cls(mean, scale, weight.detach(), bias.detach())

    def scores(self, embeds: NDArray[Any]) -> FloatArray:
        """Probabilities of the classes.

        Args:
            embeds: (N, D).

        Returns:
            (N, C), 0 to 1.
        """
        features = torch.as_tensor(np.asarray(embeds), dtype=torch.float64, device=self.mean.device)
        logits = (features - self.mean) / self.scale @ self.weight + self.bias
        probabilities: FloatArray = torch.sigmoid(logits).cpu().numpy()
        return probabilities


def knn_scores(
    fit_embeds: NDArray[Any], fit_labels: BoolArray, embeds: NDArray[Any], k: int, *, device: str | None = None
) -> FloatArray:
    """Share of the k nearest training tiles that have each class.

    Args:
        fit_embeds: (M, D) of training tiles.
        fit_labels: (M, C) multi-hot.
        embeds: (N, D) of the tiles to classify.
        k: Neighbours.
        device: Where the search runs.

    Returns:
        (N, C), 0 to 1.

    Raises:
        ValueError: k is larger than the number of training tiles.
    """
    _, neighbours = top_k(embeds, fit_embeds, k, device=device)
    shares: FloatArray = fit_labels[neighbours].mean(axis=1)
    return shares


def average_precisions(scores: NDArray[Any], labels: BoolArray) -> FloatArray:
    """Average precision of each column: the sum over distinct scores of the gain in recall times the precision there.

    Args:
        scores: (N, C), higher for more likely.
        labels: (N, C).

    Returns:
        (C,); 0 for a column without a positive.
    """
    result = np.zeros(labels.shape[1])
    for column in range(labels.shape[1]):
        order = np.argsort(-scores[:, column], kind="stable")
        values, hits = scores[order, column], labels[order, column].cumsum()
        last = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)  # of every run of equal scores
        if hits[-1]:
            recall = hits[last] / hits[-1]
            result[column] = (np.diff(recall, prepend=0.0) * hits[last] / (last + 1)).sum()
    return result


def classification_scores(scores: NDArray[Any], labels: BoolArray) -> dict[str, float]:
    """Measure a multi-label classifier.

    Args:
        scores: (N, C), 0 to 1.
        labels: (N, C) multi-hot.

    Returns:
        A number for each of `PROBE_SCORES`; macro over the classes that at least one tile has.

    Raises:
        ValueError: No tile has any label.
    """
    present = labels.any(axis=0)
    if not present.any():
        raise ValueError("No tile has a label: classification cannot be measured.")
    decided = scores >= THRESHOLD
    hits, sizes = (decided & labels).sum(axis=0), decided.sum(axis=0) + labels.sum(axis=0)
    f1 = 2 * hits / np.maximum(sizes, 1)
    return {
        "macro_map": float(average_precisions(scores, labels)[present].mean()),
        "micro_map": float(average_precisions(scores.reshape(-1, 1), labels.reshape(-1, 1))[0]),
        "macro_f1": float(f1[present].mean()),
        "micro_f1": float(2 * hits.sum() / max(sizes.sum(), 1)),
    }


def probe_all(
    train: Mapping[str, Embedded],
    validation: Mapping[str, Embedded],
    test: Mapping[str, Embedded],
    *,
    k: int = 10,
    penalties: Sequence[float] = PENALTIES,
    device: str | None = None,
) -> list[ProbeResult]:
    """Fit both classifiers on each sensor, and test them on each.

    Args:
        train: Training tiles by sensor.
        validation: Tiles by which the penalty is chosen (macro mAP of the sensor that is fitted).
        test: Tiles to test on.
        k: Neighbours of k-NN.
        penalties: Values of C to compare.
        device: Where to compute; Apple's GPUs, which know no float64, leave it to the CPU.

    Returns:
        Two results for each ordered pair of sensors.

    Raises:
        ValueError: A split has no labelled tile, or fewer training tiles than k.
    """
    if device is not None and torch.device(device).type == "mps":
        device = None
    fit, chosen_on, tested = (
        _labelled(part, name) for part, name in ((train, "train"), (validation, "validation"), (test, "test"))
    )
    probes = {sensor: _best_probe(fit[sensor], chosen_on[sensor], penalties, device) for sensor in fit}
    results = []
    for fit_sensor, test_sensor in product(fit, tested):
        source, target = fit[fit_sensor], tested[test_sensor]
        probe, penalty = probes[fit_sensor]
        neighbours = knn_scores(source.embeds, source.labels, target.embeds, k, device=device)
        for classifier, scores, chosen in (
            ("linear", probe.scores(target.embeds), penalty),
            ("knn", neighbours, None),
        ):
            measured = classification_scores(scores, target.labels)
            results.append(
                ProbeResult(
                    classifier=classifier,
                    fit_sensor=fit_sensor,
                    test_sensor=test_sensor,
                    n_fit=len(source.ids),
                    n_test=len(target.ids),
                    penalty=chosen,
                    macro_map=measured["macro_map"],
                    micro_map=measured["micro_map"],
                    macro_f1=measured["macro_f1"],
                    micro_f1=measured["micro_f1"],
                )
            )
    return results


def _labelled(parts: Mapping[str, Embedded], name: str) -> dict[str, Embedded]:
    result = {}
    for sensor, one in parts.items():
        rows = np.flatnonzero(one.labels.any(axis=1))
        if not rows.size:
            raise ValueError(
                f"No {sensor} tile of the {name} tiles has labels: a probe cannot be fitted or tested on them."
            )
        result[sensor] = one.take(rows)
    return result


def _best_probe(
    fit: Embedded, chosen_on: Embedded, penalties: Sequence[float], device: str | None
) -> tuple[LinearProbe, float]:
    probes = {penalty: LinearProbe.fit(fit.embeds, fit.labels, penalty, device=device) for penalty in penalties}
    quality = {
        penalty: classification_scores(probe.scores(chosen_on.embeds), chosen_on.labels)["macro_map"]
        for penalty, probe in probes.items()
    }
    best = max(penalties, key=lambda penalty: quality[penalty])
    return probes[best], best


def probe_rows(results: Sequence[ProbeResult]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table of probes.

    Args:
        results: As of `probe_all`.

    Returns:
        Header and rows.
    """
    header = [
        "fitted on -> tested on",
        "classifier",
        "fitted",
        "tested",
        "macro mAP",
        "micro mAP",
        "macro F1",
        "micro F1",
    ]
    rows = [
        [
            f"{result.fit_sensor} -> {result.test_sensor}",
            "linear" if result.classifier == "linear" else "k-NN",
            str(result.n_fit),
            str(result.n_test),
            *(f"{getattr(result, name):.4f}" for name in PROBE_SCORES),
        ]
        for result in results
    ]
    return header, rows


def format_probes(results: Sequence[ProbeResult]) -> str:
    """Lay probes out as a plain-text table.

    Args:
        results: As of `probe_all`.

    Returns:
        The lines.
    """
    return "\n".join(align_table(*probe_rows(results)))
