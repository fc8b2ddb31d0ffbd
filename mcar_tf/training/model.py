"""Builds and compiles the model of a config with its initial weights, and freezes or unfreezes its backbone."""

import functools
from collections.abc import Sequence
from typing import Any

import keras

from mcar_tf.config import FitConfig
from mcar_tf.models.keras_arguments import StreamLoss
from mcar_tf.models.mcar import MCAR
from mcar_tf.runs.loading import build_model, load_run, take_over
from mcar_tf.training.data import count_known
from mcar_tf.training.losses import asymmetric, balanced_weights, binary_cross_entropy, weigh_positives
from mcar_tf.training.optimizers import StepDecay, TwoRateAdamW, TwoRateSGD, cosine, one_cycle
from pipelines.manifest import Split


def build_trainable(
    config: FitConfig,
    classes: Sequence[str],
    steps_per_epoch: int,
    first_weights: bool = True,
    learnt: Split | None = None,
    xla: bool = False,
) -> MCAR:
    """A compiled model with initial weights, whose optimizer has its variables.

    Args:
        config: the run's options.
        classes: C names.
        steps_per_epoch: number of steps in one epoch, for the learning rate's schedule.
        first_weights: False if a checkpoint will be restored: then no weights are read from a file, run or download.
        learnt: the split that is trained on, whose counts `class_weights` uses.
        xla: whether XLA compiles the training step.
    """
    init_from = config.init_from if first_weights else None
    weights = config.backbone_weights if first_weights and not init_from else None
    model = build_model(config, len(classes), weights=weights)
    if init_from:
        print(take_over(model, config, classes, load_run(init_from)), flush=True)
    model.compile(
        make_optimizer(config, steps_per_epoch),
        loss=make_loss(config, learnt),
        learning=config.learning,
        distill=config.distill,
        own_region=config.own_region,
        jit_compile=xla,
        low_memory=config.low_memory,
    )
    model.optimizer.build(model.trainable_variables)
    return model


def make_optimizer(config: FitConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """The optimizer of a config. Its schedule counts updates of the weights."""
    updates_per_epoch = steps_per_epoch / config.accumulate_steps
    common: dict[str, Any] = {
        "weight_decay": config.weight_decay,
        "global_clipnorm": config.clip_norm or None,
        "gradient_accumulation_steps": config.accumulate_steps if config.accumulate_steps > 1 else None,
    }
    rate = make_schedule(config, updates_per_epoch)
    if config.optimizer == "sgd":
        return TwoRateSGD(
            rate,
            head_factor=config.head_learning_rate / config.learning_rate,
            momentum=config.momentum,
            decay_kernels_only=config.decay_kernels_only,
            **common,
        )
    if config.head_rate_factor == 1.0 and not config.decay_kernels_only:
        return keras.optimizers.AdamW(rate, **common)
    return TwoRateAdamW(
        rate,
        head_factor=config.head_rate_factor,
        decay_kernels_only=config.decay_kernels_only,
        **common,
    )


def make_schedule(
    config: FitConfig, updates_per_epoch: float
) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate's schedule of a config, over updates of the weights."""
    updates = round(config.epochs * updates_per_epoch)
    if config.rate_schedule == "step":
        return StepDecay(config.learning_rate, config.drop_epochs, updates_per_epoch, config.drop_factor)
    if config.rate_schedule == "cosine":
        return cosine(config.learning_rate, updates, round(config.warmup_epochs * updates_per_epoch))
    return one_cycle(config.learning_rate, updates)


def make_loss(config: FitConfig, learnt: Split | None = None) -> StreamLoss:
    """The loss of one stream. `learnt` is the split that is trained on; `class_weights` needs its counts."""
    loss = _make_unweighted(config)
    if config.class_weights == "none":
        return loss
    if learnt is None:
        raise ValueError("`class_weights` needs the counts of the split that is trained on.")
    present, absent = count_known(config, learnt)
    return weigh_positives(loss, balanced_weights(present, absent))


def _make_unweighted(config: FitConfig) -> StreamLoss:
    if config.loss == "bce":
        return binary_cross_entropy
    return functools.partial(
        asymmetric,
        gamma_positive=config.gamma_positive,
        gamma_negative=config.gamma_negative,
        margin=config.margin,
    )


def freeze_backbone(model: MCAR, frozen: bool) -> bool:
    """Freeze the backbone's weights and statistics, or train them.

    Returns:
        Whether this is a change, which makes Keras trace the training step again.
    """
    if model.backbone.trainable != frozen:
        return False
    model.backbone.trainable = not frozen
    model.make_train_function(force=True)
    return True
