import keras
import numpy as np
import pytest
import tensorflow as tf
from little_network import little_network

from mcar_tf.models import backbones
from mcar_tf.models.backbone_table import BACKBONES
from mcar_tf.models.backbones import build_backbone, to_caffe_bgr, to_unit_range
from mcar_tf.models.heads import Classifier, global_pool
from mcar_tf.models.keras_internals import layers_of
from mcar_tf.models.mcar import build_mcar
from mcar_tf.training.losses import binary_cross_entropy
from mcar_tf.training.optimizers import TwoRateSGD
from pipelines.command import describe_error

SIZE, CLASSES = 32, 5


def small_model(**changes):
    keras.utils.set_random_seed(0)
    arguments = {
        "backbone": little_network(),
        "image_size": SIZE,
        "weights": None,
        "top_n": 2,
    }
    model = build_mcar(CLASSES, **arguments | changes)
    # Large weights of the head: maps with peaks, classes with different probabilities.
    kernel, bias = model.classifier.get_weights()
    model.classifier.set_weights([20 * kernel, np.linspace(-1, 1, CLASSES)])
    return model


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0, 255, (4, SIZE, SIZE, 3)).astype(np.float32)


def batch_of(images, seed=0):
    labels = (np.random.default_rng(seed).random((len(images), CLASSES)) > 0.6).astype(np.float32)
    return {"image": tf.constant(images), "labels": labels, "weights": np.ones_like(labels)}


# ------------------------------------------------------------------------------------------------ forward


def test_outputs_have_the_documented_shapes_and_relations(model, images):
    outputs = {name: value.numpy() for name, value in model(images).items()}
    assert outputs["boxes"].shape == (4, 2, 4)
    assert outputs["box_classes"].dtype == np.int32
    np.testing.assert_array_equal(
        outputs["probs"], np.maximum(outputs["global_probs"], outputs["local_probs"])
    )
    # The two classes of highest global probability, the higher one first.
    np.testing.assert_array_equal(outputs["box_classes"], np.argsort(-outputs["global_probs"])[:, :2])
    own = np.take_along_axis(outputs["local_probs"], outputs["box_classes"], 1)
    assert (outputs["box_probs"] <= own + 1e-6).all()


def test_no_regions_is_the_plain_backbone(model, images):
    plain = small_model(top_n=0)
    outputs = plain(images)
    assert outputs["boxes"].shape == (4, 0, 4)
    np.testing.assert_array_equal(outputs["local_probs"], outputs["global_probs"])
    np.testing.assert_allclose(outputs["global_probs"], model(images)["global_probs"], atol=1e-6)


def test_the_local_stream_is_the_same_network_on_resized_crops(model, images):
    outputs = model(images)
    ymin, xmin, ymax, xmax = np.rint(outputs["boxes"][1, 0].numpy() * SIZE).astype(int)
    from oracles import resize

    crops = [resize(images[1, ymin:ymax, xmin:xmax], SIZE, SIZE)]
    ymin, xmin, ymax, xmax = np.rint(outputs["boxes"][1, 1].numpy() * SIZE).astype(int)
    crops.append(resize(images[1, ymin:ymax, xmin:xmax], SIZE, SIZE))
    alone = small_model(top_n=0)(np.array(crops, np.float32))["global_probs"].numpy()
    np.testing.assert_allclose(outputs["local_probs"][1], alone.max(0), atol=1e-4)


def test_tau_zero_looks_at_the_whole_image_again(images):
    outputs = small_model(tau=0.0)(images)
    np.testing.assert_array_equal(outputs["boxes"], np.broadcast_to([0, 0, 1, 1], (4, 2, 4)))
    np.testing.assert_allclose(outputs["local_probs"], outputs["global_probs"], atol=1e-5)


def test_given_boxes_replace_the_localizer(model, images):
    boxes = np.broadcast_to(np.array([0, 0, 0.5, 0.5], np.float32), (4, 2, 4))
    outputs = model(images, boxes=boxes)
    np.testing.assert_array_equal(outputs["boxes"], boxes)
    assert np.abs(outputs["local_probs"] - model(images)["local_probs"]).max() > 1e-3


@pytest.mark.parametrize("selection", ["bottom", "random"])
def test_other_selections(selection, images):
    outputs = small_model(selection=selection)(images)
    if selection == "bottom":
        np.testing.assert_array_equal(
            outputs["box_classes"], np.argsort(outputs["global_probs"], axis=1)[:, :2]
        )
    else:
        again = small_model(selection=selection)(images)["box_classes"]
        np.testing.assert_array_equal(outputs["box_classes"], again)  # seeded
        other = small_model(selection=selection, selection_seed=1)(images)["box_classes"]
        assert not np.array_equal(again, other)
        assert all(len(set(row)) == 2 for row in outputs["box_classes"].numpy())  # without replacement


def test_weights_fit_other_sizes_regions_and_thresholds(model, images, tmp_path):
    model.save_weights(tmp_path / "a.weights.h5")
    other = small_model(image_size=48, top_n=5, tau=0.3, pooling="gap")
    other.load_weights(tmp_path / "a.weights.h5")
    outputs = other(np.zeros((1, 48, 48, 3), np.float32))
    assert outputs["boxes"].shape == (1, 5, 4)
    same = small_model(top_n=3)
    same.load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_allclose(same(images)["global_probs"], model(images)["global_probs"], atol=1e-6)


def test_regions_are_looked_at_in_their_own_size(images):
    from mcar_tf.models.crop import crop_and_resize

    boxes = np.broadcast_to(np.array([[0, 0, 0.5, 0.75], [0.25, 0.25, 1, 1]], np.float32), (4, 2, 4))
    local_probs = small_model(local_size=16)(images, boxes=boxes)["local_probs"]
    crops = tf.reshape(crop_and_resize(tf.constant(images), tf.constant(boxes), 16), [8, 16, 16, 3])
    alone = small_model(top_n=0, image_size=16)(crops)["global_probs"].numpy().reshape(4, 2, CLASSES)
    np.testing.assert_allclose(local_probs, alone.max(1), atol=1e-5)
    assert np.abs(local_probs - small_model()(images, boxes=boxes)["local_probs"]).max() > 1e-3


def test_the_portable_crop_changes_nothing(model, images):
    from mcar_tf.models.crop import crop_and_resize_portable

    expected = model(images)
    outputs = model(images, crop=crop_and_resize_portable)
    np.testing.assert_array_equal(outputs["boxes"], expected["boxes"])
    np.testing.assert_allclose(outputs["local_probs"], expected["local_probs"], atol=1e-4)


# ------------------------------------------------------------------------------------- heads and backbones


def test_pooling_is_that_of_equations_13_to_15():
    features = np.array([[[[1.0], [2.0]], [[3.0], [6.0]]]], np.float32)  # mean 3, maximum 6
    assert global_pool(features, "gap").numpy() == [[3]]
    assert global_pool(features, "gmp").numpy() == [[6]]
    assert global_pool(features, "gwp", 0.5).numpy() == [[4.5]]
    assert global_pool(features, "gwp", 0.75).numpy() == [[3.75]]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_pooling_adds_up_in_single_precision(dtype):
    # All 30, exact in both types; but 196 of them make 5880, where neighbours in float16 are 4 apart, in bfloat16 32.
    features = tf.fill([1, 14, 14, 1], tf.constant(30, dtype))
    for pooling in ("gap", "gmp", "gwp"):
        pooled = global_pool(features, pooling)
        assert pooled.dtype == tf.float32
        assert pooled.numpy() == [[30]]
    large = tf.fill([1, 14, 14, 1], tf.constant(400, dtype))  # 78400 in sum: more than float16 can hold
    assert global_pool(large, "gap").numpy() == [[400]]


def test_the_mean_of_a_class_activation_map_is_the_logit_of_average_pooling():
    classifier = Classifier(4)
    classifier.build((None, 6))
    classifier.bias.assign([1.0, 2.0, 3.0, 4.0])
    features = np.random.default_rng(0).random((2, 3, 5, 6), np.float32)
    classes = np.array([[3, 0], [1, 2]], np.int32)
    maps = classifier.class_activation_maps(features, classes)
    logits = classifier(global_pool(features, "gap")).numpy()
    np.testing.assert_allclose(
        tf.reduce_mean(maps, axis=[2, 3]), np.take_along_axis(logits, classes, 1), rtol=1e-5
    )


def test_input_scaling_is_what_keras_applications_do():
    image = np.random.default_rng(0).uniform(0, 255, (1, 2, 2, 3)).astype(np.float32)
    resnet = keras.applications.resnet.preprocess_input(image.copy())
    mobilenet = keras.applications.mobilenet_v2.preprocess_input(image.copy())
    np.testing.assert_allclose(to_caffe_bgr(tf.constant(image)), resnet, atol=1e-4)
    np.testing.assert_allclose(to_unit_range(tf.constant(image)), mobilenet, atol=1e-6)


def test_every_batch_norm_of_a_backbone_has_the_papers_momentum():
    backbone = build_backbone("mobilenet_v2", weights=None, width=0.35)
    norms = layers_of(backbone, keras.layers.BatchNormalization)
    assert len(norms) == 52
    assert {norm.momentum for norm in norms} == {0.9}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "channels"), [("resnet50", 2048), ("resnet101", 2048), ("mobilenet_v2", 1280)]
)
def test_backbones_take_any_size_and_give_their_last_map(name, channels):
    backbone = build_backbone(name, weights=None)
    for side in (64, 96):
        assert backbone(np.zeros((1, side, side, 3), np.float32)).shape == (
            1,
            side // 32,
            side // 32,
            channels,
        )


def test_weights_of_a_file_are_those_of_keras_applications(tmp_path):
    keras.utils.set_random_seed(1)
    source = keras.applications.MobileNetV2(
        include_top=False, weights=None, alpha=0.35, input_shape=(None, None, 3)
    )
    source.save_weights(tmp_path / "m.weights.h5")
    image = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    backbone = build_backbone("mobilenet_v2", weights=tmp_path / "m.weights.h5", width=0.35)
    np.testing.assert_allclose(backbone(image), source(image / 127.5 - 1), atol=1e-5)
    with pytest.raises(
        ValueError, match=r"`weights`: .*m\.weights\.h5 does not hold weights of mobilenet_v2"
    ):
        build_backbone("mobilenet_v2", weights=tmp_path / "m.weights.h5", width=0.5)


def test_missing_weights_are_named_before_anything_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr(backbones, "_build_network", lambda *_: pytest.fail("built"))
    with pytest.raises(
        FileNotFoundError, match=r"`weights` must be imagenet, none or an existing file.*nothing\.weights\.h5"
    ):
        build_backbone("tiny_resnet", weights=tmp_path / "nothing.weights.h5")


def test_every_line_of_the_table_is_a_network():
    for entry in BACKBONES.values():
        assert entry.scaling in backbones.SCALINGS
        assert entry.network in backbones.OWN_NETWORKS or hasattr(keras.applications, entry.network)


def test_a_download_that_fails_says_what_to_do(monkeypatch):
    def offline(*args, **kwargs):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications, "MobileNetV2", offline)
    with pytest.raises(
        FileNotFoundError, match=r"could not be downloaded \(URL fetch failure\). Pass the path of a file"
    ) as raised:
        build_backbone("mobilenet_v2", weights="imagenet")
    code, line = describe_error(raised.value)
    assert code == 2
    assert line.startswith("error: ImageNet weights of mobilenet_v2 could not be downloaded")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top_n": 6}, r"`top_n` must lie in \[0, 5\].*Received: 6"),
        ({"top_n": -1}, r"`top_n` must lie in \[0, 5\].*Received: -1"),
        ({"tau": 1.0}, r"`tau` must lie in \[0, 1\). Received: 1.0"),
        ({"gwp_lambda": 1.5}, r"`gwp_lambda` must lie in \[0, 1\]. Received: 1.5"),
        ({"pooling": "avg"}, r"`pooling` must be one of gap, gmp, gwp, csra. Received: 'avg'"),
        ({"backbone": "resnet-50"}, r"`backbone` must be one of .*Did you mean 'resnet50'"),
        ({"backbone_width": float("nan")}, "`backbone_width` must be positive. Received: nan"),
        ({"backbone": "resnet50", "backbone_width": 0.5}, r"`backbone_width` must be 1 for resnet50"),
        (
            {"backbone": "mobilenet_v2", "backbone_width": 0.6, "weights": "imagenet"},
            r"`backbone_width` must be one of 0.35, 0.5, 0.75, 1, 1.3, 1.4, .*Received: 0.6",
        ),
        ({"weights": "imagenet"}, r"`weights` of tiny_resnet must be none or a file. Received: imagenet"),
        (
            {"backbone": "mobilenet_v2", "image_size": 16},
            r"`image_size` must be at least 32 px for mobilenet_v2",
        ),
        ({"local_size": 8}, r"`local_size` must be at least 16 px for tiny_resnet"),
        ({"selection": "best"}, r"`selection` must be one of top, bottom, random"),
    ],
)
def test_what_no_model_can_be_built_of_is_refused_before_anything_is_built(change, message, monkeypatch):
    monkeypatch.setattr("mcar_tf.models.mcar.build_backbone", lambda *a, **k: pytest.fail("built"))
    with pytest.raises(ValueError, match=message):
        build_mcar(
            CLASSES, **{"backbone": "tiny_resnet", "image_size": SIZE, "weights": None, "top_n": 2} | change
        )


# ----------------------------------------------------------------------------------------------- training


def test_binary_cross_entropy_is_the_weighted_sum_over_batch_and_classes():
    labels = np.array([[1, 0], [0, 1]], np.float32)
    probs = np.array([[0.9, 0.2], [0.4, 0.5]])
    weights = np.array([[1, 1], [0, 1]], np.float32)
    logits = np.log(probs / (1 - probs)).astype(np.float32)
    expected = -(np.log(0.9) + np.log(0.8) + np.log(0.5)) / 4  # the divisor stays batch x classes
    assert float(binary_cross_entropy(labels, logits, weights)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("learning", ["pair", "single"])
def test_losses_of_the_two_strategies(images, learning):
    model = small_model()
    kernel, bias = model.classifier.get_weights()
    model.classifier.set_weights([kernel / 20, bias])  # probabilities that float32 can tell from 0 and 1
    model.compile(TwoRateSGD(0.0), binary_cross_entropy, learning=learning)
    batch = batch_of(images)
    losses = {name: float(value) for name, value in model.losses_of(batch, training=False).items()}
    outputs = model(images)

    def entropy(probs):
        p = np.clip(probs.numpy().astype(np.float64), 1e-12, 1 - 1e-12)
        return -np.mean(batch["labels"] * np.log(p) + (1 - batch["labels"]) * np.log1p(-p))

    assert losses["global_loss"] == pytest.approx(entropy(outputs["global_probs"]), rel=1e-4)
    assert losses["local_loss"] == pytest.approx(entropy(outputs["local_probs"]), rel=1e-4)
    both = losses["global_loss"] + losses["local_loss"]
    assert losses["loss"] == pytest.approx(
        both if learning == "pair" else entropy(outputs["probs"]), rel=1e-4
    )


def test_no_gradient_reaches_the_backbone_through_maps_or_boxes(model, images):
    with tf.GradientTape() as tape:
        features, logits = model.global_pass(tf.constant(images), training=False)
        classes = model.select_classes(logits)
        maps = model.classifier.class_activation_maps(features, classes)
        boxes = model.find_boxes(features, classes, images)
        target = tf.reduce_sum(maps) + tf.reduce_sum(boxes)
    gradients = tape.gradient(target, [*model.backbone.trainable_variables, model.classifier.kernel])
    assert all(g is None for g in gradients[:-1])


def test_both_streams_reach_the_backbone_through_the_pixels_features(model, images):
    model.compile(TwoRateSGD(0.0), binary_cross_entropy)
    for stream in ("global_loss", "local_loss"):
        with tf.GradientTape() as tape:
            loss = model.losses_of(batch_of(images), training=True)[stream]
        gradients = tape.gradient(loss, model.backbone.trainable_variables)
        assert all(g is not None and np.abs(g).max() > 0 for g in gradients)


def test_a_label_of_no_weight_teaches_nothing(images):
    results = []
    for label in (0.0, 1.0):
        model = small_model()
        model.compile(TwoRateSGD(0.1), binary_cross_entropy)
        batch = batch_of(images)
        batch["labels"][:, 2], batch["weights"][:, 2] = label, 0.0
        model.fit(tf.data.Dataset.from_tensors(batch), steps_per_epoch=1, verbose=0, shuffle=False)
        results.append(model.get_weights())
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "options", [{}, {"learning": "single"}, pytest.param({"jit_compile": True}, marks=pytest.mark.slow)]
)
def test_training_lowers_the_loss(images, options):
    model = small_model()
    model.compile(TwoRateSGD(0.01), binary_cross_entropy, **options)
    dataset = tf.data.Dataset.from_tensors(batch_of(images)).repeat(12)
    losses = model.fit(dataset, epochs=2, steps_per_epoch=6, verbose=0, shuffle=False).history["loss"]
    assert losses[1] < losses[0]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains_and_keeps_probabilities_in_float32(images, policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = small_model()
        model.compile(TwoRateSGD(0.01), binary_cross_entropy)
        before = [w.numpy() for w in model.trainable_weights]
        dataset = tf.data.Dataset.from_tensors(batch_of(images)).repeat(12)
        losses = model.fit(dataset, epochs=2, steps_per_epoch=6, verbose=0, shuffle=False).history["loss"]
        assert losses[1] < losses[0]
        for old, new in zip(before, model.trainable_weights, strict=True):
            assert np.abs(old - new.numpy()).max() > 0, new.path
        outputs = model(images)
        assert outputs["probs"].dtype == outputs["boxes"].dtype == tf.float32
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("name", ["weighted_metrics", "loss_weights"])
def test_arguments_that_would_do_nothing_are_refused(name, model):
    with pytest.raises(ValueError, match=f"`{name}` does nothing here"):
        model.compile(TwoRateSGD(0.0), binary_cross_entropy, **{name: ["auc"]})


def test_predict_and_evaluate_take_batches_of_the_pipeline(images):
    model = small_model(
        tau=0.0
    )  # the same boxes in a graph as outside of one, where rounding may move others
    model.compile(TwoRateSGD(0.0), binary_cross_entropy)
    dataset = tf.data.Dataset.from_tensors(batch_of(images)).repeat(2)
    np.testing.assert_allclose(
        model.predict(dataset, verbose=0)["probs"], np.tile(model(images)["probs"], (2, 1)), atol=1e-6
    )
    assert set(model.evaluate(dataset, verbose=0, return_dict=True)) == {"loss", "global_loss", "local_loss"}
