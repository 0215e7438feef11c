"""The four numbers by their definitions, one pair at a time, and labels to try them on."""

import numpy as np

FOUR = ("precision", "recall", "f1_of_means", "mean_pair_f1")


def as_tuple(scores):
    return tuple(scores[name] for name in FOUR)


def double_loop(query_labels, archive_labels, ranking):
    """The definitions, one pair at a time, on sets."""
    precision, recall, f1 = [], [], []
    for query, row in zip(query_labels, ranking, strict=True):
        q = set(np.flatnonzero(query))
        for index in row:
            r = set(np.flatnonzero(archive_labels[index]))
            p_pair = len(q & r) / len(r) if r else 0.0
            r_pair = len(q & r) / len(q) if q else 0.0
            precision.append(p_pair)
            recall.append(r_pair)
            f1.append(2 * p_pair * r_pair / (p_pair + r_pair) if p_pair + r_pair else 0.0)
    p, r = np.mean(precision), np.mean(recall)
    return p, r, (2 * p * r / (p + r) if p + r else 0.0), np.mean(f1)


def random_labels(rng, rows, classes, share=0.25):
    labels = rng.random((rows, classes)) < share
    labels[np.arange(rows), rng.integers(0, classes, rows)] = True
    return labels
