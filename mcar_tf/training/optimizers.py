"""SGD as the paper's recipe has it (torch's definition), with a rate of its own for the classifier."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("mcar_tf")
class TwoRateSGD(keras.optimizers.Optimizer):
    """SGD with momentum and L2 decay, and a second learning rate for the 1x1 convolution (section IV-A1).

    For each trained weight w with gradient g::

        g <- g + weight_decay * w
        v <- momentum * v + g
        w <- w - learning_rate * v

    as `torch.optim.SGD`. Keras' own SGD differs twice: its decay is decoupled, and its velocity contains the
    learning rate, so that a drop of the rate acts only after the velocity has decayed.

    Args:
        learning_rate: of the backbone: a float or a schedule.
        head_factor: the classifier's rate is this many times `learning_rate`.
        momentum: in [0, 1).
        weight_decay: L2, added to the gradient of every trained weight, biases and BatchNorm's included.
        head: weights with this name in their path make up the second group.
        **kwargs: of `keras.optimizers.Optimizer`: `clipnorm`, `use_ema`, `gradient_accumulation_steps`, ...
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.001,
        head_factor: float = 10.0,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        head: str = "classifier",
        name: str = "two_rate_sgd",
        **kwargs: Any,
    ) -> None:
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"`momentum` must lie in [0, 1). Received: {momentum}")
        if weight_decay < 0.0:
            raise ValueError(f"`weight_decay` must not be negative. Received: {weight_decay}")
        # The base class's own `weight_decay` is the decoupled one: it stays None.
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.head_factor = head_factor
        self.momentum = momentum
        self.l2_decay = weight_decay
        self.head = head

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """One velocity and one factor of the rate a weight."""
        if self.built:
            return
        super().build(variables)
        self.velocities = [self.add_variable_from_reference(v, name="velocity") for v in variables]
        self.rate_factors = [self.head_factor if self.head in v.path.split("/") else 1.0 for v in variables]

    def update_step(
        self, gradient: keras.KerasTensor, variable: keras.Variable, learning_rate: keras.KerasTensor
    ) -> None:
        """One weight's update."""
        index = self._get_variable_index(variable)
        velocity = self.velocities[index]
        rate = ops.cast(learning_rate, variable.dtype) * self.rate_factors[index]
        gradient = ops.cast(gradient, variable.dtype) + self.l2_decay * variable
        self.assign(velocity, self.momentum * velocity + gradient)
        self.assign_sub(variable, rate * velocity)

    def get_config(self) -> dict:
        """Arguments of the constructor."""
        return super().get_config() | {
            "weight_decay": self.l2_decay,
            "head_factor": self.head_factor,
            "momentum": self.momentum,
            "head": self.head,
        }


@keras.saving.register_keras_serializable("mcar_tf")
class StepDecay(keras.optimizers.schedules.LearningRateSchedule):
    """`learning_rate`, times `factor` at the start of each epoch in `drop_epochs` (counted from 0).

    Args:
        learning_rate: initial rate.
        drop_epochs: epochs of the drops, ascending.
        steps_per_epoch: updates of the weights in one epoch; a fraction where several steps make one.
        factor: of each drop.
    """

    def __init__(
        self,
        learning_rate: float,
        drop_epochs: Sequence[int],
        steps_per_epoch: float,
        factor: float = 0.1,
    ) -> None:
        self.learning_rate = learning_rate
        self.drop_epochs = list(drop_epochs)
        self.steps_per_epoch = steps_per_epoch
        self.factor = factor

    def __call__(self, step: int | keras.KerasTensor) -> keras.KerasTensor:
        """Rate of a step, counted from 0."""
        drops = ops.convert_to_tensor([round(e * self.steps_per_epoch) for e in self.drop_epochs], "int64")
        passed = ops.sum(ops.cast(ops.cast(step, "int64") >= drops, "float32"))
        return self.learning_rate * ops.power(self.factor, passed)

    def get_config(self) -> dict:
        """Arguments of the constructor."""
        return {
            "learning_rate": self.learning_rate,
            "drop_epochs": self.drop_epochs,
            "steps_per_epoch": self.steps_per_epoch,
            "factor": self.factor,
        }
