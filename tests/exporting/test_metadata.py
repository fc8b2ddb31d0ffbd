"""What a TFLite file says about itself."""

import io
import struct
import zipfile

import pytest

from mcar_tf.exporting.flatbuffer import unpack
from mcar_tf.exporting.metadata import add_metadata
from mcar_tf.exporting.tflite import convert_tflite, load_runner

CLASSES = ("cat", "dog", "sheep", "Tür", "potted plant")


@pytest.fixture(scope="module")
def plain(plain_model):
    return convert_tflite(plain_model)


@pytest.fixture(scope="module")
def described(plain):
    return add_metadata(plain, CLASSES, is_float=True)


def test_class_names_are_in_a_zip_archive_behind_the_file(described):
    with zipfile.ZipFile(io.BytesIO(described)) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.read("labels.txt").decode().splitlines() == list(CLASSES)


def test_the_file_gives_the_same_answers(plain, described, batch):
    image = batch["image"][:1]
    for signature in ("mcar", "global_only"):
        before, after = (load_runner(content, signature)(image=image) for content in (plain, described))
        assert (before["global_probs"] == after["global_probs"]).all()


def test_metadata_are_of_the_subgraph_that_they_describe(described):
    model = unpack(described)
    subgraphs = {signature.signatureKey: signature.subgraphIndex for signature in model.signatureDefs}
    assert subgraphs[b"global_only"] == 0
    (entry,) = [entry for entry in model.metadata if entry.name == b"TFLITE_METADATA"]
    written = bytes(model.buffers[entry.buffer].data)
    assert written[4:8] == b"M001"
    for text in (b"global_probs", b"labels.txt", b"RGB in [0, 255]"):
        assert text in written


def test_only_floats_have_a_normalization(plain, described):
    # Mean 0 and standard deviation 1, a float each behind its vector's length.
    normalization = struct.pack("<If", 1, 1.0)
    bytes_in = add_metadata(plain, CLASSES, is_float=False)
    assert len(bytes_in) < len(described)
    assert described.count(normalization) > bytes_in.count(normalization)


def test_the_same_model_gives_the_same_bytes(plain, described):
    assert add_metadata(plain, CLASSES, is_float=True) == described
