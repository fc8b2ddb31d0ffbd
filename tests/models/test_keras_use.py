"""The model is used as any other Keras model: fit on arrays, metrics, callbacks, files, inside another model."""

import functools
import re
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_mcar import CLASSES, SIZE, batch_of, small_model

from mcar_tf.evaluating.keras_metrics import MeanAveragePrecision
from mcar_tf.models.keras_arguments import as_batch, as_stream_loss
from mcar_tf.models.mcar import build_mcar
from mcar_tf.training.losses import asymmetric, binary_cross_entropy
from mcar_tf.training.optimizers import TwoRateSGD


@pytest.fixture(scope="module")
def pictures():
    """Eight images and their labels, as `fit` takes them."""
    images = np.random.default_rng(0).uniform(0, 255, (8, SIZE, SIZE, 3)).astype(np.float32)
    return images, np.asarray(batch_of(images)["labels"])


def logits_and_labels():
    logits = np.array([[2.0, -1.0], [0.5, 3.0]], np.float32)
    return np.array([[1, 0], [0, 1]], np.float32), logits, np.array([[1, 1], [0, 2]], np.float32)


# ------------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize(
    "loss", ["binary_crossentropy", keras.losses.BinaryCrossentropy(from_logits=True), binary_cross_entropy]
)
def test_cross_entropy_of_keras_is_ours(loss):
    labels, logits, weights = logits_and_labels()
    # -log(sigmoid): 0.126928 for (2, yes), 0.313262 for (-1, no), no weight for (0.5, no), 2 x 0.048587 for (3, yes)
    assert float(as_stream_loss(loss)(labels, logits, weights)) == pytest.approx(
        (0.126928 + 0.313262 + 2 * 0.048587) / 4, abs=1e-6
    )


def squared(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)


@pytest.mark.parametrize("loss", ["mse", keras.losses.MeanSquaredError(), squared])
def test_other_losses_see_probabilities(loss):
    labels, logits, weights = logits_and_labels()
    probs = 1 / (1 + np.exp(-logits))
    expected = np.mean(weights * (labels - probs) ** 2)
    assert float(as_stream_loss(loss)(labels, logits, weights)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("categorical_crossentropy", "`loss` must judge each class by itself.*Received: categorical"),
        (keras.losses.CategoricalFocalCrossentropy(), "`loss` must judge each class by itself"),
        (keras.losses.BinaryCrossentropy(reduction="sum"), "leave its `reduction` out. Received: 'sum'"),
        (3, "`loss` must be a name, a Keras loss or a function. Received: 3"),
        ("binary_crosentropy", "must be one of Keras'. .* Did you mean `binary_crossentropy`"),
    ],
)
def test_losses_that_do_not_fit_are_refused(loss, message):
    with pytest.raises(ValueError, match=message):
        as_stream_loss(loss)


def test_a_loss_over_all_classes_at_once_is_refused():
    with pytest.raises(ValueError, match=r"one number for each image and class. dice gives shape \(\)"):
        as_stream_loss(keras.losses.Dice(axis=None))(*map(tf.constant, logits_and_labels()))


def test_a_class_weight_is_refused(pictures):
    model = small_model()
    model.compile("sgd")
    with pytest.raises(ValueError, match="`class_weight` is for images of one class each"):
        model.fit(*pictures, class_weight={0: 2.0})


# ------------------------------------------------------------------------------------------------ batches


def test_arrays_teach_what_the_pipelines_batches_teach(pictures):
    images, labels = pictures
    weights = []
    batches = tf.data.Dataset.from_tensor_slices((images.astype(np.uint8), labels.astype(bool))).batch(4)
    dicts = batches.map(lambda x, y: {"image": x, "labels": y})
    for data in ((images.astype(np.uint8), labels.astype(int)), (batches,), (dicts,)):
        model = small_model(tau=0.0)  # shapes are known or not, and another rounding must not move a box
        model.compile(TwoRateSGD(0.001))
        model.fit(*data, epochs=2, batch_size=4 if len(data) == 2 else None, shuffle=False, verbose=0)
        assert int(model.optimizer.iterations) == 4
        weights.append(model.get_weights())
    for one, other, third in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
        np.testing.assert_allclose(one, third, atol=1e-4)


def test_weights_of_images_count_for_all_their_labels():
    batch = as_batch((np.zeros((2, 8, 8, 3)), np.eye(2), np.array([1.0, 3.0])), 2)
    np.testing.assert_array_equal(batch["weights"], [[1, 1], [3, 3]])
    of_labels = as_batch((np.zeros((2, 8, 8, 3)), np.eye(2), np.array([[1.0, 0.0], [3.0, 1.0]])), 2)
    np.testing.assert_array_equal(of_labels["weights"], [[1, 0], [3, 1]])


@pytest.mark.parametrize("labels", [np.zeros(8), np.zeros((8, CLASSES + 1))])
def test_labels_of_another_shape_are_refused(pictures, labels):
    model = small_model()
    model.compile("sgd")
    with pytest.raises(ValueError, match=r"Labels must have shape \(images, 5\)"):
        model.evaluate(pictures[0], labels, verbose=0)


@pytest.mark.parametrize(
    ("labels", "received"),
    [
        (5 * np.eye(CLASSES), "from 0 to 5"),
        (np.eye(CLASSES) - 1, "from -1 to 0"),
        (np.eye(CLASSES) * np.nan, "from nan"),
    ],
)
def test_labels_outside_0_and_1_are_refused_before_a_step(pictures, labels, received):
    model, images = small_model(), pictures[0][:CLASSES]
    model.compile("sgd")
    said = rf"Labels must lie in \[0, 1\]: 1 where .* Received: {received}"
    for given in ((images, labels), (images, tf.constant(labels)), ({"image": images, "labels": labels},)):
        with pytest.raises(ValueError, match=said):
            model.fit(*given, verbose=0)
    with pytest.raises(ValueError, match=said):
        model.fit(*pictures, validation_data=(images, labels), verbose=0)
    with pytest.raises(ValueError, match=said):
        model.evaluate(images, labels, verbose=0)
    assert int(model.optimizer.iterations) == 0


def test_labels_between_0_and_1_are_learnt(pictures):
    model = small_model()
    model.compile("sgd")
    assert model.fit(pictures[0], pictures[1] * 0.9, verbose=0).history["loss"][0] > 0


@pytest.mark.parametrize("shape", [(8, SIZE, SIZE), (8, SIZE, SIZE, 1), (8, SIZE, SIZE, 4), (SIZE, SIZE, 3)])
def test_images_of_another_shape_are_refused_in_one_line(shape):
    model, images, labels = (
        small_model(),
        np.zeros(shape, np.float32),
        np.zeros((len(np.zeros(shape)), CLASSES)),
    )
    model.compile("sgd")
    dataset = tf.data.Dataset.from_tensors((images, labels))
    asked = [
        lambda: model.fit(images, labels, verbose=0),
        lambda: model.fit(dataset, verbose=0),
        lambda: model.evaluate(dataset, verbose=0),
        lambda: model.predict(images, verbose=0),
        lambda: model.predict(dataset, verbose=0),
    ]
    for ask in asked:
        with pytest.raises(
            ValueError, match=r"Images must have shape \(images, height, width, 3\)"
        ) as caught:
            ask()
        assert str(caught.value).endswith(f"grey ones have three equal channels. Received: {shape}")


@pytest.mark.parametrize("weights", [np.ones((8, 2)), np.ones((8, CLASSES, 1))])
def test_weights_of_another_shape_are_refused(pictures, weights):
    model = small_model()
    model.compile("sgd")
    said = r"Weights must have shape \(images,\) or \(images, 5\): .*Received: "
    with pytest.raises(ValueError, match=said + re.escape(str(weights.shape))):
        model.fit(*pictures, sample_weight=weights, verbose=0)
    with pytest.raises(ValueError, match=said):
        model.evaluate(tf.data.Dataset.from_tensors((*pictures, weights)), verbose=0)


def test_weights_of_both_shapes_count_alike_one_after_the_other(pictures):
    """Keras traces one step for both, in which the shape is not known."""
    model = small_model()
    model.compile("sgd")
    of_images = np.arange(8, dtype=np.float32)
    of_labels = np.repeat(of_images[:, None], CLASSES, axis=1)
    losses = [
        model.evaluate(*pictures, sample_weight=weights, verbose=0)
        for weights in (of_labels, of_images, of_labels, of_images[:, None])
    ]
    for loss in losses[1:]:
        np.testing.assert_allclose(loss, losses[0], rtol=1e-6)


def test_lists_are_refused_without_printing_them(pictures):
    model = small_model()
    model.compile("sgd")
    with pytest.raises(ValueError, match=r"^`y` must be an array or a tensor. Received: list$"):
        model.fit(pictures[0], pictures[1].tolist())


def test_names_that_keras_does_not_have_get_the_nearest():
    with pytest.raises(ValueError, match=r"`metrics` must be one of Keras'. .* Did you mean `accuracy`"):
        small_model().compile("sgd", metrics=["acuracy"])
    with pytest.raises(ValueError, match=r"`optimizer` must be one of Keras'. .* Did you mean `Adam`"):
        small_model().compile("adm")


def test_images_without_labels_are_refused(pictures):
    model = small_model()
    model.compile("sgd")
    with pytest.raises(ValueError, match="Training and evaluation need images and labels"):
        model.fit(pictures[0], verbose=0)


def test_predict_takes_arrays_and_datasets(pictures):
    model = small_model(tau=0.0)
    images = pictures[0]
    expected = model(images)["probs"]
    datasets = (
        tf.data.Dataset.from_tensor_slices(images).batch(4),
        tf.data.Dataset.from_tensor_slices(pictures).batch(4),
    )
    for data in (images, *datasets):
        np.testing.assert_allclose(model.predict(data, verbose=0)["probs"], expected, atol=1e-5)
    np.testing.assert_allclose(model.predict_on_batch(images)["probs"], expected, atol=1e-5)


# --------------------------------------------------------------------------------- metrics and callbacks


def test_metrics_see_the_fused_probabilities_and_the_weights(pictures):
    images, labels = pictures
    model = small_model()
    model.compile(
        TwoRateSGD(0.0),
        metrics=[
            "accuracy",
            keras.metrics.AUC(multi_label=True, name="auc"),
            keras.metrics.F1Score(average="micro", threshold=0.5, name="f1"),
            MeanAveragePrecision(capacity=8, num_classes=CLASSES),
            keras.metrics.mean_squared_error,
        ],
    )
    weights = np.ones_like(labels)
    weights[:, 0] = 0
    found = model.evaluate(images, labels, sample_weight=weights, batch_size=3, verbose=0, return_dict=True)
    names = {"accuracy", "auc", "f1", "mAP", "mean_squared_error"}
    assert set(found) == {"loss", "global_loss", "local_loss"} | names
    probs = model.predict(images, batch_size=3, verbose=0)["probs"]
    right = (probs > 0.5) == labels
    assert found["accuracy"] == pytest.approx(right[:, 1:].mean(), abs=1e-6)
    from mcar_tf import metrics

    squares = np.mean((probs - labels)[:, 1:] ** 2)
    assert found["mean_squared_error"] == pytest.approx(squares, abs=1e-6)
    assert found["mAP"] == pytest.approx(metrics.mean_average_precision(labels, probs, weights), abs=1e-6)
    history = model.fit(images, labels, batch_size=4, verbose=0).history
    assert names < set(history)


def test_metrics_of_one_class_an_image_are_refused():
    with pytest.raises(
        ValueError, match=r"`metrics` must judge each class by itself.*Received: TopKCategorical"
    ):
        small_model().compile("sgd", metrics=[keras.metrics.TopKCategoricalAccuracy()])


@pytest.mark.parametrize("options", [{"low_memory": True}, {"learning": "single"}, {"run_eagerly": True}])
def test_metrics_are_measured_in_training(pictures, options):
    model = small_model()
    model.compile(TwoRateSGD(0.0), metrics=["accuracy"], **options)
    history = model.fit(*pictures, batch_size=8, verbose=0).history
    assert 0 < history["accuracy"][0] < 1


def test_metrics_change_nothing_that_is_learnt(pictures):
    weights = []
    for metrics in (None, [keras.metrics.AUC(multi_label=True)]):
        model = small_model()
        model.compile(TwoRateSGD(0.01), metrics=metrics)
        model.fit(*pictures, batch_size=4, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_callbacks_stop_and_keep_the_best(pictures, tmp_path):
    model = small_model()
    model.compile("adam", loss="binary_crossentropy", metrics=[keras.metrics.AUC(name="auc")])
    best = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.keras", monitor="val_auc", mode="max", save_best_only=True
    )
    stop = keras.callbacks.EarlyStopping(
        monitor="val_auc", mode="max", min_delta=1.0, restore_best_weights=True
    )
    history = model.fit(*pictures, validation_data=pictures, epochs=5, callbacks=[best, stop], verbose=0)
    assert len(history.history["val_auc"]) == 2  # no epoch is better by 1
    kept = keras.models.load_model(tmp_path / "best.keras")
    found = kept.evaluate(*pictures, verbose=0, return_dict=True)
    assert found["auc"] == pytest.approx(max(history.history["val_auc"]), abs=1e-6)


# -------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_norm": "per_stream", "fusion": "mean", "glance_size": 16, "pooling": "csra", "top_n": 3},
        {"look_band": (0.2, 0.8), "localizer": "moments", "top_n": 1},
    ],
)
def test_a_model_is_saved_and_loaded_to_the_bit(pictures, options, tmp_path):
    model = small_model(**options)
    model.compile(TwoRateSGD(0.01), metrics=["accuracy"], own_region=0.25)
    model.fit(*pictures, batch_size=4, shuffle=False, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    for name, value in model.predict(pictures[0], verbose=0).items():
        np.testing.assert_array_equal(loaded.predict(pictures[0], verbose=0)[name], value)
    for one in (model, loaded):
        one.fit(*pictures, batch_size=4, shuffle=False, verbose=0)  # momentum goes on too
    assert loaded.own_region == 0.25
    for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_new_process_loads_a_saved_model(pictures, tmp_path):
    model = small_model(tau=0.0)
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "images.npy", pictures[0])
    script = (
        "import keras, numpy, mcar_tf.models.mcar\n"
        f"model = keras.models.load_model({str(tmp_path / 'm.keras')!r})\n"
        f"images = numpy.load({str(tmp_path / 'images.npy')!r})\n"
        f"numpy.save({str(tmp_path / 'probs.npy')!r}, model.predict(images, verbose=0)['probs'])\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    expected = model.predict(pictures[0], verbose=0)["probs"]
    np.testing.assert_array_equal(np.load(tmp_path / "probs.npy"), expected)


def test_a_loss_that_can_not_be_saved_is_left_out_with_a_warning(tmp_path):
    model = small_model()
    model.compile("sgd", loss=functools.partial(asymmetric, margin=0.1))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.save(tmp_path / "m.keras")
    assert "the loss can't be written to a file" in "".join(str(warning.message) for warning in told)
    assert not keras.models.load_model(tmp_path / "m.keras").compiled


def test_a_model_is_made_again_from_its_config():
    model = small_model(pooling="gap", tau=0.3)
    again = type(model).from_config(model.get_config())
    assert again.get_config() == model.get_config()
    again.set_weights(model.get_weights())
    image = np.full((1, SIZE, SIZE, 3), 100, np.float32)
    np.testing.assert_array_equal(again(image)["probs"], model(image)["probs"])


def test_a_saved_model_of_keras_gives_the_same_answers(pictures, tmp_path):
    model = small_model(tau=0.0)
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    answers = exported.serve(pictures[0])
    np.testing.assert_allclose(answers["probs"], model(pictures[0])["probs"], atol=1e-5)
    with pytest.raises(
        ValueError, match=r"`format` must be tf_saved_model.*write_tflite.*Received: 'litert'"
    ):
        model.export(tmp_path / "m.tflite", format="litert")


# ---------------------------------------------------------------------------------- inside other models


def test_a_model_is_a_layer_of_another(pictures, tmp_path):
    images, labels = pictures
    inner = small_model(tau=0.0)
    inputs = keras.Input((SIZE, SIZE, 3))
    outer = keras.Model(inputs, keras.layers.Dense(CLASSES, "sigmoid")(inner(inputs)["probs"]))
    before = [weight.numpy() for weight in inner.backbone.trainable_weights]
    outer.compile("sgd", "binary_crossentropy")
    outer.fit(images, labels, verbose=0)
    assert any((a != b.numpy()).any() for a, b in zip(before, inner.backbone.trainable_weights, strict=True))
    outer.save(tmp_path / "outer.keras")
    loaded = keras.models.load_model(tmp_path / "outer.keras")
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), outer.predict(images, verbose=0))


def own_network(side=None):
    inputs = keras.Input((side, side, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.BatchNormalization(momentum=0.99)(keras.layers.Conv2D(8, 3, 4, "same")(x))
    inside = keras.Sequential([keras.Input((None, None, 8)), keras.layers.BatchNormalization()])
    return keras.Model(inputs, keras.layers.ReLU()(inside(x)))


def test_a_network_of_ones_own_is_a_backbone(pictures, tmp_path):
    network = own_network()
    network.layers[2].bias.assign(np.arange(8) / 10)
    model = build_mcar(CLASSES, network, image_size=SIZE, top_n=2, batch_norm="per_stream")
    np.testing.assert_allclose(
        model.global_pass(pictures[0], training=False)[0], network(pictures[0]), atol=1e-5
    )
    norms = [layer for layer in model.backbone._flatten_layers() if hasattr(layer, "statistics")]
    assert [(norm.momentum, norm.statistics) for norm in norms] == [(0.9, "per_stream")] * 2
    model.compile("adam")
    assert model.fit(*pictures, verbose=0).history["loss"][0] > 0
    assert float(network.layers[2].bias[1]) == pytest.approx(0.1)  # the user's own stays as it was
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    expected = model.predict(pictures[0], verbose=0)["probs"]
    np.testing.assert_array_equal(loaded.predict(pictures[0], verbose=0)["probs"], expected)


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (own_network(64), {}, r"`backbone` takes images of 64 px, and has to take 32"),
        (own_network(32), {"local_size": 16}, r"takes images of 32 px, and has to take 16 and 32"),
        (
            own_network(),
            {"weights": "a.h5"},
            "`backbone_width` and `weights` are for backbones given by name",
        ),
        (keras.Sequential(), {}, "`backbone` must be a name, or a functional or sequential Keras model"),
        (own_network(), {"glance_size": 20}, "`glance_size` must divide `image_size`"),
    ],
)
def test_networks_that_can_not_be_a_backbone_are_refused(network, options, message):
    with pytest.raises(ValueError, match=message):
        build_mcar(CLASSES, network, image_size=SIZE, top_n=2, **options)


def test_nothing_of_this_warns(pictures):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = small_model()
        model.compile("sgd", metrics=["accuracy"])
        model.fit(tf.data.Dataset.from_tensor_slices(pictures).batch(3), epochs=2, shuffle=False, verbose=0)
        assert int(model.optimizer.iterations) == 6
