import numpy as np
import oracles
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mcar_tf.training.losses import (
    asymmetric,
    balanced_weights,
    binary_cross_entropy,
    weigh_positives,
)

LABELS = arrays(np.float32, (3, 4), elements=st.sampled_from([0.0, 1.0]))
LOGITS = arrays(np.float32, (3, 4), elements=st.floats(-12, 12, width=32))
WEIGHTS = arrays(np.float32, (3, 4), elements=st.sampled_from([0.0, 0.5, 1.0]))
SHAPES = st.tuples(
    st.sampled_from([0.0, 1.0, 2.5]), st.sampled_from([0.0, 2.0, 4.0]), st.sampled_from([0.0, 0.05, 0.2])
)


def test_one_positive_one_easy_and_one_hard_negative():
    labels = np.array([[1, 0, 0]], np.float32)
    probs = np.array([[0.8, 0.04, 0.55]])
    logits = np.log(probs / (1 - probs)).astype(np.float32)
    # gamma+ 1: 0.2 * -ln 0.8 = 0.0446287; below the margin: 0; gamma- 2: 0.5^2 * -ln(1 - 0.5) = 0.1732868
    loss = asymmetric(labels, logits, np.ones((1, 3), np.float32), 1.0, 2.0, 0.05)
    assert float(loss) == pytest.approx((0.0446287 + 0.1732868) / 3, rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(LABELS, LOGITS, WEIGHTS, SHAPES)
def test_asymmetric_is_the_slow_definition(labels, logits, weights, shape):
    expected = oracles.asymmetric(labels, logits, weights, *shape)
    assert float(asymmetric(labels, logits, weights, *shape)) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(LABELS, LOGITS, WEIGHTS)
def test_without_gammas_and_margin_it_is_binary_cross_entropy_and_so_is_its_gradient(labels, logits, weights):
    logits = tf.constant(logits)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        ours = asymmetric(labels, logits, weights, 0.0, 0.0, 0.0)
        entropy = binary_cross_entropy(labels, logits, weights)
    assert float(ours) == pytest.approx(float(entropy), rel=1e-6, abs=1e-7)
    np.testing.assert_allclose(tape.gradient(ours, logits), tape.gradient(entropy, logits), atol=1e-7)


def test_the_focusing_powers_are_constants_to_the_gradient():
    labels, weights = np.array([[1, 0]], np.float32), np.ones((1, 2), np.float32)
    probs = np.array([[0.8, 0.5]])
    logits = tf.constant(np.log(probs / (1 - probs)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = asymmetric(labels, logits, weights, 1.0, 2.0, 0.0)
    # (1 - p)^1 * -(1 - p) and p^2 * p, each over the two labels.
    np.testing.assert_allclose(tape.gradient(loss, logits), [[-0.04 / 2, 0.125 / 2]], rtol=1e-5)


@pytest.mark.parametrize("logit", [-1e4, 1e4])
@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_certain_logits_give_finite_losses_and_gradients(logit, label, margin):
    logits = tf.constant([[logit]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = asymmetric(np.full((1, 1), label), logits, np.ones((1, 1)), 1.0, 4.0, margin)
    assert np.isfinite(loss)
    assert np.isfinite(tape.gradient(loss, logits)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma_positive": -1.0}, r"`gamma_positive` must not be negative. Received: -1.0"),
        ({"gamma_negative": -1.0}, r"`gamma_negative` must not be negative. Received: -1.0"),
        ({"margin": 1.0}, r"`margin` must lie in \[0, 1\). Received: 1.0"),
    ],
)
def test_values_outside_their_range_are_refused(change, message):
    zeros = np.zeros((1, 1), np.float32)
    with pytest.raises(ValueError, match=message):
        asymmetric(zeros, zeros, zeros, **change)


def test_balanced_weights_are_absent_for_each_present():
    # 9 of 10 lack it: 9; half: 1; more with it than without: 1; one in a thousand: 20 at most; none: 1
    present, absent = np.array([1, 5, 8, 1, 0]), np.array([9, 5, 2, 999, 10])
    np.testing.assert_array_equal(balanced_weights(present, absent), [9, 1, 1, 20, 1])


def test_positives_count_as_often_as_they_weigh_and_negatives_once():
    labels = np.array([[1, 0], [0, 1]], np.float32)
    logits = np.zeros((2, 2), np.float32)  # each label costs ln 2
    weights = np.array([[1, 1], [1, 0]], np.float32)
    loss = weigh_positives(binary_cross_entropy, np.array([3.0, 5.0]))
    # 3 + 1 + 1 + 0 times ln 2, over 4 labels
    assert float(loss(labels, logits, weights)) == pytest.approx(5 * np.log(2) / 4)
