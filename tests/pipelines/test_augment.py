import itertools
import typing

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance

from pipelines.augment import (
    JITTER,
    UNSEEDED,
    Policy,
    crop_at_random,
    jitter_colors,
    make_augmentation,
    picture_seed,
)

POLICIES = typing.get_args(Policy)
SEEDED = [policy for policy in POLICIES if policy not in UNSEEDED]


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.float32)


# Of `jitter_colors`' six orders: b brightness, c contrast, s saturation.
ORDERS = ["bcs", "bsc", "cbs", "csb", "sbc", "scb"]
# `PIL.ImageEnhance` is what torchvision's ColorJitter does to a PIL image.
ENHANCE = {"b": ImageEnhance.Brightness, "c": ImageEnhance.Contrast, "s": ImageEnhance.Color}


@pytest.mark.parametrize("order", range(6))
@pytest.mark.parametrize("factors", [(0.7, 1.3, 0.7), (1.3, 0.7, 1.3), (1.3, 1.3, 1.3)])
def test_jitter_is_pillows_enhancements_in_that_order(image, order, factors):
    expected = Image.fromarray(image.astype(np.uint8))
    for letter in ORDERS[order]:
        expected = ENHANCE[letter](expected).enhance(factors["bcs".index(letter)])
    ours = jitter_colors(tf.constant(image), tf.constant(factors), tf.constant(order)).numpy()
    difference = np.abs(ours - np.asarray(expected, np.float32))
    # Pillow cuts to whole levels in each of three steps, and a later step enlarges by up to 1.6 what was cut off.
    assert difference.max() <= 1 + 1.6 + 1.6**2
    assert difference.mean() < 1.5


def test_factors_of_one_change_nothing(image):
    for order in range(6):
        np.testing.assert_allclose(jitter_colors(image, tf.ones(3), tf.constant(order)), image, atol=1e-4)


def seed(picture: str, run: int = 0, epoch: int = 0) -> tf.Tensor:
    return picture_seed(run, epoch, tf.constant(picture))


@pytest.mark.parametrize("policy", SEEDED)
def test_the_same_seed_gives_the_same_picture_in_range(image, policy):
    change = tf.function(make_augmentation(policy))
    first = change(image, seed("a")).numpy()
    np.testing.assert_array_equal(change(image, seed("a")).numpy(), first)
    assert first.shape == image.shape
    assert first.min() >= 0
    assert first.max() <= 255


@pytest.mark.parametrize("policy", [p for p in SEEDED if p not in ("none", "flip")])
def test_run_epoch_and_picture_each_change_the_outcome(image, policy):
    change = tf.function(make_augmentation(policy))
    outcomes = [
        change(image, s).numpy() for s in (seed("a"), seed("b"), seed("a", run=1), seed("a", epoch=1))
    ]
    for one, other in itertools.combinations(outcomes, 2):
        assert np.abs(one - other).max() > 1


def test_the_global_seed_changes_nothing(image):
    change = make_augmentation("paper")
    outcomes = []
    for global_seed in (1, 2):
        tf.random.set_seed(global_seed)
        outcomes.append(change(image, seed("a")).numpy())
    np.testing.assert_array_equal(*outcomes)


def test_none_changes_nothing(image):
    assert make_augmentation("none")(image, seed("a")) is image


def test_half_of_the_pictures_are_mirrored_and_nothing_else(image):
    change = tf.function(make_augmentation("flip"))
    mirrored = 0
    for i in range(200):
        outcome = change(image, seed(str(i))).numpy()
        if np.array_equal(outcome, image[:, ::-1]):
            mirrored += 1
        else:
            np.testing.assert_array_equal(outcome, image)
    assert 72 <= mirrored <= 128  # binomial, 4 sigma


def test_color_never_mirrors():
    ramp = np.tile(np.linspace(50, 150, 16, dtype=np.float32)[None, :, None], (16, 1, 3))
    change = tf.function(make_augmentation("color"))
    for i in range(10):
        assert (np.diff(change(ramp, seed(str(i))).numpy()[0, :, 0]) > 0).all()


def test_brightness_is_drawn_evenly_from_its_range():
    grey = np.full((4, 4, 3), 100, np.float32)  # neither contrast nor saturation change a grey surface
    change = tf.function(make_augmentation("color"))
    factors = np.array([change(grey, seed(str(i))).numpy().mean() / 100 for i in range(300)])
    assert factors.min() == pytest.approx(1 - JITTER, abs=0.02)
    assert factors.max() == pytest.approx(1 + JITTER, abs=0.02)
    assert factors.mean() == pytest.approx(1, abs=4 * 0.3 / np.sqrt(3 * 300))  # 4 sigma of the mean


def test_a_crop_is_a_part_of_the_picture_enlarged():
    """Pixels hold their own place, so a crop says where its corners were."""
    side = 33
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    image = np.stack([rows, columns, np.full_like(rows, 200)], axis=-1)
    areas, aspects, starts = [], [], []
    for i in range(200):
        crop = crop_at_random(tf.constant(image), seed(str(i))).numpy()
        top, left, bottom, right = crop[0, 0, 0], crop[0, 0, 1], crop[-1, -1, 0], crop[-1, -1, 1]
        # Bilinear, from corner to corner; nothing beyond the picture, which the op would paint black.
        down, across = np.linspace(top, bottom, side), np.linspace(left, right, side)
        np.testing.assert_allclose(crop[..., 0], np.tile(down[:, None], side), atol=1e-3)
        np.testing.assert_allclose(crop[..., 1], np.tile(across, (side, 1)), atol=1e-3)
        np.testing.assert_allclose(crop[..., 2], 200, atol=1e-3)
        height, width = (bottom - top) / (side - 1), (right - left) / (side - 1)
        areas.append(height * width)
        aspects.append(width / height)
        starts.append((top / (side - 1) / max(1 - height, 1e-6), left / (side - 1) / max(1 - width, 1e-6)))
    # A side can't be longer than the picture's, so the largest crops of a narrow aspect lose area.
    assert 0.4 - 1e-4 <= min(areas) < 0.45
    assert 0.95 < max(areas) <= 1 + 1e-4
    assert 3 / 4 - 1e-4 <= min(aspects) < 0.8
    assert 1.25 < max(aspects) <= 4 / 3 + 1e-4
    assert np.mean(starts) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("policy", ["crop", "crop_cutout"])
def test_a_crop_is_then_changed_as_without_it(image, policy):
    """The crop has numbers of its own, so that those of mirroring and colours are `paper`'s."""
    name = policy.replace("crop_", "").replace("crop", "paper")
    cropped, usual = (tf.function(make_augmentation(p)) for p in (policy, name))
    for i in range(5):
        part = crop_at_random(tf.constant(image), tf.random.experimental.stateless_fold_in(seed(str(i)), 1))
        np.testing.assert_allclose(cropped(image, seed(str(i))), usual(part, seed(str(i))), atol=1e-3)


def test_cutout_paints_one_grey_rectangle_of_a_small_part(image):
    change = tf.function(make_augmentation("cutout"))
    for i in range(10):
        painted = (change(image, seed(str(i))).numpy() == 127.5).all(-1)
        rows, columns = np.flatnonzero(painted.any(1)), np.flatnonzero(painted.any(0))
        assert painted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert 0 < painted.mean() <= 0.3


def test_randaugment_and_cutout_are_the_one_after_the_other_each_with_numbers_of_its_own(image):
    policies = ("randaugment", "cutout", "randaugment_cutout")
    alone, cutout, both = (tf.function(make_augmentation(policy)) for policy in policies)
    for i in range(5):
        augmented, outcome = alone(image, seed(str(i))).numpy(), both(image, seed(str(i))).numpy()
        painted = (outcome == 127.5).all(-1)
        assert 0 < painted.mean() <= 0.3
        np.testing.assert_array_equal(outcome[~painted], augmented[~painted])
        # With the numbers that RandAugment took, the rectangle would lie where that of `cutout` lies.
        assert not np.array_equal(painted, (cutout(image, seed(str(i))).numpy() == 127.5).all(-1))


def test_gridmask_paints_grey_squares_in_a_pipeline_and_draws_them_anew_each_time():
    image = np.random.default_rng(0).integers(0, 100, (64, 64, 3)).astype(np.float32)
    change = make_augmentation("gridmask")
    dataset = tf.data.Dataset.range(8).map(lambda _: change(tf.constant(image), seed("a")))
    outcomes = [outcome.numpy() for outcome in dataset]
    painted = [(outcome == 128).all(-1) for outcome in outcomes]
    assert 0.01 < np.mean(painted) < 0.5
    assert not np.array_equal(painted[0], painted[1])
    unpainted = [
        np.where(mask[..., None], 0, outcome) for mask, outcome in zip(painted, outcomes, strict=True)
    ]
    both = ~(painted[0] | painted[1])[..., None]
    np.testing.assert_array_equal(unpainted[0] * both, unpainted[1] * both)  # all else follows from the seed


@pytest.mark.parametrize("policy", ["cutout", "gridmask", "randaugment"])
def test_a_model_in_half_precision_does_not_coarsen_its_pictures(policy):
    import keras

    # Levels that half precision rounds: above 128 it has steps of an eighth.
    image = np.full((32, 32, 3), 200.06, np.float32)
    usual = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        from pipelines import policies

        make = {"cutout": policies.make_cutout, "gridmask": policies.make_grid_mask}.get(
            policy, policies.make_rand_augment
        )
        changed = make()(tf.constant(image), seed("a"))
    finally:
        keras.config.set_dtype_policy(usual)
    assert changed.dtype == tf.float32
    if policy != "randaugment":
        assert np.float32(200.06) in changed.numpy()


def test_an_unknown_policy_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError,
        match=r"none, flip, color, paper, crop, crop_cutout, cutout, gridmask, randaugment, randaugment_cutout\. "
        "Received: 'mixup'",
    ):
        make_augmentation("mixup")
