"""Weights are written whole, with a checksum, and loaded where they are what was written and finite."""

import shutil

import keras
import numpy as np
import pytest

from mcar_tf.runs import weights as module
from mcar_tf.runs.loading import load_run
from mcar_tf.runs.weights import checksum_path, load_weights, write_weights
from pipelines.files import file_sha256


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((3,)), keras.layers.Dense(4), keras.layers.BatchNormalization()]
    return keras.Sequential([*layers, keras.layers.Dropout(0.5)])  # a seed: integers


@pytest.fixture
def file(model, tmp_path):
    write_weights(model, tmp_path / "checkpoints" / "last.weights.h5")
    return tmp_path / "checkpoints" / "last.weights.h5"


def test_a_checksum_lies_beside_it(file):
    assert checksum_path(file).read_text() == f"{file_sha256(file)}  last.weights.h5\n"


def test_what_was_written_is_loaded(model, file):
    written = model.get_weights()
    model.set_weights([np.zeros_like(w) for w in written])
    load_weights(model, file, file)
    for a, b in zip(written, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    checksum_path(file).unlink()  # as an older version left it
    load_weights(model, file, file)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_flipped_bit_is_noticed(model, file, place):
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"last\.weights\.h5 is damaged: its checksum is not the one in"):
        load_weights(model, file, file)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(model, file, value):
    kernel = model.layers[0].kernel
    kernel.assign(np.full(kernel.shape, value))
    write_weights(model, file)
    with pytest.raises(ValueError, match=r"numbers that are not finite, first in .*kernel"):
        load_weights(model, file, file)


def test_of_another_model_they_are_refused(file):
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5)])
    with pytest.raises(ValueError, match=r"does not fit the model that config\.yaml describes"):
        load_weights(other, file, "config.yaml")


class Branches(keras.Model):
    """A layer, and one more in a list of lists, if asked for."""

    def __init__(self, more):
        super().__init__()
        self.first = keras.layers.Dense(2)
        self.first.build((None, 3))
        if more:
            self.more = [[keras.layers.Dense(2)]]
            self.more[0][0].build((None, 2))
        self.built = True


@pytest.mark.filterwarnings("default")
def test_a_file_that_lacks_a_layer_is_refused_without_a_warning_beside(tmp_path, recwarn):
    write_weights(Branches(more=False), tmp_path / "last.weights.h5")
    with pytest.raises(
        ValueError, match=r"last\.weights\.h5 does not fit the model that config\.yaml describes"
    ):
        load_weights(Branches(more=True), tmp_path / "last.weights.h5", "config.yaml")
    assert [warning for warning in recwarn if "container" in str(warning.message)] == []


@pytest.mark.parametrize("cut_at", [1, 2, 3])
def test_cut_off_anywhere_the_file_and_its_checksum_fit(model, file, monkeypatch, cut_at):
    written = []

    def counted(real):
        def call(*arguments):
            written.append(arguments[0].name)
            if len(written) == cut_at:
                raise KeyboardInterrupt
            return real(*arguments)

        return call

    monkeypatch.setattr(module, "write_text", counted(module.write_text))
    monkeypatch.setattr(module, "write_bytes", counted(module.write_bytes))
    model.layers[0].kernel.assign(np.ones((3, 4)))
    with pytest.raises(KeyboardInterrupt):
        write_weights(model, file)
    monkeypatch.undo()
    load_weights(model, file, file)
    assert (model.layers[0].kernel.numpy() == 1).all() == (cut_at == 3)


def test_a_full_disk_leaves_the_weights_before(model, file, monkeypatch):
    before = file.read_bytes()

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(module, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device"):
        write_weights(model, file)
    assert file.read_bytes() == before
    load_weights(model, file, file)


def test_a_run_whose_weights_were_damaged_is_refused(untrained_run, tmp_path):
    run = shutil.copytree(untrained_run, tmp_path / "run")
    weights = run / "checkpoints" / "last.weights.h5"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 16
    weights.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged: its checksum"):
        load_run(run)
