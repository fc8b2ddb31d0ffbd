"""What a TFLite file says about itself."""

import io
import json
import math
import struct
import zipfile

import pytest

from mcar_tf.exporting.flatbuffer import unpack
from mcar_tf.exporting.metadata import add_metadata, score_calibration_text
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


def test_a_file_with_regions_describes_its_outputs_in_their_order(model):
    content = convert_tflite(model)
    parsed = unpack(content)
    (signature,) = (one for one in parsed.signatureDefs if one.subgraphIndex == 0)
    names = {output.tensorIndex: output.name for output in signature.outputs}
    described = unpack(add_metadata(content, CLASSES, is_float=True))
    (entry,) = [entry for entry in described.metadata if entry.name == b"TFLITE_METADATA"]
    written = bytes(described.buffers[entry.buffer].data)
    # FlatBuffers are written from their end: what is written first lies behind what is written later.
    places = [written.index(names[index] + b"\0") for index in parsed.subgraphs[0].outputs]
    assert places == sorted(places, reverse=True)


def test_only_floats_have_a_normalization(plain, described):
    # Mean 0 and standard deviation 1, a float each behind its vector's length.
    normalization = struct.pack("<If", 1, 1.0)
    bytes_in = add_metadata(plain, CLASSES, is_float=False)
    assert len(bytes_in) < len(described)
    assert described.count(normalization) > bytes_in.count(normalization)


THRESHOLDS = [0.1, 0.25, 0.5, 0.9, 1.0]


@pytest.fixture(scope="module")
def decided(plain):
    return add_metadata(plain, CLASSES, is_float=True, thresholds=THRESHOLDS, temperature=2.0)


def test_thresholds_are_in_the_archive_too(decided):
    with zipfile.ZipFile(io.BytesIO(decided)) as archive:
        assert archive.namelist() == ["labels.txt", "thresholds.json", "score_calibration.txt"]
        own = json.loads(archive.read("thresholds.json"))
    assert own == dict(zip(CLASSES, THRESHOLDS, strict=True))


def test_a_score_of_one_half_is_each_classes_own_threshold():
    """The formula of TFLite's metadata schema, with g the inverse of the logistic function."""
    lines = score_calibration_text(THRESHOLDS, temperature=2.0).splitlines()

    def score(c, probability):
        scale, slope, offset = map(float, lines[c].split(","))
        g = math.log(probability / (1 - probability))
        return scale / (1 + math.exp(-(slope * g + offset)))

    for c, threshold in enumerate(THRESHOLDS[:4]):
        assert score(c, threshold) == pytest.approx(0.5, abs=1e-5)
        assert score(c, threshold - 0.01) < 0.5 < score(c, threshold + 0.01)
    # At 0.5, where the logit is 0, the temperature alone counts: sigmoid(logit(0.8) / 2) = 2 / 3.
    assert score(2, 0.8) == pytest.approx(2 / 3, abs=1e-5)
    assert score(4, 1 - 1e-7) > 0.5 > score(4, 0.999)


def test_only_thresholds_bring_a_score_calibration(described, decided):
    assert b"score_calibration.txt" not in described
    assert b"score_calibration.txt" in decided


def test_the_same_model_gives_the_same_bytes(plain, described):
    assert add_metadata(plain, CLASSES, is_float=True) == described
