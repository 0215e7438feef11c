"""Classification on frozen embeds: a linear probe and k nearest neighbours, multi-label.

Both are fitted on labelled training tiles as one sensor sees them, and tested on tiles of the same and of every other sensor: how well
classes transfer across sensors is the other side of retrieval across sensors. What is left to choose is cross-fitted on the training
tiles too: each fold of them is judged by what was fitted on the others. No tested tile has a part in it.

* Linear probe: scikit-learn's `LogisticRegression`, one for each class, on standardised embeds; its penalty is the best on the folds.
* k-NN: the score of a class is the share of the k nearest training tiles (cosine) that have it.

Measured are mAP (scikit-learn's `average_precision_score`) and F1, each macro (mean over the classes that a tested tile has) and micro
(all decisions together). A tile is said to have a class from the score on that is best for F1 of the class on the folds: at a
fixed 0.5 a strong penalty, or few tiles of a class, would say that no tile has it (F1 0).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csmae_hf.evaluation.evaluate import Embedded
from csmae_hf.evaluation.tables import Table
from csmae_hf.metrics.labels import BoolArray, FloatArray
from csmae_hf.optional import needs_package
from csmae_hf.search.nearest import top_k

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Values of C that are compared: the smaller, the stronger the penalty."""

CHOICE_FOLDS = 5
"""Folds of the training tiles: each is judged by what was fitted on the others."""

PROBE_SCORES = {"macro_map": "macro mAP", "micro_map": "micro mAP", "macro_f1": "macro F1", "micro_f1": "micro F1"}
"""What is measured, with the headings of the table."""

CHOICE_NOTE = (
    "The penalty, and the score from which on a tile has a class, are the best on folds of the training tiles, each judged by what "
    "was fitted on the others."
)


ALWAYS = "always"
ALWAYS_NOTE = "always: every class is said of every tile, which no image is needed for."


@dataclass(frozen=True)
class ProbeResult:
    """One classifier, fitted on one sensor and tested on one."""

    classifier: str  # `linear`, `knn`, or `always`, which says every class of every tile
    fit_sensor: str  # whose training tiles it was fitted on
    test_sensor: str  # whose tiles it was tested on
    n_fit: int  # training tiles; 0 of `always`
    n_test: int  # tested tiles
    macro_map: float  # mean average precision over classes
    micro_map: float  # average precision of all decisions together
    macro_f1: float  # mean over classes
    micro_f1: float  # of all decisions together
    penalty: float | None = None  # C of the linear probe; None of k-NN


def require_scikit_learn() -> None:
    """Raise an ImportError that says how to install what the probe is made with, where it is missing."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise needs_package("The probe", "sklearn", error) from error


@dataclass(frozen=True)
class LinearProbe:
    """A logistic regression for each class."""

    mean: FloatArray  # (D,) subtracted from embeds
    scale: FloatArray  # (D,) by which they are divided
    classifiers: "list[LogisticRegression | float]"  # or the probability 0 or 1, where all training tiles agree

    @classmethod
    def fit(cls, embeds: NDArray[Any], labels: BoolArray, penalty: float) -> "LinearProbe":
        """Fit it on (N, D) embeds and (N, C) multi-hot labels; the smaller C, the stronger the penalty."""
        from sklearn.linear_model import LogisticRegression

        features = np.asarray(embeds, dtype=np.float64)
        mean, scale = features.mean(axis=0), features.std(axis=0)
        scale[scale == 0] = 1.0
        features = (features - mean) / scale
        classifiers = [
            float(column[0])
            if column.min() == column.max()
            else LogisticRegression(C=penalty, tol=1e-6, max_iter=2000).fit(features, column)
            for column in labels.T
        ]
        return cls(mean, scale, classifiers)

    def scores(self, embeds: NDArray[Any]) -> FloatArray:
        """(N, C) probabilities of the classes, of (N, D) embeds."""
        features = (np.asarray(embeds, dtype=np.float64) - self.mean) / self.scale
        return np.stack(
            [
                np.full(len(features), one) if isinstance(one, float) else one.predict_proba(features)[:, 1]
                for one in self.classifiers
            ],
            axis=1,
        )


def knn_scores(
    fit_embeds: NDArray[Any], fit_labels: BoolArray, embeds: NDArray[Any], k: int, *, device: str | None = None
) -> FloatArray:
    """(N, C) shares of the k nearest training tiles, (M, D) with (M, C) labels, that have each class; ValueError where k > M."""
    _, neighbours = top_k(embeds, fit_embeds, k, device=device)
    shares: FloatArray = fit_labels[neighbours].mean(axis=1)
    return shares


def choose_thresholds(scores: FloatArray, labels: BoolArray) -> FloatArray:
    """(C,) scores from which on a tile is said to have a class: where F1 on (N, C) scores of tiles is highest.

    Each lies in the middle between two scores. A class that none of the tiles has is never said.
    """
    from sklearn.metrics import precision_recall_curve

    thresholds = np.full(labels.shape[1], np.inf)
    for column in np.flatnonzero(labels.any(axis=0)):
        precision, recall, values = precision_recall_curve(labels[:, column], scores[:, column])
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        best = int(f1[:-1].argmax())  # the last is of no tile at all
        thresholds[column] = values[max(best - 1, 0) : best + 1].mean()
    return thresholds


def classification_scores(
    scores: NDArray[Any], labels: BoolArray, thresholds: FloatArray | float = 0.5
) -> dict[str, float]:
    """Each of `PROBE_SCORES` of a multi-label classifier, of (N, C) scores, 0 to 1; macro over the classes that at least one tile has.

    ValueError where no tile has a label.
    """
    from sklearn.metrics import average_precision_score

    present = labels.any(axis=0)
    if not present.any():
        raise ValueError("No tile has a label: classification cannot be measured.")
    decided = scores >= thresholds
    hits, sizes = (decided & labels).sum(axis=0), decided.sum(axis=0) + labels.sum(axis=0)
    precisions = [average_precision_score(labels[:, one], scores[:, one]) for one in np.flatnonzero(present)]
    return {
        "macro_map": float(np.mean(precisions)),
        "micro_map": float(average_precision_score(labels.ravel(), scores.ravel())),
        "macro_f1": float((2 * hits / np.maximum(sizes, 1))[present].mean()),
        "micro_f1": float(2 * hits.sum() / sizes.sum()),
    }


@dataclass(frozen=True)
class CrossFitted:
    """What is chosen on folds of the training tiles, each judged by what was fitted on the others."""

    penalty: float  # C of the linear probe with the highest macro mAP, mean over folds
    linear: FloatArray  # (N, C) scores of the linear probe of that penalty
    knn: FloatArray  # (N, C) scores of k-NN


def cross_fit(source: Embedded, penalties: Sequence[float], k: int, device: str | None = None) -> CrossFitted:
    """Judge each fold of labelled training tiles, two or more, by classifiers that were fitted on the others.

    mAP is of each fold by itself: scores of two folds are of two classifiers, whose offsets say which classes their folds lack.
    """
    count = min(CHOICE_FOLDS, len(source.ids))
    dealt = np.random.default_rng(0).permutation(len(source.ids)) % count
    linear = np.empty((len(penalties), *source.labels.shape))
    knn = np.empty(source.labels.shape)
    quality = np.zeros(len(penalties))
    for fold in range(count):
        held, others = dealt == fold, dealt != fold
        embeds, labels = source.embeds[others], source.labels[others]
        for place, penalty in enumerate(penalties):
            linear[place, held] = LinearProbe.fit(embeds, labels, penalty).scores(source.embeds[held])
            quality[place] += classification_scores(linear[place, held], source.labels[held])["macro_map"]
        knn[held] = knn_scores(embeds, labels, source.embeds[held], min(k, len(embeds)), device=device)
    best = int(quality.argmax())
    return CrossFitted(penalties[best], linear[best], knn)


def probe_all(
    train: Mapping[str, Embedded],
    test: Mapping[str, Embedded],
    *,
    k: int = 10,
    penalties: Sequence[float] = PENALTIES,
    device: str | None = None,
) -> list[ProbeResult]:
    """Fit both classifiers on each sensor, and test them on each.

    Args:
        train: Training tiles by sensor: all is fitted and chosen on them.
        test: Tiles to test on.
        k: Neighbours of k-NN.
        penalties: Values of C to compare, by macro mAP.
        device: Where neighbours are searched.

    Returns:
        Two results for each ordered pair of sensors, and for each sensor that of saying every class of every tile.

    Raises:
        ValueError: A split has no labelled tile, or there are fewer than 2 training tiles, or fewer than k.
        ImportError: scikit-learn is missing.
    """
    require_scikit_learn()
    fit, tested = (_labelled(part, name) for part, name in ((train, "train"), (test, "test")))
    results = []
    for fit_sensor, source in fit.items():
        if len(source.ids) < 2:
            raise ValueError(f"A probe is fitted on 2 labelled {fit_sensor} training tiles or more; there is 1.")
        chosen = cross_fit(source, penalties, k, device)
        probe = LinearProbe.fit(source.embeds, source.labels, chosen.penalty)
        of_linear, of_knn = (choose_thresholds(scores, source.labels) for scores in (chosen.linear, chosen.knn))
        for test_sensor, target in tested.items():
            found = knn_scores(source.embeds, source.labels, target.embeds, k, device=device)
            for classifier, scores, thresholds, penalty in (
                ("linear", probe.scores(target.embeds), of_linear, chosen.penalty),
                ("knn", found, of_knn, None),
            ):
                measured = classification_scores(scores, target.labels, thresholds)
                n_fit, n_test = len(source.ids), len(target.ids)
                results.append(
                    ProbeResult(classifier, fit_sensor, test_sensor, n_fit, n_test, **measured, penalty=penalty)
                )
    for test_sensor, target in tested.items():
        measured = classification_scores(np.ones(target.labels.shape), target.labels)
        results.append(ProbeResult(ALWAYS, "", test_sensor, 0, len(target.ids), **measured))
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


def probes_table(results: Sequence[ProbeResult]) -> Table:
    """Probes as a table."""
    header = ["fitted on -> tested on", "classifier", "fitted", "tested", *PROBE_SCORES.values()]
    rows = [
        [
            f"{result.fit_sensor} -> {result.test_sensor}".strip(),
            {"knn": "k-NN"}.get(result.classifier, result.classifier),
            str(result.n_fit or ""),
            str(result.n_test),
            *(f"{getattr(result, name):.4f}" for name in PROBE_SCORES),
        ]
        for result in results
    ]
    return Table(header, rows, [vars(result) for result in results], names=2, notes=[CHOICE_NOTE, ALWAYS_NOTE])
