import keras
import numpy as np
import pytest
import tensorflow as tf

from mcar_tf.training.optimizers import StepDecay, TwoRateSGD

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


def test_a_copy_by_config_and_variables_goes_on_alike():
    model, values = make_layers()
    optimizer = TwoRateSGD(0.1, head_factor=3.0)
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


@pytest.mark.parametrize(("name", "value"), [("momentum", 1.0), ("weight_decay", -1e-4)])
def test_values_outside_their_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        TwoRateSGD(**{name: value})
