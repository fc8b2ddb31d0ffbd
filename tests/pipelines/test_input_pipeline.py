import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf
from scenes import noise, raw_set, small_shards

from pipelines.building.sets import build_set
from pipelines.cache import cache_resized
from pipelines.command import describe_error
from pipelines.input_pipeline import (
    _count_buffered,
    _OneEpoch,
    make_eval_dataset,
    make_train_dataset,
    read_boxes,
)
from pipelines.manifest import hold_out, load_manifest
from pipelines.records import record_lengths
from pipelines.samples import RawSet, Sample

COUNT = 50
SHAPE = {"num_classes": 4, "image_size": 16}
EPOCH = {"epoch": 0}


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """50 pictures in several shards: more than are open at once, so that their order is mixed in every way."""
    folder = tmp_path_factory.mktemp("set")
    with pytest.MonkeyPatch.context() as patch:
        small_shards(patch, 2500)
        build_set(raw_set(folder / "source", COUNT), folder / "data")
    return load_manifest(folder / "data", "tiny").splits["train"]


def train(split, batch_size=8, **options):
    return list(
        make_train_dataset(split.files, batch_size=batch_size, **SHAPE | EPOCH | options).as_numpy_iterator()
    )


def evaluate(split, batch_size=8, **options):
    return list(make_eval_dataset(split.files, batch_size=batch_size, **SHAPE | options).as_numpy_iterator())


@pytest.fixture(scope="module")
def trained(split):
    """An epoch of six batches, and two pictures too many for a seventh."""
    return train(split)


@pytest.fixture(scope="module")
def evaluated(split):
    return evaluate(split)


def ids(batches) -> list[str]:
    return [picture.decode() for batch in batches for picture in batch["id"]]


def by_id(batches, key="image") -> dict[str, np.ndarray]:
    pairs = [pair for batch in batches for pair in zip(batch["id"], batch[key], strict=True)]
    return {picture.decode(): value for picture, value in pairs}


def assert_same_batches(ones, others):
    for one, other in itertools.zip_longest(ones, others):
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_a_batch_is_as_the_contract_says(trained):
    batch = trained[0]
    assert {key: (value.shape, value.dtype) for key, value in batch.items() if key != "id"} == {
        "image": ((8, 16, 16, 3), np.float32),
        "labels": ((8, 4), np.float32),
        "weights": ((8, 4), np.float32),
    }
    assert batch["id"].shape == (8,)
    assert batch["image"].min() >= 0
    assert 100 < batch["image"].max() <= 255


def test_static_shapes_are_known(split):
    spec = make_train_dataset(split.files, batch_size=8, epoch=0, **SHAPE).element_spec
    assert spec["image"].shape == (8, 16, 16, 3)
    assert spec["labels"].shape == spec["weights"].shape == (8, 4)


def test_training_takes_every_picture_once_but_for_a_partial_batch(trained):
    assert len(ids(trained)) == len(set(ids(trained))) == 48


def test_evaluation_takes_every_picture_once_with_the_partial_batch(evaluated):
    assert [len(batch["id"]) for batch in evaluated] == [8] * 6 + [2]
    assert sorted(ids(evaluated)) == [f"train{i:03}" for i in range(COUNT)]


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_together_evaluate_every_picture_once(split, workers):
    every = [p for i in range(workers) for p in ids(evaluate(split, shard=(i, workers)))]
    assert sorted(every) == [f"train{i:03}" for i in range(COUNT)]


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_share_the_very_batches_that_one_would_have(split, workers):
    alone = train(split, batch_size=workers)
    shared = [train(split, batch_size=1, shard=(i, workers)) for i in range(workers)]
    # 50 pictures are 16 steps of three workers: none of them gets a 17th picture.
    assert [len(batches) for batches in shared] == [len(alone)] * workers == [COUNT // workers] * workers
    for number, batch in enumerate(alone):
        assert ids([batches[number] for batches in shared]) == ids([batch])
    pictures = {key: value for batches in shared for key, value in by_id(batches).items()}
    for picture, image in by_id(alone).items():
        np.testing.assert_array_equal(pictures[picture], image)


def test_seed_and_epoch_decide_alone_whatever_the_global_seed_of_tensorflow(split, trained):
    tf.random.set_seed(2)
    assert_same_batches(train(split), trained)


@pytest.mark.parametrize("change", [{"seed": 1}, {"epoch": 1}])
def test_another_seed_or_epoch_gives_another_order_and_other_pictures(split, trained, change):
    second = train(split, **change)
    assert ids(trained) != ids(second)
    images, others = by_id(trained), by_id(second)
    assert all(
        not np.array_equal(images[picture], others[picture]) for picture in images.keys() & others.keys()
    )


def test_the_order_has_nothing_left_of_that_on_disk(trained, evaluated):
    on_disk = {picture: place for place, picture in enumerate(ids(evaluated))}
    places = [on_disk[picture] for picture in ids(trained)]
    # Of independent orders the rank correlation is below 0.43 in 99.7 % of the cases (3 / sqrt(48)).
    assert abs(np.corrcoef(places, range(len(places)))[0, 1]) < 0.43


@pytest.mark.parametrize("skipped", [1, 5])
def test_an_epoch_resumed_in_the_middle_goes_on_bit_for_bit(split, trained, skipped):
    assert_same_batches(train(split, skip_batches=skipped), trained[skipped:])


def test_a_picture_is_augmented_the_same_whatever_the_batch_size_and_threads(split, trained):
    images = by_id(trained)
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    dataset = make_train_dataset(split.files, batch_size=3, epoch=0, **SHAPE).with_options(options)
    others = by_id(dataset.as_numpy_iterator())
    assert others.keys() == images.keys()
    for picture, image in others.items():
        np.testing.assert_array_equal(image, images[picture])


def test_without_augmentation_training_sees_what_evaluation_sees(split, evaluated):
    images = by_id(evaluated)
    for picture, image in by_id(train(split, augment="none")).items():
        np.testing.assert_array_equal(image, images[picture])


def test_difficult_classes_count_as_asked_for(split):
    # Picture 1 shows class 1, and class 2 as difficult; nobody knows about class 3.
    def picture_1(difficult):
        batches = evaluate(split, difficult=difficult)
        return by_id(batches, "labels")["train001"].tolist(), by_id(batches, "weights")["train001"].tolist()

    assert picture_1("positive") == ([0, 1, 1, 0], [1, 1, 1, 0])
    assert picture_1("ignore") == ([0, 1, 1, 0], [1, 1, 0, 0])
    assert picture_1("negative") == ([0, 1, 0, 0], [1, 1, 1, 0])


def test_held_out_pictures_are_not_trained_on(split, evaluated):
    rest, held = hold_out(split, 0.3, seed=1)
    one, other = ids(train(rest, batch_size=1)), ids(evaluate(held))
    assert (len(one), len(other)) == (rest.examples, held.examples) == (35, 15)
    assert set(one) | set(other) == set(ids(evaluated))
    assert set(read_boxes(held.files)) == set(other)


def test_boxes_are_read_without_pixels(split):
    found = read_boxes(split.files)
    assert len(found) == COUNT
    boxes, labels = found["train004"]
    assert boxes.tolist() == [[0.0, 0.25, 0.5, 1.0]]
    assert labels.tolist() == [1]


def test_a_cache_gives_the_same_batches_but_for_rounding(split, tmp_path):
    files = cache_resized(split.files[:2], 16, tmp_path)
    cached = list(make_eval_dataset(files, batch_size=8, **SHAPE).as_numpy_iterator())
    plain = list(make_eval_dataset(split.files[:2], batch_size=8, **SHAPE).as_numpy_iterator())
    for one, other in zip(plain, cached, strict=True):
        assert one["id"].tolist() == other["id"].tolist()
        np.testing.assert_array_equal(one["labels"], other["labels"])
        assert np.abs(one["image"] - other["image"]).max() <= 0.5
    assert read_boxes(files).keys() == read_boxes(split.files[:2]).keys()


def test_a_cache_is_made_once_and_anew_for_another_size_or_file(split, tmp_path):
    files = cache_resized(split.files[:1], 16, tmp_path)
    made = files[0].stat().st_mtime_ns
    assert cache_resized(split.files[:1], 16, tmp_path) == files
    assert files[0].stat().st_mtime_ns == made
    assert cache_resized(split.files[:1], 12, tmp_path) != files
    part = hold_out(split, 0.3, seed=1)[1].files[0]
    assert cache_resized([part], 16, tmp_path)[0].limit == part.limit


@pytest.mark.parametrize(
    ("make", "flips"),
    [
        (make_eval_dataset, 4),
        pytest.param(functools.partial(make_train_dataset, epoch=0), 50, marks=pytest.mark.slow),
    ],
)
def test_each_flipped_byte_is_an_error_and_never_a_wrong_picture(split, tmp_path, make, flips):
    whole = split.files[0].read_bytes()
    damaged = tmp_path / "damaged.tfrecord"
    damaged.write_bytes(whole)
    reference = by_id(make([damaged], batch_size=1, **SHAPE).as_numpy_iterator())
    assert len(reference) > 1
    for place in np.random.default_rng(0).integers(0, len(whole), flips):
        damaged.write_bytes(bytes(byte ^ (64 * (i == place)) for i, byte in enumerate(whole)))
        seen = []
        with pytest.raises(tf.errors.DataLossError, match="corrupted record") as caught:
            seen.extend(make([damaged], batch_size=1, **SHAPE).as_numpy_iterator())
        assert "pipelines.build --verify" in describe_error(caught.value)[1]
        for picture, image in by_id(seen).items():
            np.testing.assert_array_equal(image, reference[picture])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"difficult": "maybe"}, "positive, ignore, negative. Received: 'maybe'"),
        ({"shard": (2, 2)}, r"0 <= index < count. Received: \(2, 2\)"),
        ({"augment": "much"}, "Received: 'much'"),
        ({"files": []}, "at least one shard"),
        ({"shuffle_megabytes": 0}, "`shuffle_megabytes` must be at least 1"),
    ],
)
def test_a_wrong_argument_is_refused(split, options, message):
    with pytest.raises(ValueError, match=message):
        make_train_dataset(**{"files": split.files, "batch_size": 8} | SHAPE | EPOCH | options)


def test_an_epoch_can_not_be_forgotten(split):
    with pytest.raises(TypeError, match="epoch"):
        make_train_dataset(split.files, batch_size=8, **SHAPE)


def test_an_epoch_is_not_given_twice(split):
    dataset = make_train_dataset(split.files, batch_size=8, epoch=3, **SHAPE)
    assert len(list(dataset)) == 6
    with pytest.raises(ValueError, match=r"is epoch 3 alone.*Make one for each epoch"):
        iter(dataset)


@pytest.mark.filterwarnings(
    "ignore:Your input ran out of data"
)  # Keras' way to find how many batches there are
def test_keras_is_not_given_an_epoch_twice(split):
    """What a notebook would do: 2 epochs, of which the second would be the first again."""
    import keras

    model = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4)])
    model.compile("sgd", "mse")
    dataset = make_train_dataset(split.files, batch_size=8, epoch=0, **SHAPE)
    dataset = _OneEpoch(dataset.map(lambda batch: (batch["image"], batch["labels"])), 0)
    with pytest.raises(ValueError, match="is epoch 0 alone"):
        model.fit(dataset, epochs=2, shuffle=False, verbose=0)


def test_several_replicas_are_given_the_epoch_once_for_all(split):
    strategy = tf.distribute.MirroredStrategy(["cpu:0"])
    dataset = make_train_dataset(split.files, batch_size=8, epoch=0, **SHAPE)
    batches = list(strategy.experimental_distribute_dataset(dataset))
    assert ids([{"id": batch["id"].numpy()} for batch in batches]) == ids(train(split))


@pytest.fixture(scope="module")
def heavy(tmp_path_factory):
    """60 records of about 100 kB each, in one shard: bytes in place of pictures."""
    path = tmp_path_factory.mktemp("heavy") / "train-00000-of-00001.tfrecord"
    sizes = np.random.default_rng(0).integers(50_000, 150_000, 60).tolist()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for size in sizes:
            writer.write(bytes(size))
    return path, sizes


def test_the_lengths_of_records_are_read_without_the_records(heavy):
    path, sizes = heavy
    assert list(record_lengths(path)) == sizes
    (cut := path.with_name("cut")).write_bytes(path.read_bytes()[:-1])
    assert list(record_lengths(cut)) == sizes[:-1]


@pytest.mark.parametrize("megabytes", [1, 2, 3])
def test_the_largest_records_together_fit_the_shuffle_buffer(heavy, megabytes):
    largest = sorted(heavy[1], reverse=True)
    count = _count_buffered([heavy[0]], 50, megabytes)
    assert sum(largest[:count]) <= megabytes * 1e6 < sum(largest[: count + 1])


def test_the_shuffle_buffer_ends_at_its_records(heavy):
    assert _count_buffered([heavy[0]], 50, 100) == 50


def test_one_shard_of_large_records_decides(heavy, tmp_path):
    # The first shard alone would let 50 in: its records have 100 kB. Of 3 MB each, two are in 8 MB.
    large = tmp_path / "train-00001-of-00002.tfrecord"
    with tf.io.TFRecordWriter(str(large)) as writer:
        for _ in range(3):
            writer.write(bytes(3_000_000))
    assert _count_buffered([heavy[0], large], 50, 8) == 2


def test_a_record_larger_than_the_whole_buffer_is_read_alone(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "one")) as writer:
        writer.write(bytes(5_000_000))
        writer.write(bytes(5_000_000))
    assert _count_buffered([tmp_path / "one"], 50, 1) == 1


def test_small_records_fill_the_buffer_by_their_number(split):
    assert _count_buffered(split.files, 2048, 512) == 2048


def test_nine_thousand_unknown_classes_take_memory_of_nine_thousand(tmp_path):
    """As a matrix of all classes times all classes they would be 324 MB a picture."""
    count = 9000
    samples = [
        Sample(f"{i}", noise(i), present=(i, 8999), unknown=tuple(range(2, 8999)), difficult=(8999,))
        for i in range(2)
    ]
    raw = RawSet("many", tuple(map(str, range(count))), {"train": lambda: iter(samples)}, source="a test")
    split = build_set(raw, tmp_path, processes=1).splits["train"]
    dataset = make_eval_dataset(
        split.files, num_classes=count, image_size=16, batch_size=2, difficult="ignore"
    )
    (batch,) = dataset.as_numpy_iterator()
    for name, labels, weights in zip(batch["id"], batch["labels"], batch["weights"], strict=True):
        assert np.flatnonzero(labels).tolist() == [int(name), 8999]
        assert np.flatnonzero(weights).tolist() == [0, 1]
