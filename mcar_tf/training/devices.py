"""The devices of this process in, the strategy that trains on them out; and what does not work on several."""

import tensorflow as tf


def make_strategy(kind: str, sync_batch_norm: bool) -> tf.distribute.Strategy:
    """The strategy of a process that trains alone: one device costs nothing.

    Args:
        kind: the option `strategy`: "auto", "one_device" or "mirrored".
        sync_batch_norm: whether BatchNorm is to see the batch of all devices.

    Raises:
        ValueError: several devices are asked for, and there is one.
    """
    hardware = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(hardware)]
    mirrored = kind == "mirrored" or (kind == "auto" and hardware == "GPU" and len(devices) > 1)
    for option, asked in (("--strategy mirrored", mirrored), ("--sync-batch-norm", sync_batch_norm)):
        if asked and not (mirrored and len(devices) > 1):
            raise ValueError(
                f"{option} needs several devices to train on. There is {len(devices)} {hardware}."
            )
    return tf.distribute.MirroredStrategy(devices) if mirrored else tf.distribute.get_strategy()


def check_replicas(replicas: int, *, batch_size: int, accumulate_steps: int, xla: bool = False) -> None:
    """Refuse what does not work on several devices.

    Args:
        replicas: how many devices train, on all workers together.
        batch_size: images a step, over all of them.
        accumulate_steps: steps to an update of the weights.
        xla: whether the step is to be compiled.
    """
    if (
        replicas > 1 and xla
    ):  # Keras compiles all replicas' step as one, and XLA may not touch two devices' variables
        raise ValueError(
            f"--xla works on one device, not on {replicas}: leave it out, or give --strategy one_device."
        )
    if replicas > 1 and accumulate_steps > 1:  # Keras' is a condition around a sum over replicas
        raise ValueError(
            f"--accumulate-steps works on one device, not on {replicas}: raise --batch-size, or give"
            " --strategy one_device."
        )
    if batch_size % replicas:
        raise ValueError(
            f"`--batch-size` must be a multiple of {replicas}, the devices. Received: {batch_size}"
        )
