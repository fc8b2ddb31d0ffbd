"""Chooses the strategy that trains on this process's devices, and refuses what does not work on several."""

import tensorflow as tf

# Steps from which compiling pays. MobileNet-v2 at 256 px, 64 pictures a step, in float16 on an H200: compiling takes
# 95 s more than building the graph, and then saves 16 ms a step of the time that the GPU computes (docs/gpu.md).
COMPILED_FROM = 6_000


def make_strategy(kind: str, sync_batch_norm: bool) -> tf.distribute.Strategy:
    """The strategy of a process that trains alone. On one device it is the default strategy, without overhead.

    Args:
        kind: the option `strategy`: "auto", "one_device" or "mirrored".
        sync_batch_norm: whether BatchNorm computes its statistics over the batches of all devices.

    Raises:
        ValueError: several devices are asked for, but there is only one.
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


def compilation_pays(
    replicas: int, steps: int, *, compilations: int, precision: str, deterministic: bool
) -> bool:
    """Whether XLA compiles the training step if the user does not say: for long float16 runs on one GPU.

    Args:
        replicas: how many devices train.
        steps: how many steps the run has in all.
        compilations: how many different steps the run has, each compiled once.
        precision: Keras' dtype policy of the backbone. Only float16 has been measured.
        deterministic: whether each run has to give the same numbers. Op by op, TensorFlow guarantees that.
    """
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    is_long = steps >= COMPILED_FROM * compilations
    return on_gpu and replicas == 1 and is_long and precision == "mixed_float16" and not deterministic


def check_replicas(replicas: int, *, batch_size: int, accumulate_steps: int, xla: bool | None = None) -> None:
    """Refuse what does not work on several devices.

    Args:
        replicas: how many devices train, on all workers together.
        batch_size: images per step, over all devices.
        accumulate_steps: steps per update of the weights.
        xla: whether the user asked for a compiled training step.
    """
    # Keras compiles the steps of all replicas as one, and one XLA program can't use variables of two devices.
    if replicas > 1 and xla:
        raise ValueError(
            f"--xla works on one device, not on {replicas}: leave it out, or give --strategy one_device."
        )
    # Keras accumulates inside a condition, which here would enclose a sum over replicas.
    if replicas > 1 and accumulate_steps > 1:
        raise ValueError(
            f"--accumulate-steps works on one device, not on {replicas}: raise --batch-size, or give"
            " --strategy one_device."
        )
    if batch_size % replicas:
        raise ValueError(
            f"`--batch-size` must be a multiple of {replicas}, the devices. Received: {batch_size}"
        )
