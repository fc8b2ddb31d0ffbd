"""Write a model as a SavedModel for TensorFlow Serving: one graph from the bytes of pictures to the answers.

Loading it needs nothing but TensorFlow. Letters: B pictures, C classes, N regions, S px a side.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from mcar_tf.exporting.folder import CARD, LABELS, THRESHOLDS, labels_text, thresholds_text
from mcar_tf.exporting.forms import GLOBAL_ONLY, LOOK_AT, LOOKED_AT, Array, LoadedForm, Material, PictureBatch
from mcar_tf.models.crop import crop_and_resize
from mcar_tf.models.mcar import MCAR, Outputs
from pipelines.decode import decode_and_resize
from pipelines.headers import read_orientation, read_size
from pipelines.pictures import MAX_MEGAPIXELS
from pipelines.scans import has_too_many_scans_in_graph


def write_form(material: Material, path: Path, precision: None = None) -> None:
    """Write the form `saved_model` of the table of forms."""
    write_saved_model(
        material.model, material.classes, path, thresholds=material.thresholds, card=material.card
    )


def write_saved_model(
    model: MCAR,
    classes: Sequence[str],
    path: Path,
    *,
    thresholds: Sequence[float] | None = None,
    card: str = "",
) -> None:
    """Write a model together with the decoding of pictures.

    Its signatures; the first two have the outputs of `MCAR.call`:

    - `serving_default`: takes `encoded` (B,) string, the files unchanged. It also gives `valid` (B,) bool: for an
      entry that is not a picture, or too large, it is False, every other output is 0, and `box_classes` is -1. Other
      entries are not affected.
    - `serve_tensor`: takes `images` (B, height, width, 3) uint8 RGB, upright, of any size.
    - `global_only`: takes `encoded` and runs the global pass only. Gives `global_probs`, `valid`, and if N > 0 the
      regions to look at, `boxes` and `box_classes`.
    - `look_at`, if N > 0: takes `encoded` and `boxes` (B, M, 4), M regions of each picture. Gives `probs` (B, C), the
      largest of each class over the regions, `region_probs` (B, M, C), those of each region, and `valid`.
    - `classify`, for clients without a list of names: takes `encoded`. Gives `classes` (B, C) string and `scores`
      (B, C), most probable first, and `valid`.

    `assets.extra/` holds one request for each signature except `classify` and `look_at`. TensorFlow Serving runs them
    before it accepts clients.

    Args:
        model: any MCAR model.
        classes: C names, written to `assets/labels.txt`.
        path: folder to create; TensorFlow Serving wants it named by a version: `.../saved_model/1`.
        thresholds: C probabilities from which on a class counts as present, written to `assets/thresholds.json`.
        card: text about the model, written to `assets/card.md`.
    """
    module = tf.Module()
    module.variables_of_model = [weight.value for weight in model.weights]
    signatures = _make_signatures(model, classes)
    with tempfile.TemporaryDirectory() as folder:
        files = {LABELS: labels_text(classes)}
        if thresholds is not None:
            files[THRESHOLDS] = thresholds_text(classes, thresholds)
        if card:
            files[CARD] = card
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        module.assets = [tf.saved_model.Asset(str(Path(folder) / name)) for name in files]
        tf.saved_model.save(module, str(path), signatures=signatures)
    write_warmup(path, model.image_size)


def load_form(path: Path) -> LoadedForm:
    """A SavedModel as a function from files' bytes to outputs, to compare it with its model."""
    signatures = tf.saved_model.load(str(path)).signatures

    def answer(batch: PictureBatch) -> dict[str, Array]:
        encoded = tf.constant(batch["encoded"])
        outputs = dict(signatures["serving_default"](encoded=encoded))
        del outputs["valid"]
        once = signatures["global_only"](encoded=encoded)
        outputs[GLOBAL_ONLY] = once["global_probs"]
        if LOOK_AT in signatures:
            outputs[LOOKED_AT] = once["boxes"][:, :1]
            outputs[LOOK_AT] = signatures[LOOK_AT](encoded=encoded, boxes=outputs[LOOKED_AT])["probs"]
        return {name: value.numpy() for name, value in outputs.items()}

    def answer_pixels(batch: PictureBatch) -> dict[str, Array]:
        images = tf.constant(batch["image"].astype(np.uint8))
        return {name: value.numpy() for name, value in signatures["serve_tensor"](images=images).items()}

    return LoadedForm(answer, answer_pixels=answer_pixels)


def _make_signatures(
    model: MCAR, classes: Sequence[str]
) -> dict[str, tf.types.experimental.PolymorphicFunction]:
    strings = tf.TensorSpec((None,), tf.string, name="encoded")

    @tf.function(input_signature=[strings], autograph=False)
    def serving_default(encoded: tf.Tensor) -> Outputs:
        images, valid = decode_pictures(encoded, model.image_size)
        return _blank(model(images, training=False, crop=crop_and_resize), valid)

    @tf.function(
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")], autograph=False
    )
    def serve_tensor(images: tf.Tensor) -> Outputs:
        size = (model.image_size, model.image_size)
        resized = tf.image.resize(images, size, antialias=True)
        return model(resized, training=False, crop=crop_and_resize)

    @tf.function(input_signature=[strings], autograph=False)
    def global_only(encoded: tf.Tensor) -> Outputs:
        images, valid = decode_pictures(encoded, model.image_size)
        return _blank(model.glance(images), valid)

    @tf.function(
        input_signature=[strings, tf.TensorSpec((None, None, 4), tf.float32, name="boxes")], autograph=False
    )
    def look_at(encoded: tf.Tensor, boxes: tf.Tensor) -> Outputs:
        right = tf.reduce_all(tf.math.is_finite(boxes)) & (tf.shape(boxes)[1] > 0)
        with tf.control_dependencies(
            [tf.debugging.Assert(right, ["boxes must be finite, at least one a picture"])]
        ):
            images, valid = decode_pictures(encoded, model.image_size)
        region_probs = tf.sigmoid(model.look_at(images, boxes, crop=crop_and_resize))
        return _blank({"probs": tf.reduce_max(region_probs, axis=1), "region_probs": region_probs}, valid)

    @tf.function(input_signature=[strings], autograph=False)
    def classify(encoded: tf.Tensor) -> Outputs:
        outputs = serving_default(encoded)
        order = tf.argsort(outputs["probs"], direction="DESCENDING", stable=True)
        scores = tf.gather(outputs["probs"], order, batch_dims=1)
        return {
            "classes": tf.gather(tf.constant(list(classes)), order),
            "scores": scores,
            "valid": outputs["valid"],
        }

    functions = [serving_default, serve_tensor, global_only, classify]
    if model.top_n:
        functions.append(look_at)
    return {function.__name__: function for function in functions}


def write_warmup(path: Path, image_size: int) -> None:
    """Write the requests with which TensorFlow Serving warms up a model: a grey picture of the model's size."""
    pixels = tf.fill((1, image_size, image_size, 3), tf.constant(127, tf.uint8))
    encoded = tf.io.encode_png(pixels)
    requests = {
        "serving_default": ("encoded", encoded),
        "serve_tensor": ("images", pixels),
        "global_only": ("encoded", encoded),
    }
    folder = path / "assets.extra"
    folder.mkdir()
    with tf.io.TFRecordWriter(str(folder / "tf_serving_warmup_requests")) as writer:
        for signature, (name, value) in requests.items():
            writer.write(_prediction_log(signature, name, tf.make_tensor_proto(value).SerializeToString()))


def _prediction_log(signature: str, name: str, tensor: bytes) -> bytes:
    """A PredictionLog of TensorFlow Serving with one predict request in it.

    It is encoded by hand, because the package with its classes pins TensorFlow. The numbers are those of the fields
    in tensorflow_serving/apis/prediction_log.proto, predict.proto and model.proto.
    """

    def field(number: int, content: bytes) -> bytes:
        # Protocol buffers' wire type 2: field number and type, length in groups of 7 bits, content.
        length, groups = len(content), b""
        while length > 127:
            groups, length = groups + bytes([length & 127 | 128]), length >> 7
        return bytes([number << 3 | 2]) + groups + bytes([length]) + content

    model_spec = field(1, b"mcar") + field(3, signature.encode())  # name, signature_name
    an_input = field(1, name.encode()) + field(2, tensor)  # an entry of a map: key, value
    request = field(1, model_spec) + field(2, an_input)  # model_spec, inputs
    return field(6, field(1, request))  # predict_log, request


def decode_pictures(encoded: tf.Tensor, image_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode what can be decoded, turn it upright and resize it to S x S, each picture separately.

    A picture of more than `MAX_MEGAPIXELS` is not decoded: a few kilobytes can unpack into gigabytes. Neither is a
    JPEG with hundreds of scans, which would take minutes.

    Args:
        encoded: (B,) string, B at least 1.
        image_size: S.

    Returns:
        (B, S, S, 3) float32 in [0, 255], black for what was not decoded; (B,) bool, whether it was decoded.
    """

    # A graph has no `try`, but a dataset can skip what failed, and the element after it is taken instead.
    def try_to_decode(data: tf.Tensor) -> tf.data.Dataset:
        def decode(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return decode_and_resize(data, read_orientation(data), image_size), True

        def is_small_enough(data: tf.Tensor) -> tf.Tensor:
            height, width = read_size(data)
            pixels = height * width
            few_scans = ~has_too_many_scans_in_graph(data, pixels)
            return few_scans & (pixels <= round(MAX_MEGAPIXELS * 1e6))

        black = tf.zeros((image_size, image_size, 3)), False
        # Filter first: a picture that is too large must not be decoded to find that out.
        tried = tf.data.Dataset.from_tensors(data).filter(is_small_enough).map(decode).ignore_errors()
        return tried.concatenate(tf.data.Dataset.from_tensors(black)).take(1)

    pictures = tf.data.Dataset.from_tensor_slices(encoded).interleave(
        try_to_decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    return pictures.batch(tf.shape(encoded, tf.int64)[0]).get_single_element()


def _blank(outputs: Outputs, valid: tf.Tensor) -> Outputs:
    """Outputs with 0, and -1 for classes of regions, in the rows that are not valid."""

    def blank(name: str, value: tf.Tensor) -> tf.Tensor:
        rows = tf.reshape(valid, [-1] + [1] * (value.shape.rank - 1))
        return tf.where(rows, value, tf.constant(-1 if name == "box_classes" else 0, value.dtype))

    return {name: blank(name, value) for name, value in outputs.items()} | {"valid": valid}
