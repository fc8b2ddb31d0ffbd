import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import find_interval as find_interval_slowly
from oracles import resize
from oracles import spread_interval as spread_interval_slowly

from mcar_tf.models.localizer import (
    check_localizer,
    find_interval,
    localize,
    marginals,
    spread_interval,
    upsample_height,
)

LENGTHS = (32, 33, 64, 96, 127, 224, 256, 448, 576)
TAUS = (0.1, 0.3, 0.5, 0.7, 0.9)


def adversarial_marginals(length: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Plateaus, ties, one-pixel peaks, peaks at borders, constants, steps of a tenth, extremes; (count, length)."""
    rows = []
    for k in range(count):
        kind = k % 9
        if kind == 0:
            row = rng.random(length)
        elif kind == 1:
            row = rng.integers(0, 3, length) / 2
        elif kind == 2:
            row = np.full(length, rng.choice([0.0, 0.3, 1.0]))
        elif kind == 3:
            row = np.zeros(length)
            row[rng.choice([0, length - 1, rng.integers(length)])] = 1
        elif kind == 4:
            row = np.repeat(rng.random(length // 8 + 1), 8)[:length]
        elif kind == 5:
            row = rng.integers(0, 11, length) / 10
        elif kind == 6:
            row = np.interp(np.arange(length), np.linspace(0, length - 1, 8), rng.random(8))
        elif kind == 7:
            row = np.zeros(length)
            for start in rng.integers(0, length - 4, 3):
                row[start : start + rng.integers(1, 5)] = 1
        else:
            row = rng.choice([-1e38, 1e38, 0.0], length) if k % 2 else 1e30 * rng.standard_normal(length)
        rows.append(row)
    return np.array(rows, np.float32)


@pytest.mark.parametrize("tau", TAUS)
def test_intervals_are_those_of_the_slow_definition_to_the_pixel(tau):
    # 9 lengths x 5 taus x 270 marginals = 12,150
    rng = np.random.default_rng(int(10 * tau))
    for length in LENGTHS:
        scores = adversarial_marginals(length, 270, rng)
        start, stop = (value.numpy() for value in find_interval(scores, tau))
        expected = np.array([find_interval_slowly(row, tau) for row in scores])
        np.testing.assert_array_equal(np.stack([start, stop], 1), expected)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=24),
    st.sampled_from([0.0, *TAUS]),
)
def test_short_marginals_too(scores, tau):
    scores = np.array(scores, np.float32)
    start, stop = find_interval(scores, tau)
    assert (int(start), int(stop)) == find_interval_slowly(scores, tau)


def test_a_length_unknown_to_the_graph_changes_nothing():
    dynamic = tf.function(
        lambda s: find_interval(s, 0.5), input_signature=[tf.TensorSpec([None, None], tf.float32)]
    )
    scores = adversarial_marginals(256, 90, np.random.default_rng(1))
    for one, other in zip(dynamic(scores), find_interval(scores, 0.5), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_range_that_overflows_float32_is_still_a_range():
    # Normalized: 0, 1, 1, 0.5 and so on; the run of the two maxima is wider than an eighth of 8.
    start, stop = find_interval(np.array([-3e38, 3e38, 3e38, 0, -3e38, -3e38, -3e38, -3e38], np.float32), 0.6)
    assert (int(start), int(stop)) == (1, 3)


@pytest.mark.parametrize(
    ("scores", "tau", "expected"),
    [
        ([0, 1, 1, 0, 0.9, 0.9, 0.9, 0], 0.5, (1, 3)),  # the run with the maximum, not the wider one
        ([1, 0, 1, 1, 0, 1, 1, 0], 0.5, (2, 4)),  # of several with it the widest, of those the first
        ([5, 5, 5, 5, 5, 5, 5, 5], 0.5, (1, 7)),  # constant: ceil(8/8) to ceil(7*8/8)
        ([5, 5, 5, 5, 5, 5, 5, 5], 0.0, (0, 8)),  # tau 0 goes before every other rule
        ([0.0] * 20 + [1.0] + [0.0] * 11, 0.5, (18, 22)),  # 1 px of 32 widened to 4: (20 + 21 - 4) // 2 = 18
        ([1.0] + [0.0] * 31, 0.5, (0, 4)),  # and kept inside
    ],
)
def test_the_rules_one_by_one(scores, tau, expected):
    start, stop = find_interval(np.array(scores, np.float32), tau)
    assert (int(start), int(stop)) == expected


@pytest.mark.parametrize("tau", [-0.1, 1.0, 1.5, float("nan")])
def test_tau_outside_its_range_is_refused(tau):
    with pytest.raises(ValueError, match=r"`tau` must lie in \[0, 1\)"):
        find_interval(np.zeros(8, np.float32), tau)


@pytest.mark.parametrize(
    ("cells", "pixels"), [((8, 8), (256, 256)), ((14, 9), (448, 300)), ((1, 3), (32, 96))]
)
def test_marginals_are_the_maxima_of_the_upsampled_map(cells, pixels):
    maps = np.random.default_rng(0).random((2, 3, *cells)).astype(np.float32)
    rows, columns = marginals(tf.constant(maps), *pixels)
    for b in range(2):
        for n in range(3):
            upsampled = resize(maps[b, n], *pixels)
            np.testing.assert_allclose(rows[b, n], upsampled.max(1), atol=1e-6)
            np.testing.assert_allclose(columns[b, n], upsampled.max(0), atol=1e-6)


def test_interpolation_has_aligned_corners():
    # 5 pixels over 3 cells: pixels 0, 2, 4 lie on the cells, 1 and 3 half way
    maps = tf.constant([8.0, 0, 4], shape=(1, 1, 3, 1))
    np.testing.assert_array_equal(upsample_height(maps, tf.range(5), 5)[0, 0, :, 0], [8, 4, 0, 2, 4])


@pytest.mark.parametrize("compiled", [False, True])
def test_constant_maps_and_plateaus_stay_what_they_are(compiled):
    """Weights (1 - f) and f of one value don't add up to it in float32, and a box would follow their rounding."""
    find = tf.function(lambda maps: localize(maps, 256, 192, 0.5), jit_compile=compiled)
    logits = np.random.default_rng(0).normal(0, 2, 64).astype(np.float32)
    constant = np.broadcast_to(logits[:, None, None], (64, 8, 6))
    np.testing.assert_array_equal(
        find(constant[np.newaxis])[0], [[32 / 256, 24 / 192, 224 / 256, 168 / 192]] * 64
    )
    stripes = np.minimum(constant, -10.0)
    stripes[:, :, 3] = logits[:, None]  # all rows alike, so nothing tells which are meant
    boxes = find(stripes[np.newaxis])[0]
    np.testing.assert_array_equal(boxes[:, 0], 32 / 256)
    np.testing.assert_array_equal(boxes[:, 2], 224 / 256)


def test_a_bright_cell_gives_a_box_around_it():
    maps = np.full((1, 1, 3, 3), -10.0, np.float32)
    maps[0, 0, 0, 2] = 10.0
    # The marginal over 9 px falls from 1 at the corner to 0 four px on; at tau 0.5 two px on are left: 3 of 9.
    np.testing.assert_allclose(localize(maps, 9, 9, 0.5), [[[0, 6 / 9, 3 / 9, 1]]], atol=1e-6)


def test_half_precision_maps_are_localized_in_float32():
    maps = tf.random.stateless_normal((2, 4, 7, 7), seed=(0, 0))
    low = tf.cast(maps, tf.float16)
    np.testing.assert_array_equal(localize(low, 64, 64, 0.5), localize(tf.cast(low, tf.float32), 64, 64, 0.5))


def test_nothing_as_large_as_the_upsampled_maps_is_made():
    concrete = tf.function(lambda maps: localize(maps, 448, 448, 0.5)).get_concrete_function(
        tf.TensorSpec([8, 4, 14, 14], tf.float32)
    )
    sizes = [
        t.shape.num_elements() for op in concrete.graph.get_operations() for t in op.outputs if t.shape.rank
    ]
    assert max(size for size in sizes if size) <= 8 * 4 * 448 * 448 / 10
    assert not any(op.type.endswith("While") for op in concrete.graph.get_operations())


@pytest.mark.parametrize("spread", [0.5, 1.8, 3.0])
def test_intervals_of_moments_are_those_of_the_slow_definition(spread):
    rng = np.random.default_rng(0)
    for length in LENGTHS:
        scores = adversarial_marginals(length, 90, rng)
        scores = scores[np.abs(scores).max(1) < 1e6]  # float32 holds no squares of the rest
        start, stop = (value.numpy() for value in spread_interval(scores, spread))
        expected = np.array([spread_interval_slowly(row, spread) for row in scores])
        np.testing.assert_allclose(np.stack([start, stop], 1), expected, atol=2e-3)
        assert (stop - start >= length / 8 - 1e-4).all()


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (
            [0] * 8 + [1] * 16 + [0] * 8,
            (8, 24),
        ),  # evenly filled: sqrt(3) deviations are the stretch, to a half pixel
        ([1] * 4 + [0] * 28, (0, 4)),
        ([7] * 32, (4, 28)),  # constant: the middle three quarters
        ([0] * 16 + [1] + [0] * 15, (14.5, 18.5)),  # one pixel, widened to an eighth about its middle
        ([1] + [0] * 31, (0, 4)),  # and kept inside
    ],
)
def test_the_rules_of_moments_one_by_one(scores, expected):
    start, stop = spread_interval(np.array(scores, np.float32), np.sqrt(3.0))
    assert (float(start), float(stop)) == pytest.approx(expected, abs=0.05)


def test_half_a_level_of_noise_moves_a_box_of_moments_little_where_it_moves_the_papers_across_the_image():
    # Two peaks of nearly one height: which is the higher one is noise.
    cells = np.full((2, 1, 1, 5), -3.0, np.float32)
    cells[0, 0, 0, :] = [0.01, -3, -3, -3, 0.0]
    cells[1, 0, 0, :] = [0.0, -3, -3, -3, 0.01]
    papers, moments = (
        localize(cells, 64, 64, 0.5, localizer=rule).numpy()[:, 0, 1::2] for rule in ("threshold", "moments")
    )
    assert np.abs(papers[0] - papers[1]).max() > 0.5
    assert np.abs(moments[0] - moments[1]).max() < 0.01


@pytest.mark.parametrize("localizer", ["threshold", "moments"])
def test_a_floor_in_cells_widens_small_boxes_alone(localizer):
    maps = np.full((1, 2, 8, 4), -10.0, np.float32)
    maps[0, 0, 3, 1] = 10.0
    maps[0, 1, :, 3] = 10.0  # the whole height, the last column
    free = localize(maps, 64, 64, 0.8, localizer=localizer).numpy()
    least = localize(maps, 64, 64, 0.8, localizer=localizer, min_box_cells=3).numpy()
    height, width = np.moveaxis(least[..., 2:] - least[..., :2], -1, 0)
    assert (height >= 3 / 8 - 1e-6).all()
    assert (width >= 3 / 4 - 1e-6).all()
    assert (least[..., :2] <= free[..., :2] + 1e-6).all()
    assert (least[..., 2:] >= free[..., 2:] - 1e-6).all()
    assert least[0, 1, 1] == 0.25  # kept inside
    np.testing.assert_array_equal(least[0, 1, ::2], free[0, 1, ::2])


def test_a_floor_of_more_cells_than_a_map_has_is_the_whole_image():
    maps = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)
    np.testing.assert_array_equal(localize(maps, 32, 32, 0.5, min_box_cells=9), [[[0, 0, 1, 1]] * 3])


@pytest.mark.parametrize("compiled", [False, True])
def test_moments_of_sizes_that_the_graph_does_not_know(compiled):
    maps = np.random.default_rng(0).standard_normal((2, 3, 5, 5)).astype(np.float32)
    find = tf.function(
        lambda maps: localize(maps, 80, 80, 0.5, localizer="moments", min_box_cells=2),
        input_signature=[tf.TensorSpec([None, None, None, None], tf.float32)],
        jit_compile=compiled,
    )
    expected = localize(maps, 80, 80, 0.5, localizer="moments", min_box_cells=2)
    np.testing.assert_allclose(find(maps), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("median", 0.5, 1.8, 0), r"`localizer` must be one of threshold, moments. Received: 'median'"),
        (("threshold", 1.0, 1.8, 0), r"`tau` must lie in \[0, 1\)"),
        (("moments", 0.5, 0.0, 0), r"`box_spread` must be positive. Received: 0.0"),
        (("moments", 0.5, 1.8, -1), r"`min_box_cells` must not be negative. Received: -1"),
    ],
)
def test_rules_that_are_none_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        check_localizer(*values)
