"""predictions.npz is read as it was written, and nothing that evaluate does not write passes for it."""

import contextlib
import io
import zipfile

import numpy as np
import pytest
from made_predictions import CLASSES, random_predictions

from mcar_tf.evaluating.predictions import Predictions
from mcar_tf.evaluating.predictions_file import read_predictions, write_predictions

FIELDS = (
    "ids",
    "labels",
    "weights",
    "global_probs",
    "local_probs",
    "probs",
    "boxes",
    "box_classes",
    "box_probs",
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "predictions.npz"
    write_predictions(path, random_predictions(), CLASSES, "test", "hash")
    return path


def test_predictions_are_read_as_they_were_written(path):
    again, classes, split, data = read_predictions(path)
    assert (classes, split, data) == (CLASSES, "test", "hash")
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(again, name), getattr(random_predictions(), name))
    assert again.fused_probs is None  # the larger ones of both streams
    assert [file.name for file in path.parent.iterdir()] == ["predictions.npz"]


def test_fused_probabilities_of_another_kind_are_read_too(tmp_path):
    first = random_predictions()
    mean = (first.global_probs + first.local_probs) / 2
    arrays = {name: getattr(first, name) for name in FIELDS} | {"probs": mean}
    write_predictions(tmp_path / "predictions.npz", Predictions(**arrays), CLASSES, "test")
    again = read_predictions(tmp_path / "predictions.npz").predictions
    np.testing.assert_array_equal(again.probs, mean)


def test_numpy_reads_the_file(path):
    with np.load(path, allow_pickle=False) as file:
        assert sorted(file.files) == sorted([*FIELDS, "classes", "split", "data"])
        np.testing.assert_array_equal(file["probs"], random_predictions().probs)
        assert file["labels"].dtype == bool


def test_a_file_of_numpy_is_read(path):
    # As earlier versions wrote it: labels and weights as numbers.
    with np.load(path) as file:
        arrays = dict(file)
    arrays |= {name: arrays[name].astype(np.float32) for name in ("labels", "weights")}
    np.savez_compressed(path, **arrays)
    again = read_predictions(path).predictions
    np.testing.assert_array_equal(again.weights, random_predictions().weights)


def changed(path, **arrays):
    """The file with other arrays, None for none."""
    with np.load(path) as file:
        content = {name: value for name, value in (dict(file) | arrays).items() if value is not None}
    np.savez(path, **content)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"probs": None}, "no array `probs`"),
        ({"probs": np.full((11, 3), 1.5, np.float32)}, r"`probs` holds numbers that do not lie in \[0, 1\]"),
        ({"global_probs": np.full((11, 3), np.nan, np.float32)}, "`global_probs` holds numbers"),
        ({"boxes": np.full((11, 1, 4), np.inf, np.float32)}, "`boxes` holds numbers"),
        ({"box_classes": np.full((11, 1), 3, np.int32)}, "`box_classes` holds what is none of the classes"),
        ({"ids": np.array(["a"] * 10)}, r"`labels` is bool \(11, 3\), which does not fit the others"),
        ({"ids": np.arange(11)}, "`ids` is int64"),
        ({"labels": np.array([["yes"] * 3] * 11)}, "`labels` is <U3"),
        ({"classes": np.array(list("ab"))}, "which does not fit the others"),
        ({"split": np.array(["test"])}, r"`split` is <U4 \(1,\)"),
        ({"ids": np.array([{}] * 11)}, "`ids` is object"),
        (
            {name: np.zeros((0, *shape)) for name, shape in (("labels", (3,)), ("weights", (3,)))}
            | {"ids": np.zeros(0, str)},
            "holds no images",
        ),
    ],
)
def test_an_array_that_is_not_what_it_should_be_is_named(path, arrays, message):
    changed(path, **arrays)
    with pytest.raises(ValueError, match=f"predictions.npz is not what evaluate writes: .*{message}"):
        read_predictions(path)


def test_a_header_that_promises_more_than_there_is_takes_no_memory(path):
    # 11 rows of 3 are there, a header says 10**9 rows: nothing of that size is made.
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<U8", "fortran_order": False, "shape": (10**9,)})
    members["ids.npy"] = header.getvalue() + members["ids.npy"][-100:]
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    with pytest.raises(ValueError, match="`ids` is not as long as it says"):
        read_predictions(path)


@pytest.mark.parametrize("seed", range(30))
def test_a_damaged_file_is_refused_by_name_or_read_right(path, seed):
    rng = np.random.default_rng(seed)
    content = bytearray(path.read_bytes())
    kind = seed % 3
    if kind == 0:
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        content = content[: rng.integers(len(content))]
    else:
        start = rng.integers(len(content) - 50)
        content[start : start + 50] = rng.bytes(50)
    path.write_bytes(content)
    with contextlib.suppress(ValueError):  # no other error
        # Else what was hit is not content: a date, a permission.
        np.testing.assert_array_equal(read_predictions(path).predictions.probs, random_predictions().probs)
