"""Optimizers and learning-rate schedules: SGD as in the paper's recipe, and AdamW, both with a separate learning rate
for the classifier.
"""

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

    like `torch.optim.SGD`. Keras' own SGD differs in two ways: its decay is decoupled, and its velocity contains the
    learning rate, so that a drop of the rate takes effect only after the velocity has decayed.

    Args:
        learning_rate: the backbone's rate: a float or a schedule.
        head_factor: the classifier's rate is this many times `learning_rate`.
        momentum: in [0, 1).
        weight_decay: L2 decay, added to the gradient of every trained weight, including biases and BatchNorm's.
        decay_kernels_only: whether to exclude biases and BatchNorm's weights from the decay.
        head: weights with this name in their path belong to the classifier.
        **kwargs: arguments of `keras.optimizers.Optimizer`: `clipnorm`, `use_ema`, `gradient_accumulation_steps`, ...
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.001,
        head_factor: float = 10.0,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        decay_kernels_only: bool = False,
        head: str = "classifier",
        name: str = "two_rate_sgd",
        **kwargs: Any,
    ) -> None:
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"`momentum` must lie in [0, 1). Received: {momentum}")
        if weight_decay < 0.0:
            raise ValueError(f"`weight_decay` must not be negative. Received: {weight_decay}")
        # The base class's `weight_decay` is decoupled, so it stays None.
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.head_factor = head_factor
        self.momentum = momentum
        self.l2_decay = weight_decay
        self.decay_kernels_only = decay_kernels_only
        self.head = head

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create a velocity, a factor of the rate and a decay for each weight."""
        if self.built:
            return
        super().build(variables)
        self.velocities = [self.add_variable_from_reference(v, name="velocity") for v in variables]
        self.rate_factors = _rate_factors(variables, self.head, self.head_factor)
        self.decays = _decays(variables, self.l2_decay, self.decay_kernels_only)

    def update_step(
        self, gradient: keras.KerasTensor, variable: keras.Variable, learning_rate: keras.KerasTensor
    ) -> None:
        """One weight's update."""
        index = self._get_variable_index(variable)
        velocity = self.velocities[index]
        rate = ops.cast(learning_rate, variable.dtype) * self.rate_factors[index]
        gradient = ops.cast(gradient, variable.dtype) + self.decays[index] * variable
        self.assign(velocity, self.momentum * velocity + gradient)
        self.assign_sub(variable, rate * velocity)

    def get_config(self) -> dict:
        """Arguments of the constructor."""
        return super().get_config() | {
            "weight_decay": self.l2_decay,
            "decay_kernels_only": self.decay_kernels_only,
            "head_factor": self.head_factor,
            "momentum": self.momentum,
            "head": self.head,
        }


@keras.saving.register_keras_serializable("mcar_tf")
class TwoRateAdamW(keras.optimizers.Adam):
    """Keras' AdamW with a second learning rate, which its decay follows too, for the 1x1 convolution.

    The decay is decoupled: each weight w shrinks by rate * weight_decay * w, at the rate of its own group, as in the
    parameter groups of `torch.optim.AdamW`. `keras.optimizers.AdamW` has only one rate.

    Args:
        learning_rate: the backbone's rate: a float or a schedule.
        head_factor: the classifier's rate is this many times `learning_rate`.
        weight_decay: decay of every trained weight, including biases and BatchNorm's.
        decay_kernels_only: whether to exclude biases and BatchNorm's weights from the decay.
        head: weights with this name in their path belong to the classifier.
        **kwargs: arguments of `keras.optimizers.Adam`.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.001,
        head_factor: float = 1.0,
        weight_decay: float = 0.01,
        decay_kernels_only: bool = False,
        head: str = "classifier",
        name: str = "two_rate_adamw",
        **kwargs: Any,
    ) -> None:
        if weight_decay < 0.0:
            raise ValueError(f"`weight_decay` must not be negative. Received: {weight_decay}")
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.head_factor = head_factor
        self.decoupled_decay = weight_decay  # the base class's decay has one rate for all: it stays None
        self.decay_kernels_only = decay_kernels_only
        self.head = head

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create two moments, a factor of the rate and a decay for each weight."""
        if self.built:
            return
        super().build(variables)
        self.rate_factors = _rate_factors(variables, self.head, self.head_factor)
        self.decays = _decays(variables, self.decoupled_decay, self.decay_kernels_only)

    def update_step(
        self, gradient: keras.KerasTensor, variable: keras.Variable, learning_rate: keras.KerasTensor
    ) -> None:
        """One weight's update."""
        index = self._get_variable_index(variable)
        rate = ops.cast(learning_rate, variable.dtype) * self.rate_factors[index]
        self.assign_sub(variable, variable * self.decays[index] * rate)
        super().update_step(gradient, variable, rate)

    def get_config(self) -> dict:
        """Arguments of the constructor."""
        return super().get_config() | {
            "weight_decay": self.decoupled_decay,
            "decay_kernels_only": self.decay_kernels_only,
            "head_factor": self.head_factor,
            "head": self.head,
        }


def _rate_factors(variables: Sequence[keras.Variable], head: str, factor: float) -> list[float]:
    """The factor that each weight's learning rate is multiplied by."""
    return [factor if head in variable.path.split("/") else 1.0 for variable in variables]


def _decays(variables: Sequence[keras.Variable], decay: float, kernels_only: bool) -> list[float]:
    """Each weight's decay. Kernels, depthwise ones included, are the weights with more than one axis."""
    return [0.0 if kernels_only and len(variable.shape) < 2 else decay for variable in variables]


@keras.saving.register_keras_serializable("mcar_tf")
class StepDecay(keras.optimizers.schedules.LearningRateSchedule):
    """`learning_rate`, times `factor` at the start of each epoch in `drop_epochs` (counted from 0).

    Args:
        learning_rate: initial rate.
        drop_epochs: the epochs that start with a drop, ascending.
        steps_per_epoch: updates of the weights in one epoch; not whole if several steps make one update.
        factor: what each drop multiplies the rate by.
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
        """The rate at a step; steps count from 0."""
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


def cosine(
    learning_rate: float, updates: int, warmup_updates: int = 0
) -> keras.optimizers.schedules.CosineDecay:
    """A rate that rises linearly from 0 to `learning_rate`, then falls to 0 along half a cosine.

    Args:
        learning_rate: the highest rate.
        updates: number of updates of the weights in the whole run.
        warmup_updates: how many of them the rise takes; with 0, the rate starts at its highest.
    """
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_updates else learning_rate,
        decay_steps=max(1, updates - warmup_updates),
        warmup_target=learning_rate if warmup_updates else None,
        warmup_steps=warmup_updates,
    )


def one_cycle(learning_rate: float, updates: int) -> keras.optimizers.schedules.CosineDecay:
    """A rate that rises from 1/25 of `learning_rate` to it in 3/10 of the run, then falls to 0 along half a cosine.

    This is the "super-convergence" of L. N. Smith (2017) with the proportions of
    `torch.optim.lr_scheduler.OneCycleLR`. The rise is linear, as in Smith's work, and momentum stays constant.

    Args:
        learning_rate: the highest rate.
        updates: number of updates of the weights in the whole run.
    """
    warmup_updates = max(1, round(0.3 * updates))
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=learning_rate / 25,
        decay_steps=max(1, updates - warmup_updates),
        warmup_target=learning_rate,
        warmup_steps=warmup_updates,
    )
