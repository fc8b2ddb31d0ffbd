"""What the model can do beyond the paper, each against a slow definition; off, it changes no bit."""

import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf
from little_network import little_network
from test_mcar import CLASSES, SIZE, batch_of, small_model

from mcar_tf.models.batch_norm import MOVING, copy_backbone
from mcar_tf.models.boxes import jitter_boxes
from mcar_tf.models.crop import crop_and_resize
from mcar_tf.models.mcar import build_mcar
from mcar_tf.training.losses import asymmetric, binary_cross_entropy
from mcar_tf.training.optimizers import TwoRateSGD

BOXES = np.broadcast_to(np.array([[0, 0, 0.5, 0.75], [0.25, 0.25, 1, 1]], np.float32), (4, 2, 4))
PAPERS = {
    "glance_size": None,
    "localizer": "threshold",
    "min_box_cells": 0.0,
    "box_jitter": 0.0,
    "fusion": "max",
    "batch_norm": "shared",
}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0, 255, (4, SIZE, SIZE, 3)).astype(np.float32)


def logit(probs) -> np.ndarray:
    probs = np.asarray(probs, np.float64)
    return np.log(probs / (1 - probs))


def gentle_model(**changes):
    """A model of probabilities that float32 can tell from 0 and 1."""
    model = small_model(**changes)
    kernel, bias = model.classifier.get_weights()
    model.classifier.set_weights([kernel / 20, bias])
    return model


def trained(images, steps=3, model=None, compiled=None, **changes):
    """A model after some steps on the same batch, op by op: quicker than to make graphs."""
    model = model or small_model(**changes)
    model.compile(TwoRateSGD(0.01), **({"loss": binary_cross_entropy} | (compiled or {})))
    for _ in range(steps):
        model.train_step(batch_of(images))
    return model


def test_options_at_the_papers_values_change_no_bit_of_forward_pass_and_training(images):
    papers, options = small_model(), small_model(**PAPERS)
    for name, value in options(images).items():
        np.testing.assert_array_equal(value, papers(images)[name], err_msg=name)
    off = {"distill": 0.0, "own_region": 0.0}
    weights = [trained(images, model=papers), trained(images, model=options, compiled=off)]
    for one, other in zip(*(model.get_weights() for model in weights), strict=True):
        np.testing.assert_array_equal(one, other)


# ------------------------------------------------------------------------------------------------- glance


def test_the_glance_is_the_mean_of_whole_squares_and_regions_are_cut_from_the_whole_image(images):
    large = np.random.default_rng(1).uniform(0, 255, (4, 2 * SIZE, 2 * SIZE, 3)).astype(np.float32)
    means = large.reshape(4, SIZE, 2, SIZE, 2, 3).mean((2, 4))
    glancing, plain = small_model(image_size=2 * SIZE, glance_size=SIZE), small_model()
    assert glancing.local_size == SIZE
    outputs = glancing(large, boxes=tf.constant(BOXES))
    np.testing.assert_allclose(outputs["global_probs"], plain(means)["global_probs"], atol=1e-5)
    crops = tf.reshape(crop_and_resize(tf.constant(large), tf.constant(BOXES), SIZE), [8, SIZE, SIZE, 3])
    alone = small_model(top_n=0)(crops)["global_probs"].numpy().reshape(4, 2, CLASSES)
    np.testing.assert_allclose(outputs["local_probs"], alone.max(1), atol=1e-5)


def test_boxes_of_a_glance_are_found_to_the_pixel_of_the_whole_image(images):
    model, single = (
        small_model(backbone="tiny_resnet", **sizes)
        for sizes in ({"image_size": 2 * SIZE, "glance_size": SIZE}, {})
    )
    large = np.repeat(np.repeat(images, 2, 1), 2, 2)  # the glance is the very image
    boxes, plain = (m(x)["boxes"].numpy() for m, x in ((model, large), (single, images)))
    np.testing.assert_array_equal(boxes * 2 * SIZE, np.rint(boxes * 2 * SIZE))
    # The same maps, upsampled with aligned corners to twice the pixels: within two pixels of the larger image.
    assert np.abs(boxes - plain).max() <= 2 / SIZE


def test_a_glance_of_the_images_own_size_is_none(images):
    for name, value in small_model(glance_size=SIZE)(images).items():
        np.testing.assert_array_equal(value, small_model()(images)[name], err_msg=name)


# ----------------------------------------------------------------------------------------- fusion, pooling


def test_fusion_by_the_mean_is_the_sigmoid_of_the_mean_of_both_logits(images):
    outputs = gentle_model(fusion="mean")(images)
    mean = (logit(outputs["global_probs"]) + logit(outputs["local_probs"])) / 2
    np.testing.assert_allclose(outputs["probs"], 1 / (1 + np.exp(-mean)), atol=1e-5)
    for name, value in gentle_model()(images).items():
        if name != "probs":
            np.testing.assert_array_equal(value, outputs[name], err_msg=name)


def test_fusion_changes_nothing_of_the_plain_backbone(images):
    one, other = (small_model(top_n=0, fusion=fusion)(images) for fusion in ("max", "mean"))
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_the_single_loss_is_that_of_the_fusion_asked_for(images):
    model = gentle_model(fusion="mean")
    model.compile(TwoRateSGD(0.0), binary_cross_entropy, learning="single")
    batch = batch_of(images)
    probs = model(images)["probs"].numpy().astype(np.float64)
    entropy = -np.mean(batch["labels"] * np.log(probs) + (1 - batch["labels"]) * np.log1p(-probs))
    assert float(model.losses_of(batch, training=False)["loss"]) == pytest.approx(entropy, rel=1e-4)


@pytest.mark.parametrize("temperature", [2.0, float("inf")])
def test_csra_pools_the_very_maps_that_the_localizer_reads(images, temperature):
    model = gentle_model(pooling="csra", csra_temperature=temperature, csra_lambda=0.3)
    features, logits = model.global_pass(images, training=False)
    every_class = tf.tile(tf.range(CLASSES)[None], [4, 1])
    maps = model.classifier.class_activation_maps(features, every_class)  # (B, C, h, w)
    expected = oracles.csra(np.moveaxis(maps.numpy(), 1, -1), temperature, 0.3)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_csra_of_lambda_0_is_average_pooling(images):
    csra, gap = (gentle_model(pooling=p, csra_lambda=0.0)(images) for p in ("csra", "gap"))
    for name in ("global_probs", "local_probs"):
        np.testing.assert_allclose(csra[name], gap[name], atol=1e-5)


# ---------------------------------------------------------------------------------------------- BatchNorm


def test_each_stream_moves_and_uses_statistics_of_its_own(images):
    model = trained(images, batch_norm="per_stream")
    norms = [v for v in model.variables if v.name in MOVING]
    assert len(norms) == 4 * sum(v.name == "moving_mean" for v in norms)
    moved = {v.path: v.numpy() for v in norms}
    for path, value in moved.items():
        if path.endswith("/moving_mean"):
            local = moved[path.replace("/moving_mean", "/local_moving_mean")]
            assert np.abs(local - value).max() > 0, path
    # The whole image as the only region is the same picture; the statistics tell the two passes apart.
    whole = tf.zeros((4, 1, 4)) + tf.constant([0.0, 0.0, 1.0, 1.0])
    outputs = model(images, boxes=whole)
    assert np.abs(outputs["global_probs"] - outputs["local_probs"]).max() > 1e-3
    for variable in norms:
        if variable.name.startswith("local_"):
            variable.assign(moved[variable.path.replace("/local_", "/")])
    outputs = model(images, boxes=whole)
    np.testing.assert_allclose(outputs["global_probs"], outputs["local_probs"], atol=1e-5)


def test_statistics_of_the_shared_pass_are_what_each_stream_would_have_had_alone(images):
    """Of one step from the same weights: shared statistics take in the global batch, then the local one."""
    papers, streams = (trained(images, 1, batch_norm=b) for b in ("shared", "per_stream"))
    shared, own = ([v for v in model.variables if v.name in MOVING] for model in (papers, streams))
    for index, both in enumerate(shared):
        first = 0.0 if both.name == "moving_mean" else 1.0  # a fresh network's
        layer, place = divmod(index, 2)  # a mean and a variance a layer; two of each
        of_global, of_local = (own[4 * layer + place + stream].numpy() for stream in (0, 2))
        # 0.9 (0.9 s + 0.1 g) + 0.1 l, of 0.9 s + 0.1 g and 0.9 s + 0.1 l
        expected = 0.9 * of_global + (of_local - 0.9 * first)
        np.testing.assert_allclose(both, expected, rtol=1e-4, atol=1e-4, err_msg=both.path)


def test_frozen_statistics_stay_while_the_weights_are_trained(images):
    before = small_model(batch_norm="frozen")
    after = trained(images, batch_norm="frozen")
    for old, new in zip(before.weights, after.weights, strict=True):
        assert (np.abs(old.numpy() - new.numpy()).max() > 0) == (new.name not in MOVING), new.path


def test_weights_of_shared_statistics_load_into_a_model_of_one_set_for_each_stream(images, tmp_path):
    shared = trained(images)
    shared.save_weights(tmp_path / "shared.weights.h5")
    streams = small_model(batch_norm="per_stream")
    streams.load_weights(tmp_path / "shared.weights.h5")
    for name, value in streams(images, boxes=tf.constant(BOXES)).items():
        np.testing.assert_array_equal(value, shared(images, boxes=tf.constant(BOXES))[name], err_msg=name)
    again = small_model(batch_norm="per_stream")
    streams = trained(images, model=streams)
    streams.save_weights(tmp_path / "streams.weights.h5")
    again.load_weights(tmp_path / "streams.weights.h5")
    for one, other in zip(streams.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


# ------------------------------------------------------------------------------------------ boxes, jitter


def test_jitter_moves_boxes_in_training_alone_and_by_the_number_of_updates(images):
    model = gentle_model(box_jitter=0.2, selection_seed=7)
    model.compile(TwoRateSGD(0.0), binary_cross_entropy)
    still = model(images)["boxes"]
    np.testing.assert_array_equal(gentle_model()(images)["boxes"], still)
    found = model.forward(tf.constant(images), training=True)
    features, logits = model.global_pass(tf.constant(images), training=True)
    exact = model.find_boxes(features, model.select_classes(logits), images)
    np.testing.assert_allclose(found.boxes, jitter_boxes(exact, 0.2, [7, 0]), atol=1e-6)
    model.optimizer.iterations.assign(3)
    later = model.forward(tf.constant(images), training=True).boxes
    np.testing.assert_allclose(later, jitter_boxes(exact, 0.2, [7, 3]), atol=1e-6)
    assert np.abs(later - found.boxes).max() > 0.01
    given = model.forward(tf.constant(images), training=True, boxes=tf.constant(BOXES)).boxes
    np.testing.assert_array_equal(given, BOXES)


def test_jitter_goes_by_updates_of_the_weights_not_by_steps(images):
    options = {"optimizer": TwoRateSGD(0.0, gradient_accumulation_steps=2), "loss": binary_cross_entropy}
    model = small_model(box_jitter=0.2)
    assert int(model.updates_done()) == 0  # before it is compiled too
    model.compile(**options)
    model.optimizer.build(model.trainable_variables)
    for updates in (0, 0, 1, 1, 2):
        assert int(model.updates_done()) == updates
        model.train_step(batch_of(images))


def test_the_localizer_is_the_one_asked_for(images):
    from mcar_tf.models.localizer import localize

    options = {"localizer": "moments", "box_spread": 1.0, "min_box_cells": 1.5}
    model = small_model(**options)
    features, logits = model.global_pass(images, training=False)
    maps = model.classifier.class_activation_maps(features, model.select_classes(logits))
    expected = localize(maps, SIZE, SIZE, 0.5, **options)
    np.testing.assert_array_equal(model(images)["boxes"], expected)
    assert np.abs(model(images)["boxes"] - small_model()(images)["boxes"]).max() > 0.05


# ------------------------------------------------------------------------------------------------- losses


def test_distillation_is_cross_entropy_with_the_fused_probabilities_which_get_no_gradient(images):
    batch = batch_of(images)
    batch["weights"] = (np.random.default_rng(1).random((4, CLASSES)) > 0.3).astype(np.float32)
    losses, gradients = {}, {}
    for share in (0.0, 0.25, 1.0):
        model = gentle_model(batch_norm="frozen")
        model.compile(TwoRateSGD(0.0), binary_cross_entropy, distill=share)
        with tf.GradientTape() as tape:
            found = model.losses_of(batch, training=True)
        losses[share] = {name: float(value) for name, value in found.items()}
        gradients[share] = tape.gradient(found["global_loss"], model.classifier.bias).numpy()
    outputs = {name: value.numpy().astype(np.float64) for name, value in model(images).items()}
    fused, p = outputs["probs"], outputs["global_probs"]
    taught = np.mean(batch["weights"] * -(fused * np.log(p) + (1 - fused) * np.log1p(-p)))
    assert losses[1.0]["global_loss"] == pytest.approx(taught, rel=1e-4)
    mixed = 0.75 * losses[0.0]["global_loss"] + 0.25 * taught
    assert losses[0.25]["global_loss"] == pytest.approx(mixed, rel=1e-4)
    assert losses[0.25]["local_loss"] == pytest.approx(losses[0.0]["local_loss"], rel=1e-6)
    assert losses[0.25]["loss"] == pytest.approx(mixed + losses[0.0]["local_loss"], rel=1e-4)
    # d/dx of cross-entropy with a constant q is p - q.
    expected = np.sum(batch["weights"] * (p - fused), 0) / p.size
    np.testing.assert_allclose(gradients[1.0], expected, atol=1e-6)


def test_a_class_with_a_region_can_be_judged_by_that_region_alone(images):
    batch = batch_of(images)
    model = gentle_model(batch_norm="frozen")
    streams = model.forward(tf.constant(images), training=True)
    logits = streams.region_logits.numpy().astype(np.float64)  # (B, N, C)
    judged = logits.max(1)
    for image, region in np.ndindex(4, 2):
        own = int(streams.box_classes[image, region])
        judged[image, own] = logits[image, region, own]
    assert np.abs(judged - logits.max(1)).max() > 1e-3

    def entropy(x):
        return np.mean(batch["labels"] * np.logaddexp(0, -x) + (1 - batch["labels"]) * np.logaddexp(0, x))

    for share in (0.5, 1.0):
        model.compile(TwoRateSGD(0.0), binary_cross_entropy, own_region=share)
        loss = float(model.losses_of(batch, training=True)["local_loss"])
        expected = (1 - share) * entropy(logits.max(1)) + share * entropy(judged)
        assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("model", "compiled"),
    [
        ({"batch_norm": "per_stream", "box_jitter": 0.2}, {"own_region": 0.5}),
        ({"batch_norm": "frozen", "pooling": "csra", "fusion": "mean"}, {"distill": 0.3}),
        (
            {"image_size": 64, "glance_size": 32, "fusion": "mean", "localizer": "moments"},
            {"learning": "single", "loss": asymmetric},
        ),
    ],
)
def test_low_memory_trains_the_same_weights_and_statistics(images, model, compiled):
    side = model.get("image_size", SIZE)
    images = np.random.default_rng(0).uniform(0, 255, (4, side, side, 3)).astype(np.float32)
    results = [
        trained(images, 2, compiled=compiled | {"low_memory": low_memory}, backbone_width=1.0, **model)
        for low_memory in (False, True)
    ]
    for one, other in zip(*(result.get_weights() for result in results), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("compiled", [{"distill": 0.3, "own_region": 0.5}, {"jit_compile": True}])
def test_mixed_precision_and_xla_train_with_every_option(policy, compiled):
    images = np.random.default_rng(0).uniform(0, 255, (4, 2 * SIZE, 2 * SIZE, 3)).astype(np.float32)
    every = {
        "image_size": 2 * SIZE,
        "glance_size": SIZE,
        "fusion": "mean",
        "batch_norm": "per_stream",
        "box_jitter": 0.2,
        "pooling": "csra",
        "localizer": "moments",
        "min_box_cells": 1.0,
    }
    keras.config.set_dtype_policy(policy)
    try:
        model = small_model(**every)
        model.compile(TwoRateSGD(0.01), asymmetric, **compiled)
        dataset = tf.data.Dataset.from_tensors(batch_of(images)).repeat(12)
        losses = model.fit(dataset, epochs=2, steps_per_epoch=6, verbose=0, shuffle=False).history["loss"]
    finally:
        keras.config.set_dtype_policy("float32")
    assert losses[1] < losses[0]
    assert {value.dtype for value in model(images).values()} == {tf.float32, tf.int32}


def test_a_compiled_step_teaches_what_one_op_after_the_other_does():
    images = np.random.default_rng(0).uniform(0, 255, (4, SIZE, SIZE, 3)).astype(np.float32)
    losses = []
    for compiled in (False, True):
        keras.utils.set_random_seed(0)
        model = build_mcar(CLASSES, little_network(), image_size=SIZE, top_n=2, weights=None)
        optimizer = TwoRateSGD(0.01, gradient_accumulation_steps=2, global_clipnorm=0.1)
        model.compile(optimizer, binary_cross_entropy, low_memory=True, jit_compile=compiled)
        dataset = tf.data.Dataset.from_tensors(batch_of(images)).repeat(8)
        losses.append(
            model.fit(dataset, epochs=2, steps_per_epoch=4, verbose=0, shuffle=False).history["loss"]
        )
    assert losses[0][1] < losses[0][0]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


# ------------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"glance_size": 24}, r"`glance_size` must divide `image_size`, 32; .* is 16. Received: 24"),
        ({"image_size": 96, "glance_size": 33}, r"the nearest that does is 32. Received: 33"),
        ({"image_size": 96, "glance_size": 192}, r"the nearest that does is 48. Received: 192"),
        (
            {"image_size": 127, "glance_size": 64},
            r"must divide `image_size`, 127; the nearest `image_size` for it is 128. Received: 64",
        ),
        ({"local_size": 48}, r"`local_size` must be at most `image_size`, 32: .*Received: 48"),
        ({"glance_size": 8}, r"`glance_size` must be at least 16 px for tiny_resnet. Received: 8"),
        (
            {"glance_size": 16, "local_size": 48},
            r"`local_size` must be at most `image_size`, 32: .*Received: 48",
        ),
        ({"fusion": "sum"}, r"`fusion` must be one of max, mean. Received: 'sum'"),
        ({"batch_norm": "own"}, r"`batch_norm` must be one of shared, per_stream, frozen. Received: 'own'"),
        ({"box_jitter": 0.7}, r"`box_jitter` must lie in \[0, 0.5\]. Received: 0.7"),
        ({"localizer": "peak"}, r"`localizer` must be one of threshold, moments. Received: 'peak'"),
        ({"csra_temperature": 0.0}, r"`csra_temperature` must be positive. Received: 0.0"),
        ({"csra_lambda": -0.1}, r"`csra_lambda` must not be negative. Received: -0.1"),
    ],
)
def test_what_is_no_option_is_refused_before_anything_is_built(change, message, monkeypatch):
    monkeypatch.setattr("mcar_tf.models.mcar.build_backbone", lambda *a, **k: pytest.fail("built"))
    with pytest.raises(ValueError, match=message):
        small_model(backbone="tiny_resnet", **change)


def test_crops_larger_than_the_image_are_refused_for_a_network_of_ones_own_too():
    with pytest.raises(ValueError, match=r"`local_size` must be at most `image_size`, 32: .*Received: 48"):
        small_model(local_size=48)


@pytest.mark.parametrize("name", ["distill", "own_region"])
def test_shares_that_are_none_or_do_nothing_are_refused(name):
    with pytest.raises(ValueError, match=rf"`{name}` must lie in \[0, 1\]. Received: 1.5"):
        small_model().compile(TwoRateSGD(0.0), binary_cross_entropy, **{name: 1.5})
    with pytest.raises(ValueError, match=f"`{name}` does nothing but in the pair loss"):
        small_model().compile(TwoRateSGD(0.0), binary_cross_entropy, learning="single", **{name: 0.5})
    with pytest.raises(ValueError, match=f"`{name}` does nothing but in the pair loss"):
        small_model(top_n=0).compile(TwoRateSGD(0.0), binary_cross_entropy, **{name: 0.5})


@pytest.mark.parametrize("compiled", [{}, {"low_memory": True}, {"learning": "single"}])
def test_one_look_alone_trains_as_the_plain_backbone_and_gives_both_streams_its_statistics(images, compiled):
    two_looks, plain = small_model(batch_norm="per_stream"), small_model(top_n=0)
    copy_backbone(two_looks.backbone, plain.backbone)
    plain.classifier.set_weights(two_looks.classifier.get_weights())
    two_looks.compile(TwoRateSGD(0.01), binary_cross_entropy, **compiled)
    two_looks.learn_one_look(True)
    for _ in range(2):
        losses = two_looks.train_step(batch_of(images))
    trained(images, 2, model=plain)
    for one, other in zip(two_looks.trainable_weights, plain.trainable_weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6, err_msg=one.path)
    statistics = {name: [v for v in two_looks.weights if v.path.endswith("/" + name)] for name in MOVING}
    assert statistics["moving_mean"]
    for name in ("moving_mean", "moving_variance"):
        theirs = [v for v in plain.weights if v.path.endswith("/" + name)]
        for one, local, other in zip(statistics[name], statistics[f"local_{name}"], theirs, strict=True):
            np.testing.assert_array_equal(local, one)
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert float(losses["loss"]) == float(losses["global_loss"]) > 0.0


def test_after_one_look_both_streams_learn_as_from_the_start(images):
    changed, always = small_model(), small_model()
    changed.compile(TwoRateSGD(0.01), binary_cross_entropy)
    changed.learn_one_look(True)
    changed.learn_one_look(False)
    changed.train_step(batch_of(images))
    trained(images, 1, model=always)
    for one, other in zip(changed.get_weights(), always.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
