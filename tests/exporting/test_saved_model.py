"""What a server sees: bytes in, answers out, and a bad picture that harms nobody but itself."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.framework.tensor_pb2 import TensorProto

from mcar_tf.exporting.saved_model import load_form, write_saved_model

CLASSES = ("cat", "dog", "sheep", "Tür", "potted plant")
OUTPUTS = {"probs", "global_probs", "local_probs", "boxes", "box_classes", "box_probs"}


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "saved_model" / "1"
    write_saved_model(model, CLASSES, folder, thresholds=[0.1, 0.2, 0.3, 0.4, 0.5], card="# Card\n")
    return folder


@pytest.fixture(scope="module")
def loaded(folder):
    return tf.saved_model.load(str(folder))


def saved(image, format="JPEG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def picture(height=48, width=40):
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([5 * rows, 6 * columns, 3 * (rows + columns)], axis=-1) % 256
    return Image.fromarray(pixels.astype(np.uint8))


def test_bytes_give_what_the_model_gives_for_their_pixels(model, loaded, batch):
    answer = loaded.signatures["serving_default"](encoded=tf.constant(batch["encoded"]))
    expected = model(batch["image"])
    assert set(answer) == OUTPUTS | {"valid"}
    for name in OUTPUTS:
        np.testing.assert_allclose(answer[name], expected[name], atol=1e-5, err_msg=name)


def test_pixels_of_any_size_are_resized_as_the_bytes_are(loaded):
    image = picture()
    by_bytes = loaded.signatures["serving_default"](encoded=tf.constant([saved(image, "PNG")]))
    by_pixels = loaded.signatures["serve_tensor"](images=tf.constant(np.array(image)[np.newaxis]))
    assert set(by_pixels) == OUTPUTS
    for name in OUTPUTS:
        np.testing.assert_allclose(by_pixels[name], by_bytes[name], atol=1e-5, err_msg=name)


def test_global_only_gives_the_global_stream(loaded, encoded):
    whole = loaded.signatures["serving_default"](encoded=tf.constant(encoded))
    part = loaded.signatures["global_only"](encoded=tf.constant(encoded))
    assert set(part) == {"global_probs", "boxes", "box_classes", "valid"}
    for name in part:
        np.testing.assert_allclose(part[name], whole[name], atol=1e-6, err_msg=name)


def test_look_at_gives_the_models_probabilities_of_any_regions(model, loaded, batch):
    boxes = np.tile(np.float32([[0, 0, 1, 1], [0.25, 0.5, 0.75, 1], [0.1, 0.2, 0.35, 0.9]]), (6, 1, 1))
    encoded = tf.constant(batch["encoded"])
    found = loaded.signatures["look_at"](encoded=encoded, boxes=tf.constant(boxes))
    assert set(found) == {"probs", "region_probs", "valid"}
    assert found["region_probs"].shape == (6, 3, 5)
    for i in range(3):
        expected = model(batch["image"], boxes=boxes[:, i : i + 1])["local_probs"]
        np.testing.assert_allclose(found["region_probs"][:, i], expected, atol=1e-4)
    np.testing.assert_allclose(found["probs"], found["region_probs"].numpy().max(axis=1))


def test_looking_once_and_again_is_looking_twice(loaded, encoded):
    encoded = tf.constant([*encoded, b"no picture"])
    whole = loaded.signatures["serving_default"](encoded=encoded)
    once = loaded.signatures["global_only"](encoded=encoded)
    again = loaded.signatures["look_at"](encoded=encoded, boxes=once["boxes"])
    assert again["valid"].numpy().tolist() == [True] * 6 + [False]
    np.testing.assert_allclose(again["probs"], whole["local_probs"], atol=1e-5)
    assert not again["region_probs"][6].numpy().any()


def test_a_model_without_regions_has_nowhere_to_look_again(plain_model, tmp_path):
    write_saved_model(plain_model, CLASSES, tmp_path / "1")
    assert "look_at" not in tf.saved_model.load(str(tmp_path / "1")).signatures


def test_a_form_to_compare_has_the_answers_of_its_signatures(folder, loaded, batch):
    form = load_form(folder)
    whole_levels = batch | {"image": np.round(batch["image"])}
    answer, by_pixels = form.answer(batch), form.answer_pixels(whole_levels)
    assert set(answer) == OUTPUTS | {"global_only", "look_at", "looked_at"}
    np.testing.assert_allclose(answer["global_only"], answer["global_probs"], atol=1e-6)
    np.testing.assert_allclose(answer["looked_at"], answer["boxes"][:, :1], atol=1e-6)
    expected = loaded.signatures["serve_tensor"](images=tf.constant(whole_levels["image"], tf.uint8))
    np.testing.assert_allclose(by_pixels["probs"], expected["probs"], atol=1e-6)


def test_classify_gives_names_the_most_probable_first(loaded, encoded):
    whole = loaded.signatures["serving_default"](encoded=tf.constant(encoded))
    answer = loaded.signatures["classify"](encoded=tf.constant([*encoded, b"no picture"]))
    assert set(answer) == {"classes", "scores", "valid"}
    assert answer["valid"].numpy().tolist() == [True] * 6 + [False]
    for probs, names, scores in zip(
        whole["probs"].numpy(), answer["classes"].numpy(), answer["scores"], strict=False
    ):
        order = np.argsort(-probs, kind="stable")
        assert [name.decode() for name in names] == [CLASSES[c] for c in order]
        np.testing.assert_allclose(scores, probs[order], atol=1e-6)


def test_requests_to_warm_up_are_in_the_form_that_tensorflow_serving_reads(folder, loaded):
    """The wire format by hand: PredictionLog.predict_log = 6, PredictLog.request = 1, PredictRequest.inputs = 2."""

    def fields(message):
        found, place = {}, 0
        while place < len(message):
            number, size, shift = message[place] >> 3, 0, 0
            assert message[place] & 7 == 2
            while True:
                place += 1
                size |= (message[place] & 127) << shift
                shift += 7
                if message[place] < 128:
                    break
            found[number] = message[place + 1 : place + 1 + size]
            place += 1 + size
        return found

    requests = {}
    for record in tf.data.TFRecordDataset(str(folder / "assets.extra" / "tf_serving_warmup_requests")):
        request = fields(fields(fields(record.numpy())[6])[1])
        name = fields(request[2])[1].decode()
        proto = TensorProto.FromString(fields(request[2])[2])
        requests[fields(request[1])[3].decode()] = {name: tf.constant(tf.make_ndarray(proto))}
    assert set(requests) == {"serving_default", "serve_tensor", "global_only"}
    for signature, inputs in requests.items():
        answer = loaded.signatures[signature](**inputs)
        assert answer.get("valid", tf.constant([True])).numpy().tolist() == [True]


def test_what_is_no_picture_has_no_answer_and_its_neighbours_have_theirs(loaded, encoded):
    serve = loaded.signatures["serving_default"]
    alone = serve(encoded=tf.constant(encoded[:2]))
    answer = serve(encoded=tf.constant([encoded[0], b"", b"no picture", encoded[0][:300], encoded[1]]))
    assert answer["valid"].numpy().tolist() == [True, False, False, False, True]
    for name in OUTPUTS:
        np.testing.assert_allclose(answer[name].numpy()[[0, 4]], alone[name], atol=1e-6, err_msg=name)
        nothing = -1 if name == "box_classes" else 0
        assert (answer[name].numpy()[1:4] == nothing).all()


def test_a_turned_photograph_is_seen_upright(loaded):
    upright = picture()
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    serve = loaded.signatures["serving_default"]
    expected = serve(encoded=tf.constant([saved(upright, quality=100, subsampling=0)]))
    answer = serve(encoded=tf.constant([saved(turned, quality=100, subsampling=0, exif=exif)]))
    np.testing.assert_allclose(answer["global_probs"], expected["global_probs"], atol=0.01)
    without = serve(encoded=tf.constant([saved(turned, quality=100, subsampling=0)]))
    assert np.abs(without["global_probs"] - expected["global_probs"]).max() > 0.05


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_are_pictures(loaded, mode):
    answer = loaded.signatures["serving_default"](encoded=tf.constant([saved(picture().convert(mode))]))
    assert answer["valid"].numpy().tolist() == [True]


def test_names_thresholds_and_card_travel_inside(folder):
    assets = folder / "assets"
    assert (assets / "labels.txt").read_text(encoding="utf-8").splitlines() == list(CLASSES)
    thresholds = json.loads((assets / "thresholds.json").read_text(encoding="utf-8"))
    assert thresholds == {"cat": 0.1, "dog": 0.2, "sheep": 0.3, "Tür": 0.4, "potted plant": 0.5}
    assert (assets / "card.md").read_text() == "# Card\n"


def test_without_regions_there_are_no_boxes(plain_model, encoded, tmp_path):
    write_saved_model(plain_model, CLASSES, tmp_path / "1")
    answer = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"](
        encoded=tf.constant(encoded)
    )
    assert answer["boxes"].shape == (6, 0, 4)
    np.testing.assert_array_equal(answer["probs"], answer["global_probs"])


@pytest.mark.parametrize(
    "boxes", [np.zeros((2, 0, 4)), np.full((2, 1, 4), np.nan), np.full((2, 1, 4), np.inf)]
)
def test_look_at_refuses_boxes_that_are_none(loaded, encoded, boxes):
    with pytest.raises(tf.errors.InvalidArgumentError, match="boxes must be finite, at least one a picture"):
        loaded.signatures["look_at"](
            encoded=tf.constant(encoded[:2]), boxes=tf.constant(boxes.astype(np.float32))
        )
