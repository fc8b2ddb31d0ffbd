import math

import numpy as np
import oracles
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mcar_tf.models.heads import csra

LOGITS = st.floats(-20, 20, width=32)


def test_csra_of_two_cells():
    # Mean 1; weights 1 / (1 + e^-2) and 1 / (1 + e^2): attention 2 * 0.880797 = 1.761594.
    maps = np.array([[[[0.0], [2.0]]]], np.float32)
    assert csra(maps, 1.0, 0.0).numpy() == [[1.0]]
    np.testing.assert_allclose(csra(maps, 1.0, 0.5), [[1.0 + 0.5 * 1.761594]], rtol=1e-6)
    assert csra(maps, math.inf, 0.5).numpy() == [[2.0]]


@settings(max_examples=30, deadline=None)
@given(arrays(np.float32, (2, 3, 4, 2), elements=LOGITS), st.sampled_from([0.5, 1, 4, 99, math.inf]))
def test_csra_is_the_slow_definition(maps, temperature):
    expected = oracles.csra(maps, temperature, 0.3)
    np.testing.assert_allclose(csra(maps, temperature, 0.3), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(arrays(np.float32, (1, 3, 3, 1), elements=LOGITS))
def test_csra_lies_between_average_and_maximum_and_reaches_the_maximum_as_the_temperature_grows(maps):
    average, maximum = maps.mean(), maps.max()
    attention = [float(csra(maps, t, 1.0)[0, 0]) - average for t in (0.1, 1.0, 10.0, math.inf)]
    assert (np.diff(attention) > -1e-4).all()  # rises, but for rounding
    assert average - 1e-4 <= attention[0]
    assert attention[-1] == pytest.approx(maximum, abs=1e-4)


def test_a_constant_map_gives_its_value_and_lam_times_it():
    np.testing.assert_allclose(csra(np.full((1, 3, 3, 1), 2.0, np.float32), 1.0, 0.25), [[2.5]], rtol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, math.inf])
def test_large_logits_overflow_neither_forward_nor_backward(temperature):
    maps = tf.constant(np.array([1e4, -1e4, 0.0, 9e3], np.float32).reshape(1, 2, 2, 1))
    with tf.GradientTape() as tape:
        tape.watch(maps)
        logit = csra(maps, temperature, 0.1)
    np.testing.assert_allclose(logit, [[2250.0 + 1000.0]], rtol=1e-6)
    # A quarter by the average, 0.1 by the attention, all of which the highest cell has.
    np.testing.assert_allclose(np.ravel(tape.gradient(logit, maps)), [0.35, 0.25, 0.25, 0.25], rtol=1e-6)


def test_csra_takes_maps_of_half_precision_and_of_unknown_size():
    maps = np.random.default_rng(0).standard_normal((2, 4, 3, 5)).astype(np.float16)
    of_any_size = [tf.TensorSpec((None, None, None, 5), tf.float16)]
    logits = tf.function(lambda maps: csra(maps, 2.0, 0.1), input_signature=of_any_size)(maps)
    assert logits.dtype == tf.float32
    np.testing.assert_allclose(logits, oracles.csra(maps, 2.0, 0.1), rtol=1e-5)
