"""Which regions are looked at again, against a slow definition."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from mcar_tf.evaluating.looks import count_looks, doubt_of
from mcar_tf.models.band import check_looks
from mcar_tf.models.mcar import build_mcar
from mcar_tf.models.selection import choose_in_band
from mcar_tf.models.selection import doubt_of as doubt_of_logits


def build(look_band=None, **options):
    keras.utils.set_random_seed(3)
    options = {"image_size": 32, "top_n": 3, "weights": None, "backbone_width": 0.5} | options
    model = build_mcar(5, "tiny_resnet", look_band=look_band, **options)
    kernel, bias = model.classifier.get_weights()
    model.classifier.set_weights([20 * kernel, bias])
    return model


def like(model, look_band=None, **options):
    """A model of the same weights with other options: one seed gives other weights after other tests."""
    other = build(look_band, **options)
    other.set_weights(model.get_weights())
    return other


def pictures(count=6):
    noise = tf.random.stateless_uniform((count, 6, 6, 3), (0, 0), 0, 255)
    return tf.image.resize(noise, (32, 32), "bicubic")


BAND = (0.2, 0.8)


@pytest.fixture(scope="module")
def whole():
    return build()


@pytest.fixture(scope="module")
def banded(whole):
    return like(whole, BAND)


def slow_answer(whole, images, band, top_n, fusion="max"):
    """One picture after another, one region after another; the model looks at one region of one picture at a time."""
    features, logits = whole.global_pass(images, training=False)  # together: a rounding error can move a box
    answers = []
    for i, (image, x) in enumerate(zip(images, logits.numpy(), strict=True)):
        probs = 1 / (1 + np.exp(-x))
        ranked = sorted(range(len(x)), key=lambda c: -x[c])
        inside = [c for c in ranked if band[0] <= probs[c] <= band[1]]
        classes = (inside + [c for c in ranked if c not in inside])[:top_n]
        boxes = whole.find_boxes(features[i : i + 1], tf.constant([classes]), image[np.newaxis]).numpy()[0]
        regions = []
        for c, box in zip(classes, boxes, strict=True):
            seen = whole.look_at(image[np.newaxis], box[np.newaxis, np.newaxis]).numpy()[0, 0]
            regions.append(seen if c in inside else x)
        local = np.max(regions, axis=0)
        fused = np.maximum(x, local) if fusion == "max" else (x + local) / 2
        answers.append(
            {
                "box_classes": classes,
                "boxes": boxes,
                "local_probs": 1 / (1 + np.exp(-local)),
                "probs": 1 / (1 + np.exp(-fused)),
                "box_probs": [1 / (1 + np.exp(-r[c])) for r, c in zip(regions, classes, strict=True)],
                "looks": len(inside[:top_n]),
            }
        )
    return {name: np.array([answer[name] for answer in answers]) for name in answers[0]}


@pytest.mark.parametrize("regions_at_once", [None, 2])
def test_only_classes_in_the_band_are_looked_at(whole, banded, regions_at_once):
    images = pictures()
    expected = slow_answer(whole, images, BAND, 3)
    assert 0 < expected["looks"].mean() < 3
    found = banded(images, regions_at_once=regions_at_once)
    for name in ("box_classes", "boxes", "local_probs", "probs", "box_probs"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4, err_msg=name)
    looks = count_looks(found["global_probs"].numpy(), found["box_classes"].numpy(), BAND)
    assert looks.tolist() == expected["looks"].tolist()


def test_the_whole_range_is_no_band(whole):
    images = pictures()
    expected, found = whole(images), like(whole, (0.0, 1.0))(images)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5, err_msg=name)


def test_where_nothing_is_looked_at_the_first_look_is_the_answer(whole):
    images = pictures()
    found = like(whole, (0.49999, 0.5), fusion="mean")(images)
    for name in ("probs", "local_probs"):
        np.testing.assert_allclose(found[name], found["global_probs"], atol=1e-6)
    np.testing.assert_allclose(found["global_probs"], whole(images)["global_probs"], atol=1e-6)


def test_only_what_is_looked_at_is_computed(banded, monkeypatch):
    images, seen = pictures(), []
    local_pass = banded.local_pass
    monkeypatch.setattr(
        banded, "local_pass", lambda crops, t: seen.append(len(crops)) or local_pass(crops, t)
    )
    found = banded(images)
    looks = count_looks(found["global_probs"].numpy(), found["box_classes"].numpy(), BAND)
    assert seen == [looks.sum()]
    assert 0 < looks.sum() < 6 * 3


def test_training_looks_at_all_regions(whole, banded):
    images = pictures()
    expected, found = (model.forward(images, training=True).region_logits for model in (whole, banded))
    np.testing.assert_allclose(found, expected, atol=1e-4)


LOGITS = st.floats(-4, 4, width=32, allow_subnormal=False)  # processors flush what is smaller to zero


@given(st.lists(LOGITS, min_size=4, max_size=4), st.floats(0, 0.5), st.floats(0.51, 1))
@settings(max_examples=30, deadline=None)
def test_chosen_are_those_in_the_band_then_the_others_each_by_rank(logits, low, high):
    logits = np.array(logits, np.float32)
    probs = tf.sigmoid(logits).numpy()
    expected = sorted(
        range(4), key=lambda c: (not np.float32(low) <= probs[c] <= np.float32(high), -logits[c])
    )
    found = choose_in_band(tf.constant([logits]), tf.constant([logits]), (low, high), 3)
    assert found.numpy()[0].tolist() == expected[:3]


@pytest.mark.parametrize(
    ("band", "said"),
    [
        ((0.9, 0.1), "ascending probabilities in [0, 1], such as 0.1 0.9. Received: 0.9 0.1"),
        ((0.1, 1.5), "such as 0.05 0.95. Received: 0.1 1.5"),
        ((0.1, 0.1), "such as 0.05 0.95. Received: 0.1 0.1"),
        ((0.1, 0.5, 0.9), "such as 0.05 0.95. Received: 0.1 0.5 0.9"),
        ((float("nan"), 0.5), "such as 0.05 0.95. Received: nan 0.5"),
    ],
)
def test_what_is_no_band_is_refused_with_one_that_works(band, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        check_looks(band, 0.0, 4)


def test_a_band_without_regions_is_refused():
    with pytest.raises(ValueError, match="`look_band` does nothing with `top_n` 0"):
        check_looks((0.1, 0.9), 0.0, 0)


@given(st.lists(st.floats(-30, 30, width=32), min_size=4, max_size=4))
@settings(max_examples=30, deadline=None)
def test_the_doubt_is_the_entropy_of_the_classes_in_bits(logits):
    expected = 0.0
    for x in np.float64(logits):
        for p in (1 / (1 + np.exp(-x)), 1 / (1 + np.exp(x))):
            expected -= p * np.log2(p)
    assert doubt_of_logits(tf.constant([logits])).numpy()[0] == pytest.approx(expected, abs=1e-5)
    probs = tf.sigmoid(tf.constant([logits])).numpy()
    assert doubt_of(probs)[0] == pytest.approx(expected, abs=1e-4)


def test_a_class_at_one_half_is_a_bit_of_doubt_and_a_certain_one_none():
    logits = tf.constant([[0.0, 0.0, 0.0], [100.0, -100.0, 0.0], [1000.0, -1000.0, 1000.0]])
    np.testing.assert_allclose(doubt_of_logits(logits), [3.0, 1.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("regions_at_once", [None, 2])
@pytest.mark.parametrize(("fusion", "fuse"), [("max", np.maximum), ("mean", lambda a, b: (a + b) / 2)])
def test_only_pictures_in_doubt_are_looked_at_again(whole, regions_at_once, fusion, fuse):
    images = pictures()
    once = whole(images)
    doubt = doubt_of(once["global_probs"].numpy())
    least = float(np.sort(doubt)[3])  # of six pictures three have more, one has just as much
    boxes = once["boxes"]  # a rounding error could move them, and what is seen in them by much
    found = like(whole, look_doubt=least - 1e-4, fusion=fusion)(
        images, boxes=boxes, regions_at_once=regions_at_once
    )
    x, local = (value.numpy() for value in whole.forward(images, False, boxes).logits.values())
    for i in range(6):
        looked = doubt[i] >= least - 1e-4
        expected = fuse(x[i], local[i]) if looked else x[i]
        np.testing.assert_allclose(found["probs"][i], tf.sigmoid(expected), atol=1e-4)
    looks = count_looks(found["global_probs"].numpy(), found["box_classes"].numpy(), None, least - 1e-4)
    assert sorted(looks.tolist()) == [0, 0, 0, 3, 3, 3]


def test_pictures_without_doubt_are_not_computed_again(monkeypatch):
    model, images, seen = build(look_doubt=3.0), pictures(), []
    doubt = doubt_of(model.glance(images)["global_probs"].numpy())
    monkeypatch.setattr(model, "look_doubt", float(np.sort(doubt)[4]) - 1e-4)
    local_pass = model.local_pass
    monkeypatch.setattr(model, "local_pass", lambda crops, t: seen.append(len(crops)) or local_pass(crops, t))
    model(images)
    assert seen == [2 * 3]


def test_with_a_band_too_both_must_ask_for_the_look(whole):
    images = pictures()
    least = float(np.median(doubt_of(whole(images)["global_probs"].numpy())))
    found = like(whole, BAND, look_doubt=least)(images)
    looks = count_looks(found["global_probs"].numpy(), found["box_classes"].numpy(), BAND, least)
    by_band = count_looks(found["global_probs"].numpy(), found["box_classes"].numpy(), BAND)
    assert ((looks == 0) | (looks == by_band)).all()
    assert 0 < looks.sum() < by_band.sum()
    np.testing.assert_allclose(found["probs"][looks == 0], found["global_probs"][looks == 0], atol=1e-6)


@pytest.mark.parametrize("doubt", [-1.0, float("nan"), float("inf")])
def test_what_is_no_doubt_is_refused(doubt):
    with pytest.raises(ValueError, match=r"`look_doubt` must be 0 or more, in bits\. Received: (-1|nan|inf)"):
        check_looks(None, doubt, 4)


def test_a_doubt_without_regions_is_refused():
    with pytest.raises(ValueError, match="`look_doubt` does nothing with `top_n` 0"):
        check_looks(None, 1.0, 0)
