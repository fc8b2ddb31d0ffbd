import numpy as np
import pytest
from oracles import resize

from mcar_tf.models.crop import crop_and_resize, crop_and_resize_portable

FORMS = [crop_and_resize, crop_and_resize_portable]


@pytest.mark.parametrize("crop", FORMS)
@pytest.mark.parametrize("side", [32, 97, 256, 448])
def test_box_of_the_whole_image_gives_the_image(crop, side):
    image = np.random.default_rng(0).uniform(0, 255, (1, side, side, 3)).astype(np.float32)
    whole = np.array([[[0, 0, 1, 1]]], np.float32)
    np.testing.assert_allclose(crop(image, whole, side)[:, 0], image, atol=255e-4)


@pytest.mark.parametrize("crop", FORMS)
def test_box_of_the_crops_own_size_gives_the_slice(crop):
    image = np.random.default_rng(0).uniform(0, 255, (1, 40, 60, 3)).astype(np.float32)
    box = np.array([[[8 / 40, 44 / 60, 24 / 40, 60 / 60]]], np.float32)  # down to the right edge
    np.testing.assert_allclose(crop(image, box, 16)[0, 0], image[0, 8:24, 44:60], atol=255e-4)


@pytest.mark.parametrize("crop", FORMS)
@pytest.mark.parametrize(
    ("height", "width", "size"), [(64, 64, 64), (96, 128, 48), (45, 33, (20, 31)), (30, 80, (40, 31))]
)
def test_crops_are_bilinear_with_aligned_corners(crop, height, width, size):
    rng = np.random.default_rng(1)
    images = rng.random((2, height, width, 3), np.float32)
    start = rng.integers(0, 20, (2, 40, 2))
    stop = np.minimum(start + rng.integers(1, 60, (2, 40, 2)), [height, width])
    stop[:, ::5] = [height, width]
    boxes = np.concatenate([start / [height, width], stop / [height, width]], -1).astype(np.float32)
    crops = crop(images, boxes, size).numpy()
    sides = (size, size) if isinstance(size, int) else size
    assert crops.shape == (2, 40, *sides, 3)
    for b in range(2):
        for n in range(40):
            (top, left), (bottom, right) = start[b, n], stop[b, n]
            expected = resize(images[b, top:bottom, left:right], *sides)
            np.testing.assert_allclose(crops[b, n], expected, atol=1e-4)


def test_the_two_forms_agree_on_boxes_of_any_fraction():
    rng = np.random.default_rng(2)
    images = rng.random((3, 224, 160, 3), np.float32)
    corners = np.sort(rng.random((3, 50, 2, 2)), axis=2)
    boxes = np.concatenate([corners[:, :, 0] * 0.8, 0.1 + corners[:, :, 1] * 0.9], -1).astype(np.float32)
    one, other = crop_and_resize(images, boxes, 64), crop_and_resize_portable(images, boxes, 64)
    np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("crop", FORMS)
def test_no_regions_give_no_crops(crop):
    assert crop(np.zeros((2, 8, 8, 3), np.float32), np.zeros((2, 0, 4), np.float32), 8).shape == (
        2,
        0,
        8,
        8,
        3,
    )
