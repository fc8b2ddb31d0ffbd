"""Which labels are taken for mistakes: those that were turned, each class by itself, and none that nobody knows."""

import numpy as np
import pytest
from made_predictions import predictions_with

from mcar_tf.auditing.cases import find_cases

pytest.importorskip("cleanlab")


def noisy(pictures=600, classes=3, share=0.03, seed=0):
    """Probabilities of a good model, labels drawn by them, and `share` of these turned: probs, labels, turned."""
    rng = np.random.default_rng(seed)
    probs = rng.beta(0.2, 0.6, (pictures, classes)).astype(np.float32)
    labels = rng.random((pictures, classes)) < probs
    turned = rng.random((pictures, classes)) < share
    return probs, labels ^ turned, turned


def test_the_first_cases_are_the_turned_labels():
    probs, labels, turned = noisy()
    cases = find_cases([predictions_with(labels, probs)])
    first = cases[:20]
    assert sum(turned[case.row, case.class_index] for case in first) >= 18
    assert all((case.kind == "wrong") == labels[case.row, case.class_index] for case in cases)
    assert [case.quality for case in cases] == sorted(case.quality for case in cases)


def test_the_quality_of_a_label_is_the_probability_of_what_it_says():
    probs, labels, _ = noisy()
    for case in find_cases([predictions_with(labels, probs)]):
        said = case.prob if case.kind == "wrong" else 1 - case.prob
        assert case.quality == pytest.approx(said, abs=1e-6)


def test_a_label_that_nobody_knows_is_no_case():
    probs, labels, _ = noisy()
    everything = find_cases([predictions_with(labels, probs)])
    known = np.ones(labels.shape, bool)
    known[everything[0].row, everything[0].class_index] = False
    left = find_cases([predictions_with(labels, probs, known)])
    places = {(case.row, case.class_index) for case in left}
    assert (everything[0].row, everything[0].class_index) not in places
    assert (everything[1].row, everything[1].class_index) in places


def test_folds_give_the_cases_of_all_pictures_together():
    probs, labels, _ = noisy()
    whole = find_cases([predictions_with(labels, probs)])
    parts = [predictions_with(labels[rows], probs[rows]) for rows in (slice(0, 100), slice(100, 600))]
    assert [(case.row + 100 * case.part, case.class_index) for case in find_cases(parts)] == [
        (case.row, case.class_index) for case in whole
    ]


def test_a_class_that_all_or_no_pictures_show_has_no_cases():
    probs, labels, _ = noisy()
    labels[:, 0], labels[:, 1] = True, False
    assert {case.class_index for case in find_cases([predictions_with(labels, probs)])} <= {2}
