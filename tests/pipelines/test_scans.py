"""Which JPEGs are refused for their number of scans."""

import io
import time

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.scans import MAX_SCANS, START_OF_SCAN, has_too_many_scans, has_too_many_scans_in_graph


def jpeg(size=(64, 48), **options):
    file = io.BytesIO()
    Image.new("RGB", size, (200, 120, 40)).save(file, "JPEG", **options)
    return file.getvalue()


def with_scans(count, size=(64, 48)):
    """A progressive JPEG with its last scan repeated, `count` in all."""
    head, *scans = jpeg(size, progressive=True).removesuffix(b"\xff\xd9").split(b"\xff\xda")
    scans += scans[-1:] * (count - len(scans))
    return b"\xff\xda".join([head, *scans]) + b"\xff\xd9"


def in_graph(encoded, pixels):
    return bool(has_too_many_scans_in_graph(tf.constant(encoded), tf.constant(pixels, tf.int64)))


@pytest.mark.parametrize("refused", [has_too_many_scans, in_graph])
def test_ordinary_pictures_are_not_refused(refused):
    for options in ({}, {"progressive": True}, {"quality": 100, "subsampling": 0, "progressive": True}):
        assert not refused(jpeg(**options), 50_000_000)


@pytest.mark.parametrize("refused", [has_too_many_scans, in_graph])
def test_three_hundred_scans_are_the_most(refused):
    assert not refused(with_scans(300), 64 * 48)
    assert refused(with_scans(301), 64 * 48)
    assert refused(with_scans(10_000), 64 * 48)


@pytest.mark.parametrize("refused", [has_too_many_scans, in_graph])
def test_a_large_picture_may_have_fewer(refused):
    # 60 scans of 50 megapixels are 3,000 megapixels.
    assert not refused(with_scans(60), 50_000_000)
    assert refused(with_scans(61), 50_000_000)


@given(st.lists(st.sampled_from([b"\xff", b"\xda", b"\x00", b"\x01", START_OF_SCAN]), max_size=1000))
@settings(max_examples=50, deadline=None)
def test_the_graph_counts_as_python_does(pieces):
    encoded = b"".join(pieces)
    pixels = 10_000_000  # of which 300 scans are the most, too
    assert (
        in_graph(encoded, pixels)
        == has_too_many_scans(encoded, pixels)
        == (encoded.count(START_OF_SCAN) > MAX_SCANS)
    )


def test_counting_stops_where_enough_is_known():
    bomb = START_OF_SCAN * 1_000_000
    in_graph(b"", 1)
    started = time.process_time()
    assert in_graph(bomb, 1)
    assert time.process_time() - started < 2
