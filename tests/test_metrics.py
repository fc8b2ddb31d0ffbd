"""The metrics against their definitions, written out literally, and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import loads
from sklearn.metrics import average_precision_score

from mcar_tf import metrics


def random_set(seed, images=200, classes=7, levels=None):
    """Labels and scores, without ties, or with `levels` different scores."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((images, classes)) < 0.2).astype(int)
    labels[0] = 1  # every class has a positive
    scores = rng.permuted(np.linspace(0, 1, images * classes)).reshape(images, classes)
    if levels:
        scores = np.floor(scores * levels) / levels
    return labels, scores


def average_precision_by_definition(labels, scores):
    """The mean over positives of the share of positives among those that score at least as high."""
    precisions = []
    for label, score in zip(labels, scores, strict=True):
        if label:
            retrieved = [other for other, s in zip(labels, scores, strict=True) if s >= score]
            precisions.append(sum(retrieved) / len(retrieved))
    return sum(precisions) / len(precisions)


def eleven_point_by_the_devkit(labels, scores):
    """`VOCevalcls.m`, line by line; its `rec >= t` in whole numbers of positives."""
    order = np.argsort(-scores)
    tp = np.cumsum(labels[order] > 0)
    fp = np.cumsum(labels[order] == 0)
    positives = int(labels.sum())
    precision = tp / (fp + tp)
    ap = 0.0
    for t in range(11):
        reached = precision[10 * tp >= t * positives]
        ap += (max(reached) if len(reached) else 0) / 11
    return ap


def equation_10(labels, decisions):
    """OP .. CF1 as the paper prints them, one class after the other; no class may be without positives."""
    classes = labels.shape[1]
    m_c = [int(sum(labels[:, i] * decisions[:, i])) for i in range(classes)]
    m_p = [int(sum(decisions[:, i])) for i in range(classes)]
    m_g = [int(sum(labels[:, i])) for i in range(classes)]
    op, overall = sum(m_c) / sum(m_p), sum(m_c) / sum(m_g)
    cp = sum(m_c[i] / m_p[i] if m_p[i] else 0 for i in range(classes)) / classes
    cr = sum(m_c[i] / m_g[i] for i in range(classes)) / classes
    return {
        "OP": op,
        "OR": overall,
        "OF1": 2 * op * overall / (op + overall),
        "CP": cp,
        "CR": cr,
        "CF1": 2 * cp * cr / (cp + cr),
    }


def test_average_precision_of_a_ranking_that_fits_on_paper():
    # Ranked: positive, negative, positive -> precisions 1/1 and 2/3 -> (1 + 2/3) / 2
    assert metrics.average_precision([1, 0, 1], [0.9, 0.8, 0.7]) == pytest.approx(5 / 6, abs=1e-15)


def test_equal_scores_are_one_set():
    # At 0.5 there are two positives among three images, for each of the two.
    for labels in ([1, 1, 0], [1, 0, 1], [0, 1, 1]):
        assert metrics.average_precision(labels, [0.5, 0.5, 0.5]) == pytest.approx(2 / 3, abs=1e-15)


@pytest.mark.parametrize("levels", [None, 13, 2])
@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_scikit_learns(seed, levels):
    labels, scores = random_set(seed, levels=levels)
    expected = [average_precision_score(labels[:, c], scores[:, c]) for c in range(labels.shape[1])]
    np.testing.assert_allclose(metrics.average_precision(labels, scores), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("levels", [None, 13])
def test_average_precision_is_its_definition(levels):
    labels, scores = random_set(3, images=60, levels=levels)
    expected = [average_precision_by_definition(labels[:, c], scores[:, c]) for c in range(labels.shape[1])]
    np.testing.assert_allclose(metrics.average_precision(labels, scores), expected, rtol=0, atol=1e-14)


def test_11_point_average_precision_is_the_devkits():
    labels, scores = random_set(4)
    expected = [eleven_point_by_the_devkit(labels[:, c], scores[:, c]) for c in range(labels.shape[1])]
    np.testing.assert_allclose(metrics.average_precision_11_point(labels, scores), expected, atol=1e-14)


def test_11_point_average_precision_reaches_recall_03_with_three_of_ten():
    # Three positives first, then a negative, then seven positives: precision is 1 up to recall 0.3, which
    # three of ten reach (in floats 0.1 * 3 > 0.3), and at most 10/11 beyond: (4 * 1 + 7 * 10/11) / 11.
    labels = [1, 1, 1, 0] + [1] * 7
    assert metrics.average_precision_11_point(labels, -np.arange(11.0)) == pytest.approx(
        (4 + 7 * 10 / 11) / 11
    )


def test_a_class_without_positives_is_unknown_and_left_out_of_the_mean():
    labels, scores = [[1, 0], [0, 0]], [[0.9, 0.9], [0.1, 0.1]]
    np.testing.assert_array_equal(metrics.average_precision(labels, scores), [1, np.nan])
    assert metrics.mean_average_precision(labels, scores) == 1


def test_without_any_positive_there_is_no_map():
    assert np.isnan(metrics.mean_average_precision(np.zeros((3, 2)), np.ones((3, 2))))


def test_one_image_has_an_average_precision():
    np.testing.assert_array_equal(metrics.average_precision([[1, 0]], [[0.1, 0.9]]), [1, np.nan])


def test_no_image_has_none():
    assert np.isnan(metrics.average_precision(np.zeros((0, 2)), np.zeros((0, 2)))).all()


def test_labels_of_no_weight_are_as_if_they_were_not_there():
    labels, scores = random_set(5, classes=1, levels=20)
    weights = np.random.default_rng(5).integers(0, 2, labels.shape)
    kept = weights[:, 0] == 1
    for metric in (metrics.average_precision, metrics.average_precision_11_point):
        np.testing.assert_array_equal(metric(labels, scores, weights), metric(labels[kept], scores[kept]))
    assert metrics.precision_recall_f1(labels, scores, 0.5, weights) == metrics.precision_recall_f1(
        labels[kept], scores[kept], 0.5
    )
    assert metrics.expected_calibration_error(labels, scores, weights) == metrics.expected_calibration_error(
        labels[kept], scores[kept]
    )


@pytest.mark.parametrize("threshold", [0.6, np.linspace(0.2, 0.9, 7)])
def test_precision_recall_f1_is_equation_10(threshold):
    labels, probs = random_set(6, levels=10)
    expected = equation_10(labels, (probs >= threshold).astype(int))
    assert metrics.precision_recall_f1(labels, probs, threshold) == pytest.approx(expected, abs=1e-14)


def test_a_class_never_predicted_counts_0_in_cp_and_nothing_in_op():
    labels, probs = [[1, 1], [1, 0]], [[0.9, 0.1], [0.9, 0.1]]
    found = metrics.precision_recall_f1(labels, probs)
    # OP = 2 of 2 predictions; CP = (2/2 + 0) / 2; OR = 2 of 3; CR = (2/2 + 0/1) / 2.
    assert found == pytest.approx(
        {"OP": 1, "OR": 2 / 3, "OF1": 0.8, "CP": 0.5, "CR": 0.5, "CF1": 0.5}, abs=1e-15
    )


def test_a_class_without_positives_lowers_op_but_is_left_out_of_cp():
    found = metrics.precision_recall_f1([[1, 0]], [[0.9, 0.9]])
    assert (found["OP"], found["CP"], found["CR"]) == (0.5, 1, 1)


def test_the_threshold_itself_is_a_yes():
    assert metrics.precision_recall_f1([[1]], [[0.6]])["OR"] == 1


def test_nothing_predicted_gives_zeros():
    assert set(metrics.precision_recall_f1([[1, 0]], [[0.1, 0.1]]).values()) == {0}


def test_top_3_are_the_three_most_probable_by_equation_10():
    labels, probs = random_set(7)
    decisions = np.zeros_like(labels)
    for image, row in enumerate(probs):
        decisions[image, sorted(range(len(row)), key=lambda c: -row[c])[:3]] = 1
    assert metrics.top_k_metrics(labels, probs) == pytest.approx(equation_10(labels, decisions), abs=1e-14)
    decisions[probs < 0.6] = 0
    assert metrics.top_k_metrics(labels, probs, min_prob=0.6) == pytest.approx(
        equation_10(labels, decisions), abs=1e-14
    )


def test_of_equally_probable_classes_the_first_are_assigned():
    # Third place is shared by classes 1, 2 and 3; class 1 gets it. Labels say so: all six numbers are 1.
    found = metrics.top_k_metrics([[1, 1, 0, 0, 1]], [[0.9, 0.5, 0.5, 0.5, 0.8]])
    assert set(found.values()) == {1}


def test_top_3_of_two_classes_are_both():
    assert metrics.top_k_metrics([[1, 1]], [[0.9, 0.1]])["OR"] == 1


def test_false_claims_are_counted_beside_what_is_there():
    # Image 0 shows a alone, and b is claimed; image 1 shows a alone, and nothing is claimed; image 2 shows a
    # and b; in image 3, which shows a, nobody knows about b.
    labels = [[1, 0], [1, 0], [1, 1], [1, 0]]
    decisions = [[1, 1], [0, 0], [1, 1], [1, 1]]
    weights = [[1, 1], [1, 1], [1, 1], [1, 0]]
    claimed, images = metrics.count_false_claims(labels, decisions, weights)
    assert claimed.tolist() == [[0, 1], [0, 0]]
    assert images.tolist() == [[0, 2], [0, 0]]


def test_precision_recall_curve_has_one_point_for_each_score_of_a_positive():
    precision, recall, threshold = metrics.precision_recall_curve([1, 0, 1, 1, 0], [0.9, 0.8, 0.5, 0.5, 0.1])
    np.testing.assert_allclose(threshold, [0.9, 0.5])
    np.testing.assert_allclose(precision, [1, 3 / 4])
    np.testing.assert_allclose(recall, [1 / 3, 1])


def test_a_class_without_positives_has_no_curve():
    assert [len(values) for values in metrics.precision_recall_curve([0, 0], [0.5, 0.1])] == [0, 0, 0]


def test_calibration_error_of_two_bins():
    # Below 0.5: mean prob 0.2, one of two positive. Above: mean prob 0.9, two of two. (2 * 0.3 + 2 * 0.1) / 4
    labels, probs = [1, 0, 1, 1], [0.1, 0.3, 0.8, 1.0]
    assert metrics.expected_calibration_error(labels, probs, bins=2) == pytest.approx(0.2, abs=1e-15)


def test_frequencies_are_calibrated():
    probs = np.repeat([0.25, 0.75], 4)
    assert metrics.expected_calibration_error([0, 0, 0, 1, 0, 1, 1, 1], probs) == 0


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([[1, 0]], [[0.5, np.nan]], r"1 NaN, the first at \[0, 1\]"),
        ([[1, 2]], [[0.5, 0.5]], "labels must be 0 or 1. Received, among others: 2"),
        ([[1, 0]], [[0.5]], r"one shape.*Received: \(1, 2\), \(1, 1\)"),
    ],
)
def test_what_is_no_labels_and_scores_is_refused(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        metrics.average_precision(labels, scores)


def test_fractional_weights_are_refused():
    with pytest.raises(ValueError, match=r"weights must be 0 or 1\. Received, among others: 0\.5"):
        metrics.average_precision([1, 0], [0.1, 0.2], [0.5, 1])


def test_one_threshold_too_many_is_refused():
    with pytest.raises(ValueError, match="one for each of the 2 classes"):
        metrics.precision_recall_f1([[1, 0]], [[0.5, 0.5]], [0.5, 0.5, 0.5])


def test_logits_have_no_calibration_error():
    with pytest.raises(ValueError, match=r"\[0, 1\]. Received values from -3 to 2"):
        metrics.expected_calibration_error([1, 0], [2.0, -3.0])


# Scores of a few values, so that ties are common; labels with or without positives.
SETS = st.tuples(st.integers(1, 25), st.integers(1, 5)).flatmap(
    lambda shape: st.tuples(
        *(
            st.lists(values, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]).map(
                lambda flat: np.reshape(flat, shape)
            )
            for values in (st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.7, 0.9, 1.0]))
        )
    )
)


@settings(max_examples=100, deadline=None)
@given(SETS, st.randoms(use_true_random=False))
def test_order_of_images_and_classes_changes_nothing(data, random):
    labels, scores = data
    rows = random.sample(range(len(labels)), len(labels))
    columns = random.sample(range(labels.shape[1]), labels.shape[1])
    for metric in (metrics.average_precision, metrics.average_precision_11_point):
        np.testing.assert_allclose(
            metric(labels[rows][:, columns], scores[rows][:, columns]),
            metric(labels, scores)[columns],
            atol=1e-14,
        )
    assert metrics.precision_recall_f1(
        labels[rows][:, columns], scores[rows][:, columns], 0.5
    ) == pytest.approx(metrics.precision_recall_f1(labels, scores, 0.5), abs=1e-14, nan_ok=True)


@settings(max_examples=100, deadline=None)
@given(SETS)
def test_only_the_order_of_scores_matters_to_average_precision(data):
    labels, scores = data
    expected = metrics.average_precision(labels, scores)
    np.testing.assert_array_equal(metrics.average_precision(labels, np.exp(3 * scores) - 7), expected)


@settings(max_examples=100, deadline=None)
@given(SETS, st.integers(2, 4))
def test_every_image_twice_or_more_changes_nothing(data, times):
    labels, scores = data
    more = np.tile(labels, (times, 1)), np.tile(scores, (times, 1))
    for metric in (
        metrics.average_precision,
        metrics.average_precision_11_point,
        metrics.expected_calibration_error,
    ):
        np.testing.assert_allclose(metric(*more), metric(labels, scores), atol=1e-13)
    for metric in (metrics.precision_recall_f1, metrics.top_k_metrics):
        assert metric(*more) == pytest.approx(metric(labels, scores), abs=1e-13, nan_ok=True)


@settings(max_examples=100, deadline=None)
@given(SETS)
def test_every_number_is_a_fraction_or_unknown(data):
    labels, scores = data
    found = [
        *metrics.average_precision(labels, scores),
        *metrics.average_precision_11_point(labels, scores),
        *metrics.precision_recall_f1(labels, scores).values(),
        *metrics.top_k_metrics(labels, scores).values(),
    ]
    assert all(np.isnan(value) or 0 <= value <= 1 for value in found)


def test_importing_the_metrics_loads_no_tensorflow():
    assert loads("mcar_tf.metrics") == []
