"""Finds the labels that are likely to be wrong or missing, by cleanlab: predictions in, cases out. No TensorFlow."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from mcar_tf.evaluating.predictions import Predictions

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Case:
    """A label that is likely to be a mistake.

    Attributes:
        part: which of the predictions the picture is in, counted from 0.
        row: its row there.
        id: the picture's id.
        class_index: the class.
        kind: "wrong": labelled, but likely not there; "missing": not labelled, but likely there.
        prob: the class's fused probability.
        quality: cleanlab's label quality, in [0, 1]: the model's probability of what the label says.
    """

    part: int
    row: int
    id: str
    class_index: int
    kind: Literal["wrong", "missing"]
    prob: float
    quality: float


def check_cleanlab() -> None:
    """Refuse to begin without cleanlab.

    Raises:
        ValueError: it is not installed; the error says how to install it.
    """
    try:
        import cleanlab  # noqa: F401
    except ImportError as error:
        raise ValueError('Audits need cleanlab: pip install "mcar-tf[audit]"') from error


def find_cases(parts: Sequence[Predictions]) -> list[Case]:
    """The labels that cleanlab's confident learning takes for mistakes, the likeliest first.

    Each class is judged by itself, on the pictures where its label is known: a class is flagged in as many pictures
    as its noise is estimated to be (`prune_by_noise_rate`, Northcutt et al., 2021). The order is that of the label
    quality `self_confidence`.

    Args:
        parts: predictions of one or more models for different pictures, none of which the model learnt from.
    """
    cases = []
    for class_index in tqdm(
        range(parts[0].num_classes), desc="auditing", unit=" classes", leave=False, disable=None
    ):
        column = slice(class_index, class_index + 1)
        truth = [part.truth(classes=column) for part in parts]
        labels, known = (np.concatenate([each[i] for each in truth])[:, 0] for i in (0, 1))
        probs = np.concatenate([part.stream("fused", classes=column)[:, 0] for part in parts])
        places = np.flatnonzero(known)
        flagged, quality = _judge(labels[places], probs[places])
        ends = np.cumsum([len(part) for part in parts])
        for place, found in zip(places[flagged].tolist(), quality[flagged].tolist(), strict=True):
            part = int(np.searchsorted(ends, place, side="right"))
            row = place - int(ends[part]) + len(parts[part])
            kind: Literal["wrong", "missing"] = "wrong" if labels[place] else "missing"
            identity = str(parts[part].ids[row])
            cases.append(Case(part, row, identity, class_index, kind, float(probs[place]), found))
    return sorted(cases, key=lambda case: (case.quality, case.id, case.class_index))


def _judge(labels: Array, probs: Array) -> tuple[Array, Array]:
    """Whether each label of one class is likely to be a mistake, and its quality.

    Args:
        labels: (n,) bool.
        probs: (n,) in [0, 1].

    Returns:
        (n,) bool and (n,) float; nothing is flagged if all labels are alike, which leaves nothing to compare.
    """
    from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class
    from cleanlab.multilabel_classification.rank import get_label_quality_scores_per_class

    if labels.all() or not labels.any():
        return np.zeros(len(labels), bool), np.ones(len(labels))
    given = [[0] if label else [] for label in labels.tolist()]
    column = probs[:, None].astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of classes that it flags everywhere, which the page shows
        flagged = find_multilabel_issues_per_class(given, column, n_jobs=1)[:, 0]
        quality = get_label_quality_scores_per_class(given, column)[:, 0]
    return np.asarray(flagged), np.asarray(quality)
