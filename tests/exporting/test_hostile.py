"""What a server and a phone are sent by accident or on purpose: an error or an answer each time, never a crash."""

import io
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hostile import file_of, hostile_bytes, too_large
from PIL import Image

from mcar_tf.exporting import saved_model
from mcar_tf.exporting.saved_model import write_saved_model
from mcar_tf.exporting.tflite import convert_tflite, load_runner
from pipelines.decode import decode_and_resize
from pipelines.headers import read_size

CLASSES = ("cat", "dog", "sheep", "Tür", "potted plant")
# The whole number of inputs is for the slow run.
COUNTS = [60, pytest.param(2000, marks=pytest.mark.slow)]
REFUSALS = (tf.errors.OpError, TypeError, ValueError)
LONGEST_SECONDS = 10
# What allocators and threads may come to hold beyond what they held after a tenth of the inputs.
GROWTH_MIB = 100


@pytest.fixture(scope="module")
def signatures(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "1"
    write_saved_model(model, CLASSES, folder)
    return tf.saved_model.load(str(folder)).signatures


@pytest.fixture(scope="module")
def content(model):
    return convert_tflite(model)


def resident_mib():
    status = dict(row.split(":", 1) for row in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) / 1024


def check(outputs):
    """An answer: probabilities, and boxes inside the picture."""
    for name in ("probs", "global_probs", "local_probs", "box_probs"):
        assert ((outputs[name] >= 0) & (outputs[name] <= 1)).all()
    boxes = outputs["boxes"]
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert (boxes[..., :2] <= boxes[..., 2:]).all()


@pytest.mark.parametrize("count", COUNTS)
def test_a_server_answers_or_refuses_whatever_bytes_it_gets(signatures, count):
    good = file_of(np.full((30, 40, 3), 90, np.uint8))
    serve = signatures["serving_default"]
    expected = serve(encoded=tf.constant([good]))["probs"].numpy()[0]
    answers = refused = held = 0
    for i, data in enumerate(hostile_bytes(count)):
        started = time.monotonic()
        outputs = {name: value.numpy() for name, value in serve(encoded=tf.constant([data, good])).items()}
        assert time.monotonic() - started < LONGEST_SECONDS
        check(outputs)
        answers += outputs["valid"][0]
        refused += not outputs["valid"][0]
        assert outputs["valid"][1]
        np.testing.assert_allclose(outputs["probs"][1], expected, atol=1e-5)
        if i == count // 10:
            held = resident_mib()
    assert answers > count // 20
    assert refused > count // 4
    assert resident_mib() - held < GROWTH_MIB


def test_a_server_refuses_a_picture_of_too_many_pixels(signatures):
    data = too_large()
    assert len(data) < 10_000
    for name in ("serving_default", "global_only"):
        outputs = signatures[name](encoded=tf.constant([data, file_of(np.full((30, 40, 3), 90, np.uint8))]))
        assert outputs["valid"].numpy().tolist() == [False, True]
        assert (outputs["global_probs"].numpy()[0] == 0).all()


def test_a_scan_bomb_delays_nobody(signatures):
    """Ten thousand scans of a picture of 0.8 megapixels: decoding them takes 12 s here, and there are worse."""
    file = io.BytesIO()
    Image.new("L", (1024, 768), 128).save(file, "JPEG", progressive=True)
    *before, last = file.getvalue().removesuffix(b"\xff\xd9").split(b"\xff\xda")
    bomb = b"\xff\xda".join([*before, *[last] * 10_000]) + b"\xff\xd9"
    good = file_of(np.full((30, 40, 3), 90, np.uint8))
    for name in ("serving_default", "global_only", "classify"):
        started = time.process_time()
        outputs = signatures[name](encoded=tf.constant([bomb, good]))
        assert time.process_time() - started < 5
        assert outputs["valid"].numpy().tolist() == [False, True]


def test_a_server_refuses_an_animation(signatures):
    """TensorFlow's decoder of WebP writes past its memory for one without transparent parts."""
    frames = [Image.new("RGB", (30, 40), color) for color in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    still = file_of(np.full((30, 40, 3), 90, np.uint8), "WEBP")
    outputs = signatures["global_only"](encoded=tf.constant([file.getvalue(), still]))
    assert outputs["valid"].numpy().tolist() == [False, True]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "MPO"])
def test_a_server_turns_pictures_of_every_format_upright(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.zeros((32, 32, 3), np.uint8)
    stored[:, :16] = 255  # white on the left, which belongs on top
    options = {"save_all": True, "append_images": [Image.new("RGB", (8, 8))]} if kind == "MPO" else {}
    options |= {"lossless": True} if kind == "WEBP" else {}
    images, valid = saved_model.decode_pictures(
        tf.constant([file_of(stored, kind, exif=exif, **options)]), 32
    )
    assert valid.numpy().tolist() == [True]
    assert images[0, :14].numpy().min() > 250
    assert images[0, 18:].numpy().max() < 5


def test_what_is_too_large_is_not_decoded_to_find_out(monkeypatch):
    decoded = []

    def recorded(encoded, *rest):
        with tf.control_dependencies(
            [tf.py_function(lambda data: decoded.append(data.numpy()), [encoded], [])]
        ):
            return decode_and_resize(encoded, *rest)

    monkeypatch.setattr(saved_model, "decode_and_resize", recorded)
    monkeypatch.setattr(saved_model, "MAX_MEGAPIXELS", 30 * 40 / 1e6)
    pixels, more = np.full((30, 40, 3), 90, np.uint8), np.full((30, 41, 3), 90, np.uint8)
    exact = [file_of(pixels), file_of(pixels, "PNG"), file_of(pixels, mode="CMYK")]
    above = [
        file_of(more),
        file_of(more, "PNG"),
        file_of(more, "PNG", mode="1"),
        file_of(more, progressive=True),
    ]
    _, valid = saved_model.decode_pictures(tf.constant(exact + above), 32)
    assert valid.numpy().tolist() == [True] * 3 + [False] * 4
    assert sorted(decoded) == sorted(exact)


def test_sides_that_fill_all_their_bits_are_not_few_pixels():
    png = file_of(np.zeros((5, 5, 3), np.uint8), "PNG")
    for sides in (b"\xff" * 8, b"\x80" + bytes(3) + b"\x80" + bytes(3)):
        height, width = read_size(tf.constant(png[:16] + sides + png[24:]))
        assert height * width > 10**18


def test_a_server_refuses_what_is_not_of_its_type(signatures):
    good = file_of(np.full((30, 40, 3), 90, np.uint8))
    for wrong in (
        {"encoded": tf.constant(good)},
        {"encoded": tf.constant([[good]])},
        {"encoded": tf.constant([1.0])},
        {"encoded": tf.constant([], tf.string)},
        {"images": tf.constant([good])},
        {},
    ):
        with pytest.raises(REFUSALS):
            signatures["serving_default"](**wrong)
    for wrong in (
        {"images": tf.zeros((2, 30, 40, 3))},
        {"images": tf.zeros((30, 40, 3), tf.uint8)},
        {"images": tf.zeros((2, 30, 40, 4), tf.uint8)},
        {"images": tf.zeros((2, 0, 40, 3), tf.uint8)},
        {"images": tf.constant([good])},
    ):
        with pytest.raises(REFUSALS):
            signatures["serve_tensor"](**wrong)


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (1, 20_000, 1, 3), (1, 1, 20_000, 3), (3, 7, 5, 3)])
def test_a_server_takes_pixels_of_any_size(signatures, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    outputs = signatures["serve_tensor"](images=tf.constant(pixels))
    check({name: value.numpy() for name, value in outputs.items()})


@pytest.mark.parametrize("count", COUNTS)
def test_a_phone_answers_or_refuses_whatever_numbers_it_gets(content, count):
    rng = np.random.default_rng(0)
    runner = load_runner(content)
    picture = rng.uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    expected = runner(image=picture)
    answers = refused = held = 0
    for i in range(count):
        image = hostile_numbers(rng, picture)
        started = time.monotonic()
        try:
            outputs = runner(image=image)
        except (*REFUSALS, RuntimeError):
            refused += 1
        else:
            answers += 1
            assert outputs["boxes"].shape == (1, 2, 4)
            # Of numbers that are none nothing can be said, but boxes are boxes.
            check(
                {
                    name: np.nan_to_num(value, nan=0.5) if "probs" in name else value
                    for name, value in outputs.items()
                }
            )
        assert time.monotonic() - started < LONGEST_SECONDS
        if i == count // 10:
            held = resident_mib()
    assert answers > count // 4
    assert refused > count // 8
    assert resident_mib() - held < GROWTH_MIB
    # Nothing of it stays behind.
    for name, value in runner(image=picture).items():
        np.testing.assert_array_equal(value, expected[name])


def hostile_numbers(rng, picture):
    """A picture with numbers that no camera gives, or of another shape or type."""
    kind = rng.integers(8)
    if kind == 0:
        return rng.uniform(-1e38, 1e38, picture.shape).astype(np.float32)
    if kind == 1:
        return rng.integers(0, 2**32, picture.shape, np.uint32).view(np.float32)  # any bits at all
    if kind == 2:
        return np.full_like(picture, rng.choice([0, -1, 1e-45, np.inf, -np.inf, np.nan]))
    if kind == 3:
        spoilt = picture.copy()
        spoilt.flat[rng.integers(0, picture.size, 5)] = rng.choice([np.nan, np.inf, -1e30])
        return spoilt
    if kind == 4:
        return picture.astype(rng.choice([np.uint8, np.float64, np.int32]))
    if kind == 5:
        return picture[0]
    if kind == 6:
        return np.zeros((1, *rng.integers(0, 40, 2), 3), np.float32)
    return picture[:, ::-1] * rng.uniform(0, 2)
