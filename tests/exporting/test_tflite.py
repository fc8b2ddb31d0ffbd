"""What a phone sees: one file of built-in ops that gives the model's numbers."""

import functools
import os
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from tensorflow.lite.python import schema_py_generated as schema

from mcar_tf.exporting.flatbuffer import op_name, unpack
from mcar_tf.exporting.quantize import give_dead_channels_a_scale, quiet
from mcar_tf.exporting.tflite import convert_tflite, list_ops, load_runner, write_tflite
from mcar_tf.models.crop import crop_and_resize


@pytest.fixture(scope="module")
def make_model(make_model):
    """With sums of residual blocks, and convolutions enough to tell what stays in float."""
    return functools.partial(make_model, backbone="tiny_resnet", backbone_width=0.5)


@pytest.fixture(scope="module", autouse=True)
def _few_pixels_at_once():
    """A file looks at two regions and then at one, as with large ones, although these are small."""
    with mock.patch("mcar_tf.exporting.tflite.PIXELS_AT_ONCE", 0):
        yield


@pytest.fixture(scope="module")
def model(make_model):
    """Three regions."""
    return make_model(top_n=3)


@pytest.fixture(scope="module")
def float32(model):
    return convert_tflite(model)


def test_float32_gives_what_the_model_gives(model, float32, batch):
    answer = load_runner(float32)
    same_boxes = []
    for image in batch["image"]:
        found = answer(image=image[np.newaxis])
        # A rounding error can move a box by a pixel, and what is seen in it by much: the model gets the same boxes.
        expected = model(image[np.newaxis], boxes=found["boxes"])
        assert set(found) == set(expected)
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-4, err_msg=name)
        same_boxes.append(np.isclose(found["boxes"], model(image[np.newaxis])["boxes"], atol=1e-4))
    assert np.mean(same_boxes) > 0.8


def test_global_only_gives_the_global_stream_and_where_it_points(model, float32, batch):
    once, whole = load_runner(float32, "global_only"), load_runner(float32)
    for image in batch["image"]:
        found, expected = once(image=image[np.newaxis]), whole(image=image[np.newaxis])
        assert set(found) == {"global_probs", "boxes", "box_classes"}
        np.testing.assert_allclose(found["global_probs"], model(image[np.newaxis])["global_probs"], atol=1e-4)
        np.testing.assert_array_equal(found["box_classes"], expected["box_classes"])
        np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-6)


BOXES = ([0, 0, 1, 1], [0.25, 0.5, 0.75, 1.0], [0.1, 0.2, 0.35, 0.95], [0.5, 0.5, 0.625, 0.625])


@pytest.mark.parametrize("box", BOXES)
def test_look_at_gives_the_models_probabilities_of_any_region(model, float32, batch, box):
    look_at = load_runner(float32, "look_at")
    boxes = np.float32([[box]])
    for image in batch["image"][:2]:
        found = look_at(image=image[np.newaxis], boxes=boxes)
        assert {name: value.shape for name, value in found.items()} == {"probs": (1, 5)}
        expected = model(image[np.newaxis], boxes=boxes)["local_probs"]
        np.testing.assert_allclose(found["probs"], expected, atol=1e-4)


def test_an_app_that_looks_once_and_again_has_the_answer_of_both_looks(model, float32, batch):
    once, look_at, whole = (load_runner(float32, name) for name in ("global_only", "look_at", "mcar"))
    image = batch["image"][:1]
    glance = once(image=image)
    looks = [look_at(image=image, boxes=glance["boxes"][:, i : i + 1])["probs"] for i in range(3)]
    fused = np.maximum.reduce([glance["global_probs"], *looks])
    np.testing.assert_allclose(fused, whole(image=image)["probs"], atol=1e-4)


def test_look_at_in_8_bits_is_the_second_look_in_8_bits(int8, batch):
    """Its convolutions have the same ranges, so it sees the same."""
    once, look_at, whole = (load_runner(int8, name) for name in ("global_only", "look_at", "mcar"))
    for image in np.round(batch["image"]).astype(np.uint8):
        expected = whole(image=image[np.newaxis])
        looks = [look_at(image=image[np.newaxis], boxes=expected["boxes"][:, i : i + 1]) for i in range(3)]
        found = np.maximum.reduce([look["probs"] for look in looks])
        np.testing.assert_allclose(found, expected["local_probs"], atol=1e-4)


def test_ops_are_built_in(float32):
    ops = list_ops(float32)
    for signature, counts in ops.items():
        print(f"{signature}: {', '.join(f'{name} x{count}' for name, count in sorted(counts.items()))}")
    assert set(ops) == {"mcar", "global_only", "look_at"}
    assert not [name for counts in ops.values() for name in counts if name.startswith("CUSTOM")]
    # A pass in the one; three in the other: the whole image, two regions, one region.
    assert ops["mcar"]["CONV_2D"] == 3 * ops["global_only"]["CONV_2D"] == 3 * ops["look_at"]["CONV_2D"]


def test_small_regions_are_looked_at_together(model, monkeypatch):
    monkeypatch.setattr("mcar_tf.exporting.tflite.PIXELS_AT_ONCE", 3 * model.local_size**2)
    ops = list_ops(convert_tflite(model))
    assert ops["mcar"]["CONV_2D"] == 2 * ops["global_only"]["CONV_2D"]


def test_an_op_that_is_not_built_in_fails_the_conversion(model, monkeypatch):
    monkeypatch.setattr("mcar_tf.exporting.tflite.crop_and_resize_portable", crop_and_resize)
    with pytest.raises(Exception, match="CropAndResize"):
        convert_tflite(model)


def test_weights_are_stored_once(model, float32):
    weights = sum(weight.numpy().nbytes for weight in model.weights)
    assert weights > 300_000
    assert len(float32) < weights + 100_000  # the three signatures' graphs


def test_exporting_changes_nothing_in_the_model(make_model):
    model = make_model(top_n=3)
    model(np.zeros((1, model.image_size, model.image_size, 3), np.float32))  # Keras notes the first call
    before = dict(vars(model))
    convert_tflite(model)
    assert vars(model) == before


def test_without_regions_there_are_no_boxes(plain_model, batch):
    image = batch["image"][:1]
    content = convert_tflite(plain_model)
    assert set(list_ops(content)) == {"mcar", "global_only"}
    assert set(load_runner(content, "global_only")(image=image)) == {"global_probs"}
    found = load_runner(content)(image=image)
    assert set(found) == {"probs", "global_probs", "local_probs"}
    np.testing.assert_allclose(found["probs"], plain_model(image)["probs"], atol=1e-4)


@pytest.mark.parametrize(("precision", "share", "tolerance"), [("float16", 0.6, 0.05), ("dynamic", 0.4, 0.2)])
def test_smaller_weights_give_nearly_the_same(model, float32, batch, precision, share, tolerance):
    content = convert_tflite(model, precision)
    weights = sum(weight.numpy().nbytes for weight in model.weights)
    assert len(float32) - len(content) > (1 - share) * 0.9 * weights
    answer = load_runner(content, "global_only")
    for image in batch["image"]:
        found = answer(image=image[np.newaxis])["global_probs"]
        np.testing.assert_allclose(found, model(image[np.newaxis])["global_probs"], atol=tolerance)


def test_an_unknown_precision_is_refused(model):
    with pytest.raises(ValueError, match="`precision` must be one of float32, float16, dynamic, int8"):
        convert_tflite(model, "int4")


def test_int8_without_calibration_pictures_is_refused(model):
    with pytest.raises(ValueError, match="`calibration` pictures are what int8 needs"):
        convert_tflite(model, "int8")


@pytest.fixture(scope="module")
def int8(model, batch):
    return convert_tflite(model, "int8", batch["image"], input_type="uint8")


def test_int8_quantizes_the_network_and_nothing_else(float32, int8):
    model = unpack(int8)
    kinds = {kind: name for name, kind in vars(schema.TensorType).items() if isinstance(kind, int)}
    inputs = {"CONV_2D": [], "LOGISTIC": [], "GATHER": [], "FULLY_CONNECTED": [], "ADD": []}
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:
            if op_name(model, operator) in inputs:
                tensor = subgraph.tensors[operator.inputs[0]]
                is_backbone = b"backbone" in subgraph.tensors[operator.outputs[0]].name
                inputs[op_name(model, operator)].append((is_backbone, kinds[tensor.type]))
    # In five passes, three of them over regions, of ten convolutions each: the first three in float, seven in 8 bits.
    assert inputs["CONV_2D"].count((True, "FLOAT32")) == 5 * 3
    assert inputs["CONV_2D"].count((True, "INT8")) == 5 * 7
    assert inputs["ADD"].count((True, "FLOAT32")) == 5 * 3  # of residual blocks
    assert (True, "INT8") not in inputs["ADD"]
    for op in inputs:
        assert (False, "INT8") not in inputs[op]
    assert len(int8) < 0.6 * len(float32)


@pytest.mark.slow
def test_int8_gives_nearly_what_the_model_gives(make_model, batch):
    images = np.round(batch["image"])
    differences = []
    # The large heads make much of small errors, of one untrained model (0.07) far more than of others (0.003).
    for seed in (1, 2, 3):
        model = make_model(top_n=2, seed=seed)
        answer = load_runner(convert_tflite(model, "int8", images, input_type="uint8"), "global_only")
        found = [answer(image=image[np.newaxis].astype(np.uint8))["global_probs"][0] for image in images]
        differences.append(np.abs(found - model(images)["global_probs"].numpy()).mean())
    # Noise in place of a network would differ by 0.3.
    assert np.mean(differences) < 0.05
    assert np.max(differences) < 0.1


def test_weights_of_int8_are_stored_once(model, int8):
    weights = sum(weight.numpy().size for weight in model.weights)
    buffers = unpack(int8).buffers
    stored = sum(len(buffer.data) for buffer in buffers if buffer.data is not None)
    assert stored < 1.3 * weights


def test_regions_share_biases_and_scales_of_int8(int8):
    model = unpack(int8)
    constants: dict[str, set] = {}
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:
            if op_name(model, operator) == "CONV_2D":
                weights, bias = (subgraph.tensors[index] for index in operator.inputs[1:3])
                if weights.type == schema.TensorType.INT8:
                    constants.setdefault(weights.buffer, set()).add(id(bias))
    assert len(constants) == 7
    # Of each signature: one for the whole image; in `mcar` another for all regions, which is that of `look_at`.
    assert all(len(biases) <= 4 for biases in constants.values())


def test_a_dead_channel_keeps_its_bias():
    """A 1x1 convolution of two channels; the second has no weights."""
    model = schema.ModelT()
    model.operatorCodes = [schema.OperatorCodeT()]
    model.operatorCodes[0].builtinCode = schema.BuiltinOperator.CONV_2D
    model.operatorCodes[0].deprecatedBuiltinCode = schema.BuiltinOperator.CONV_2D
    subgraph = schema.SubGraphT()
    model.subgraphs = [subgraph]
    constants = [np.float32([0.5, -2.0, 0.0, 0.0]), np.float32([0.25, -3.0])]
    model.buffers = []
    subgraph.tensors = []
    for name, shape, data in (
        (b"image", [1, 1, 1, 2], None),
        (b"weights", [2, 1, 1, 2], constants[0]),
        (b"bias", [2], constants[1]),
        (b"backbone/Conv1", [1, 1, 1, 2], None),
    ):
        tensor, buffer = schema.TensorT(), schema.BufferT()
        tensor.name, tensor.shape, tensor.buffer = name, shape, len(model.buffers)
        buffer.data = None if data is None else np.frombuffer(data.tobytes(), np.uint8)
        model.buffers.append(buffer)
        subgraph.tensors.append(tensor)
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1, 2], [3]
    subgraph.operators = [operator]
    changed = give_dead_channels_a_scale(model)
    weights = np.frombuffer(changed.buffers[1].data.tobytes(), np.float32)
    np.testing.assert_allclose(weights, [0.5, -2.0, 3e-4, 0.0])  # 1e-4 of the bias 3


def test_int8_without_the_quantizer_is_refused_in_one_sentence(model, batch, monkeypatch):
    monkeypatch.setitem(sys.modules, "litert_quantizer", None)
    with pytest.raises(ValueError, match=r"int8 needs litert-quantizer: pip install 'mcar-tf\[phone\]'"):
        convert_tflite(model, "int8", batch["image"])


@pytest.mark.parametrize("localizer", ["threshold", "moments"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_map_that_is_the_same_everywhere_points_at_the_middle_in_half_precision_too(
    make_model, batch, tmp_path, localizer, precision
):
    model = make_model(top_n=1, localizer=localizer)
    kernel, bias = model.classifier.get_weights()
    model.classifier.set_weights([0 * kernel, bias])
    path = tmp_path / "constant.tflite"
    write_tflite(model, list("abcde"), path, precision)
    found = load_runner(path.read_bytes())(image=batch["image"][:1])
    np.testing.assert_allclose(found["boxes"][0, 0], [0.125, 0.125, 0.875, 0.875], atol=1e-3)
    assert np.isfinite(found["probs"]).all()


def test_a_file_is_loaded_and_asked_without_a_word_of_its_runtime(float32, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(float32)
    program = (
        "import sys; from pathlib import Path; import numpy as np; from pipelines.command import load_tensorflow;"
        " load_tensorflow(); from mcar_tf.exporting.tflite import load_runner;"
        " print(load_runner(Path(sys.argv[1]).read_bytes())(image=np.zeros((1, 32, 32, 3), np.float32)).keys())"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert "box_probs" in done.stdout
    assert done.stderr == ""


def test_quantizing_keeps_other_programs_greetings_to_itself_and_no_error(capfd):
    with quiet():
        os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\nERROR: no such op\n")
    assert capfd.readouterr().err == "ERROR: no such op\n"
