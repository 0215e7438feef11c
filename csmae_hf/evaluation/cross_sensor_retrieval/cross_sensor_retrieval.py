"""Multi-label retrieval metrics as a module of the `evaluate` library; the definitions are in `csmae_hf.metrics.ranking`."""

from typing import Any

import datasets
import evaluate
import numpy as np

from csmae_hf.metrics.bootstrap import bootstrap_scores, intervals
from csmae_hf.metrics.labels import multi_hot
from csmae_hf.metrics.ranking import METRICS, mean_scores, query_scores
from csmae_hf.metrics.whole_archive import hubness

_DESCRIPTION = """
Multi-label image retrieval with relevance graded by shared labels: precision, recall and both F1 in use (of the two means, as the
original CSMAE computes it, and the mean over pairs), mAP, NDCG and ACG, each at k = the number of results of a query.
"""

_CITATION = """
@article{hackstein2024exploring,
  title   = {Exploring Masked Autoencoders for Sensor-Agnostic Image Retrieval in Remote Sensing},
  author  = {Hackstein, Jakob and Sumbul, Gencer and Clasen, Kai Norman and Demir, Beg{\\"u}m},
  journal = {IEEE Transactions on Geoscience and Remote Sensing},
  year    = {2024},
  doi     = {10.1109/TGRS.2024.3517150}
}
"""

_INPUTS = """
Args:
    predictions: For each query the archive indices of its results, best first; k of them.
    references: For each query its class numbers.
    archive_labels: For each archive tile its class numbers.
    num_classes: Number of classes; default the highest class number plus 1.
    exclude: For each query the archive index it could not retrieve (its own tile), -1 for none.
    resamples: Resamples of the queries for 95 % confidence intervals; 0 makes none.
    seed: Of the resamples.

Returns:
    Each metric below and hubness, by name; and intervals by metric, where asked for.
"""

_DETAILS = "\n".join(f"{name}: {metric.definition}" for name, metric in METRICS.items())


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS, _DETAILS)
class CrossSensorRetrieval(evaluate.Metric):
    """The metric."""

    def _info(self) -> evaluate.MetricInfo:
        numbers = datasets.Sequence(datasets.Value("int64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": numbers, "references": numbers}),
        )

    def _compute(
        self,
        predictions: list[list[int]],
        references: list[list[int]],
        archive_labels: list[list[int]],
        num_classes: int | None = None,
        exclude: list[int] | None = None,
        resamples: int = 0,
        seed: int = 0,
    ) -> dict[str, Any]:
        classes = num_classes or 1 + max(max(row, default=0) for row in [*references, *archive_labels])
        query, archive = multi_hot(references, classes), multi_hot(archive_labels, classes)
        ranking = np.array(predictions)
        own = None if exclude is None else np.array(exclude)
        scores = query_scores(query, archive, ranking, exclude=own)
        result: dict[str, Any] = {**mean_scores(scores), "hubness": hubness(ranking, len(archive)).skewness}
        if resamples:
            result["intervals"] = intervals(bootstrap_scores(scores, resamples=resamples, seed=seed))
        return result
