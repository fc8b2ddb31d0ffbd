import errno

import numpy as np
import pytest
import tensorflow as tf
from scenes import encode, gradient

from pipelines import records
from pipelines.pictures import Picture
from pipelines.samples import Sample

SAMPLE = Sample(
    id="a/b-1.x_2",
    image=encode(gradient()),
    present=(1, 3),
    difficult=(3,),
    unknown=(0,),
    boxes=((0.0, 0.25, 0.5, 1.0), (0.125, 0.0, 1.0, 0.75)),
    box_labels=(1, 3),
)
PICTURE = Picture(SAMPLE.image, height=24, width=40, orientation=1)


def test_a_record_gives_back_what_was_written():
    assert records.parse_sample(records.serialize_record(SAMPLE, PICTURE)) == (SAMPLE, PICTURE)


def test_a_record_without_labels_and_boxes_gives_back_none():
    sample = Sample(id="empty", image=SAMPLE.image, present=())
    assert records.parse_sample(records.serialize_record(sample, PICTURE)) == (sample, PICTURE)


def test_the_same_sample_gives_the_same_bytes():
    assert records.serialize_record(SAMPLE, PICTURE) == records.serialize_record(SAMPLE, PICTURE)


def test_a_record_holds_exactly_the_features_of_the_contract():
    example = tf.train.Example.FromString(records.serialize_record(SAMPLE, PICTURE))
    assert sorted(example.features.feature) == [
        "image/encoded", "image/height", "image/id", "image/orientation", "image/width",
        "label/difficult", "label/present", "label/unknown", "object/box", "object/label",
    ]  # fmt: skip
    assert example.features.feature["object/box"].float_list.value[:4] == [0.0, 0.25, 0.5, 1.0]


def test_parsing_in_graph_mode_gives_the_same_labels():
    fields = tf.function(records.parse_record)(tf.constant(records.serialize_record(SAMPLE, PICTURE)))
    assert fields["encoded"].numpy() == SAMPLE.image
    assert fields["id"].numpy() == b"a/b-1.x_2"
    assert fields["present"].numpy().tolist() == [1, 3]
    assert fields["difficult"].numpy().tolist() == [3]
    assert fields["unknown"].numpy().tolist() == [0]


def test_pictures_lie_in_equal_ranges_of_their_key():
    ids = [f"{i:012}" for i in range(4000)]
    shards = [records.shard_of(i, 4) for i in sorted(ids, key=records.sort_key)]
    assert shards == sorted(shards)  # the order of the keys goes on from shard to shard
    assert np.bincount(shards) == pytest.approx(1000, abs=150)  # binomial, sigma 27


@pytest.mark.parametrize(("megabytes", "shards"), [(0, 1), (140, 1), (160, 2), (1000, 10)])
def test_shards_are_of_about_100_megabytes(megabytes, shards):
    assert records.count_shards(megabytes * 2**20) == shards


def test_half_a_shard_is_never_seen(tmp_path):
    def breaks_off():
        yield b"record"
        raise RuntimeError("unplugged")

    with pytest.raises(RuntimeError, match="unplugged"):
        records.write_shard(tmp_path / "train-00000-of-00001.tfrecord", breaks_off())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_that_names_the_shard(tmp_path):
    def full():
        yield b"record"
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    with pytest.raises(OSError, match=r"train-00000-of-00001\.tfrecord") as caught:
        records.write_shard(tmp_path / "train-00000-of-00001.tfrecord", full())
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []
