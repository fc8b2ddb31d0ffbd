import errno
import json

import numpy as np
import pytest
import tensorflow as tf
from scenes import encode, gradient, raw_set, small_shards

from pipelines import records
from pipelines.building.sets import build_set
from pipelines.manifest import Part, hold_out, load_manifest
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


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    with pytest.MonkeyPatch.context() as patch:
        small_shards(patch)
        build_set(raw_set(folder / "source", count=40), folder / "data")
    return folder / "data"


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


def test_a_manifest_gives_back_what_was_built(prepared):
    manifest = load_manifest(prepared, "tiny")
    split = manifest.splits["train"]
    assert manifest.classes == ("a", "b", "c", "d")
    assert manifest.source == "made by a test"
    assert split.examples == 40 == sum(shard.examples for shard in split.shards)
    # i % 3 == 0: 14, 1: 13, 2: 13 of 40; class 2 also where i is odd: i = 1, 3, 7, 9, ... (14 of them), difficult.
    assert split.present == (14, 13, 27, 0)
    assert split.difficult == (0, 0, 14, 0)
    assert split.unknown == (0, 0, 0, 40)
    assert all(file.is_file() for file in split.files)
    assert len(split.files) > 3


def copy_of(prepared, tmp_path):
    import shutil

    return shutil.copytree(prepared, tmp_path / "copy")


def test_a_set_that_was_never_built_says_how_to_build_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere is not there.*pipelines\.build --dataset nowhere"):
        load_manifest(tmp_path, "nowhere")


def test_an_unfinished_build_is_no_set(prepared, tmp_path):
    data = copy_of(prepared, tmp_path)
    (data / "tiny" / "dataset.json").unlink()
    with pytest.raises(FileNotFoundError, match="unfinished build"):
        load_manifest(data, "tiny")


def test_a_lost_shard_is_named(prepared, tmp_path):
    data = copy_of(prepared, tmp_path)
    lost = load_manifest(data, "tiny").splits["train"].files[1]
    lost.unlink()
    with pytest.raises(FileNotFoundError, match=f"{lost.name} is gone"):
        load_manifest(data, "tiny")


def test_a_shard_that_was_cut_off_is_named(prepared, tmp_path):
    data = copy_of(prepared, tmp_path)
    cut = load_manifest(data, "tiny").splits["train"].files[1]
    cut.write_bytes(cut.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{cut.name} is damaged"):
        load_manifest(data, "tiny")


def test_another_schema_version_is_refused(prepared, tmp_path):
    data = copy_of(prepared, tmp_path)
    path = data / "tiny" / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    with pytest.raises(ValueError, match="schema version 99; this program reads version 1"):
        load_manifest(data, "tiny")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 1}'])
def test_a_damaged_manifest_is_refused(prepared, tmp_path, text):
    data = copy_of(prepared, tmp_path)
    (data / "tiny" / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match=r"dataset\.json"):
        load_manifest(data, "tiny")


def test_a_changed_manifest_is_refused(prepared, tmp_path):
    data = copy_of(prepared, tmp_path)
    path = data / "tiny" / "dataset.json"
    path.write_text(path.read_text().replace('"a"', '"x"', 1))
    with pytest.raises(ValueError, match="checksum"):
        load_manifest(data, "tiny")


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


def test_holding_out_divides_a_split_without_remainder(prepared):
    split = load_manifest(prepared, "tiny").splits["train"]
    rest, held = hold_out(split, 0.25, seed=3)
    assert (rest.examples, held.examples) == (30, 10)
    assert all(isinstance(part, Part) for part in rest.files + held.files)
    assert sum(part.limit for part in rest.files) == 30
    assert sum(part.limit for part in held.files) == 10
    assert hold_out(split, 0.25, seed=3) == (rest, held)
    assert hold_out(split, 0.25, seed=4) != (rest, held)


@pytest.mark.parametrize("fraction", [0.0, 1.0, 0.01])
def test_holding_out_nothing_or_everything_is_refused(prepared, fraction):
    with pytest.raises(ValueError, match=r"fraction|without any"):
        hold_out(load_manifest(prepared, "tiny").splits["train"], fraction, seed=0)
