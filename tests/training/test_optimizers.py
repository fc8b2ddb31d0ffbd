import keras
import numpy as np
import pytest
import tensorflow as tf

from mcar_tf.training.optimizers import StepDecay, TwoRateAdamW, TwoRateSGD, cosine, one_cycle

STEPS, DROPS = 200, (80, 150)


def torch_sgd(weight: np.ndarray, gradients: list[np.ndarray], rate: float) -> np.ndarray:
    """torch.optim.SGD's documented update with momentum 0.9 and weight decay 1e-4, in float64."""
    weight, velocity = weight.astype(np.float64), None
    for step, gradient in enumerate(gradients):
        gradient = gradient + 1e-4 * weight
        velocity = gradient if velocity is None else 0.9 * velocity + gradient
        weight = weight - rate * 0.1 ** sum(step >= drop for drop in DROPS) * velocity
    return weight


def make_layers() -> tuple[keras.Model, list[np.ndarray]]:
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(2, name="classifier")(keras.layers.Dense(4, name="trunk")(inputs))
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(v.shape).astype(np.float32) for v in model.trainable_variables]
    model.set_weights(values)
    return model, values


def test_two_groups_decay_and_two_drops_are_torchs_sgd():
    model, values = make_layers()
    optimizer = TwoRateSGD(StepDecay(0.001, [8, 15], steps_per_epoch=10), head_factor=10.0)
    rng = np.random.default_rng(1)
    gradients = [[rng.standard_normal(v.shape).astype(np.float32) for v in values] for _ in range(STEPS)]
    step = tf.function(lambda *g: optimizer.apply(list(g), model.trainable_variables))
    optimizer.build(model.trainable_variables)
    for gradient in gradients:
        step(*map(tf.constant, gradient))
    for i, variable in enumerate(model.trainable_variables):
        rate = 0.01 if "classifier" in variable.path else 0.001
        expected = torch_sgd(values[i], [g[i] for g in gradients], rate)
        error = np.linalg.norm(variable.numpy() - expected)
        assert error <= 1e-6 * np.linalg.norm(expected), variable.path


def torch_adamw(weight: np.ndarray, gradients: list[np.ndarray], rate: float, decay: float) -> np.ndarray:
    """torch.optim.AdamW's documented update, in float64; epsilon is Keras', 1e-7 beside the corrected root."""
    weight, mean, square = weight.astype(np.float64), 0.0, 0.0
    for step, gradient in enumerate(gradients, 1):
        weight = weight - rate * decay * weight
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        corrected = np.sqrt(square) + 1e-7
        weight = weight - rate * np.sqrt(1 - 0.999**step) / (1 - 0.9**step) * mean / corrected
    return weight


def after_random_steps(optimizer, steps=20):
    """Weights before, all gradients, and the layers after."""
    model, values = make_layers()
    rng = np.random.default_rng(1)
    gradients = [[rng.standard_normal(v.shape).astype(np.float32) for v in values] for _ in range(steps)]
    optimizer.build(model.trainable_variables)
    step = tf.function(lambda *g: optimizer.apply(list(g), model.trainable_variables))
    for gradient in gradients:
        step(*map(tf.constant, gradient))
    return values, gradients, model.trainable_variables


@pytest.mark.parametrize("kernels_only", [False, True])
def test_two_groups_with_decoupled_decay_are_torchs_adamw(kernels_only):
    optimizer = TwoRateAdamW(0.01, head_factor=10.0, weight_decay=0.5, decay_kernels_only=kernels_only)
    values, gradients, variables = after_random_steps(optimizer)
    for i, variable in enumerate(variables):
        rate = 0.1 if "classifier" in variable.path else 0.01
        decay = 0.0 if kernels_only and "bias" in variable.path else 0.5
        expected = torch_adamw(values[i], [g[i] for g in gradients], rate, decay)
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-4, atol=1e-5, err_msg=variable.path)


def test_with_one_rate_it_is_keras_adamw_to_the_bit():
    ours = after_random_steps(TwoRateAdamW(cosine(0.01, 20, 5), weight_decay=0.1, global_clipnorm=1.0))[2]
    theirs = after_random_steps(
        keras.optimizers.AdamW(cosine(0.01, 20, 5), weight_decay=0.1, global_clipnorm=1.0)
    )[2]
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_sgd_can_spare_biases_and_batch_norm_the_decay():
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(inputs)
    model = keras.Model(inputs, keras.layers.Conv2D(2, 1)(keras.layers.BatchNormalization()(x)))
    before = [np.full(v.shape, 2.0, np.float32) for v in model.trainable_variables]
    optimizer = TwoRateSGD(1.0, weight_decay=0.25, decay_kernels_only=True)
    for variable, value in zip(model.trainable_variables, before, strict=True):
        variable.assign(value)
    optimizer.apply([tf.zeros(v.shape) for v in before], model.trainable_variables)
    after = {v.path: set(np.ravel(v.numpy())) for v in model.trainable_variables}
    assert sorted(path.split("/")[-1] for path, values in after.items() if values == {1.5}) == [
        "kernel",
        "kernel",
    ]
    assert sorted(path.split("/")[-1] for path, values in after.items() if values == {2.0}) == [
        "beta",
        "bias",
        "bias",
        "gamma",
    ]


def test_a_drop_acts_on_the_very_next_step():
    # Keras' own SGD has the rate inside its velocity and would go on at nearly the old pace.
    weight = keras.Variable([0.0])
    optimizer = TwoRateSGD(StepDecay(1.0, [1], steps_per_epoch=3), weight_decay=0.0, momentum=0.5)
    moves = []
    for _ in range(4):
        before = float(weight[0])
        optimizer.apply([tf.constant([1.0])], [weight])
        moves.append(before - float(weight[0]))
    np.testing.assert_allclose(moves, [1.0, 1.5, 1.75, 0.1875], rtol=1e-6)


@pytest.mark.parametrize("kind", [TwoRateSGD, TwoRateAdamW])
def test_a_copy_by_config_and_variables_goes_on_alike(kind):
    model, values = make_layers()
    optimizer = kind(0.1, head_factor=3.0, weight_decay=0.1, decay_kernels_only=True)
    optimizer.apply([tf.constant(v) for v in values], model.trainable_variables)
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    copy.build(twin.trainable_variables)
    for mine, theirs in zip(copy.variables, optimizer.variables, strict=True):
        mine.assign(theirs)
    for opt, net in ((optimizer, model), (copy, twin)):
        opt.apply([tf.constant(v) for v in values], net.trainable_variables)
    for one, other in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_rates_drop_at_the_first_step_of_an_epoch():
    schedule = StepDecay(0.001, [30, 50], steps_per_epoch=7)
    rates = [float(schedule(step)) for step in (0, 209, 210, 349, 350)]
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 1e-4, 1e-4, 1e-5], rtol=1e-6)


def test_cosine_climbs_in_a_straight_line_and_falls_to_nothing():
    rates = [float(cosine(0.4, 12, 2)(step)) for step in (0, 1, 2, 7, 12, 20)]
    np.testing.assert_allclose(rates, [0.0, 0.2, 0.4, 0.2, 0.0, 0.0], atol=1e-7)
    rates = [float(cosine(0.4, 10)(step)) for step in (0, 5, 10)]
    np.testing.assert_allclose(rates, [0.4, 0.2, 0.0], atol=1e-7)


def test_one_cycle_begins_at_a_25th_and_is_highest_after_three_tenths():
    # Halfway up: the mean of 0.04 and 1; halfway down: half.
    rates = [float(one_cycle(1.0, 20)(step)) for step in (0, 3, 6, 13, 20, 30)]
    np.testing.assert_allclose(rates, [0.04, 0.52, 1.0, 0.5, 0.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("updates", [1, 2, 3])
def test_runs_of_few_updates_have_a_rate(updates):
    for schedule in (cosine(1.0, updates), cosine(1.0, updates, 5), one_cycle(1.0, updates)):
        rates = [float(schedule(step)) for step in range(updates)]
        assert all(0 <= rate <= 1 for rate in rates)


@pytest.mark.parametrize(("name", "value"), [("momentum", 1.0), ("weight_decay", -1e-4)])
def test_values_outside_their_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        TwoRateSGD(**{name: value})


def test_adamw_refuses_a_negative_decay():
    with pytest.raises(ValueError, match="`weight_decay` must not be negative"):
        TwoRateAdamW(weight_decay=-0.1)
