"""Trains one run on several machines: what `tf.distribute.MultiWorkerMirroredStrategy` needs in addition to itself.

Every worker runs the same command. Only the chief, worker 0, reads and writes the run folder; the other workers write
into a temporary folder that is deleted, so that no other code has to tell the workers apart. Loads no TensorFlow.

Unmodified, Keras 3 can't train under this strategy (https://github.com/keras-team/keras/issues/20585, still so in
3.15): before the first step it reduces a batch in order to build a model that is already built, and after each step
it reduces scalars along an axis that they don't have. `BuiltModel` prevents the first, `take_logs_as_given` the
second; both are in `models/keras_internals.py`, and can be removed once Keras trains under this strategy by itself.
"""

import contextlib
import dataclasses
import json
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcar_tf.training.signals import Stopping

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Worker:
    """Which of the workers this process is.

    Attributes:
        index: this worker's number; 0 is the chief.
        count: number of workers.
    """

    index: int
    count: int


class WorkerLostError(ValueError):
    """Another worker ended or can't be reached."""


def read_worker() -> Worker:
    """Which worker this process is, from the environment variable `TF_CONFIG`; in a Slurm step without it, set it.

    Raises:
        ValueError: `TF_CONFIG` is absent, is not JSON, or lacks what TensorFlow needs.
    """
    example = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
    if "TF_CONFIG" not in os.environ and "SLURM_STEP_NODELIST" in os.environ:
        os.environ["TF_CONFIG"] = tf_config_of_slurm()
    text = os.environ.get("TF_CONFIG", "")
    try:
        content = json.loads(text)
        workers, task = content["cluster"]["worker"], content["task"]
        addresses = all(isinstance(w, str) and w.rpartition(":")[2].isdigit() for w in workers)
        known = task["type"] == "worker" and 0 <= int(task["index"]) < len(workers) and addresses
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise ValueError(
            f"--strategy multi_worker needs TF_CONFIG in the environment, such as {example}. Received: {text!r}"
        )
    return Worker(int(task["index"]), len(workers))


def tf_config_of_slurm() -> str:
    """The value of `TF_CONFIG` for this task of a Slurm step, found by TensorFlow's own resolver.

    Raises:
        ValueError: a variable that `srun` sets is absent, or these variables contradict each other.
    """
    import tensorflow as tf

    try:
        # Depends on the job, so that two jobs on one node use different ports.
        port = 10_000 + int(os.environ["SLURM_JOB_ID"]) % 20_000
        # The resolver would count GPUs by nvidia-smi and assign them, but Slurm has done that already: so it is told
        # that there is one per task.
        gpus = {"gpus_per_node": int(os.environ["SLURM_STEP_NUM_TASKS"]), "gpus_per_task": 1}
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=port, auto_set_gpu=False, **gpus
        )
        workers = resolver.cluster_spec().as_dict()["worker"]
        # The resolver sorts nodes as strings, n10 before n9, unlike Slurm's ranks: so look up the node, not the rank.
        own = f"{os.environ['SLURMD_NODENAME']}:{port + int(os.environ['SLURM_LOCALID'])}"
        index = workers.index(own)
    except (KeyError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"the environment of this step of Slurm does not tell its workers: {error}. Start them by srun, or give"
            " TF_CONFIG."
        ) from error
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})


@contextlib.contextmanager
def own_folder(worker: Worker, folder: Path) -> Iterator[Path]:
    """The folder that a worker writes to: the run folder for the chief, a temporary folder for the others."""
    if worker.index == 0:
        yield folder
    else:
        with tempfile.TemporaryDirectory() as own:
            yield Path(own) / folder.name


def make_multi_worker_strategy() -> "tf.distribute.Strategy":
    """Connect to the other workers. Must be called before TensorFlow does anything else.

    Raises:
        ValueError: this worker's address can't be listened on.
    """
    import tensorflow as tf

    from mcar_tf.models.keras_internals import take_logs_as_given

    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.UnknownError, tf.errors.InternalError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"this worker can't listen on its address in TF_CONFIG, is it in use? [{reason}]"
        ) from error
    # TensorFlow now handles SIGTERM as a notice of preemption, which nothing here reads: restore Python's handler.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    take_logs_as_given()
    return strategy


def agree(strategy: "tf.distribute.Strategy", about: dict[str, Any]) -> None:
    """Check that all workers were started in the same way, before they build anything together.

    Args:
        strategy: the workers' strategy; every worker must call this.
        about: versions and options by name.

    Raises:
        ValueError: something differs; raised on every worker, and names what differs.
    """
    import numpy as np
    import tensorflow as tf

    @tf.function(autograph=False)
    def gather(row: tf.Tensor) -> tf.Tensor:
        def gather_here(row: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            own = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync, dtype=tf.int32)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, own[:, tf.newaxis] * row)

        return strategy.run(gather_here, args=(row,))

    def rows_of_all(row: np.ndarray) -> np.ndarray:
        rows = strategy.experimental_local_results(gather(tf.constant(row, tf.int32)))[0].numpy()
        return rows[:: len(strategy.extended.worker_devices)]

    text = json.dumps(about, default=str).encode()
    width = int(rows_of_all(np.array([len(text)])).max())
    texts = rows_of_all(np.frombuffer(text.ljust(width), np.uint8)).astype(np.uint8)
    if problem := find_differences([json.loads(row.tobytes()) for row in texts]):
        raise ValueError(f"the workers must be started alike: {problem}.")


def find_differences(workers: Sequence[dict[str, Any]]) -> str:
    """In what other workers differ from worker 0, in words; empty if nothing differs."""
    chief = workers[0]
    return "; ".join(
        f"{name} is {other.get(name)} on worker {index}, {chief.get(name)} on worker 0"
        for index, other in enumerate(workers)
        for name in {**chief, **other}
        if other.get(name) != chief.get(name)
    )


def as_on_the_chief(
    strategy: "tf.distribute.Strategy", variables: "Sequence[keras.Variable]", state: Any
) -> Any:
    """Copy the chief's variables to all workers, and return the chief's state, which must be serializable as JSON."""
    import numpy as np
    import tensorflow as tf

    def of_the_first(*values: tf.Tensor) -> list[tf.Tensor]:
        context = tf.distribute.get_replica_context()
        first = tf.equal(context.replica_id_in_sync_group, 0)
        own = [tf.where(first, value, tf.zeros_like(value)) for value in values]
        return [context.all_reduce(tf.distribute.ReduceOp.SUM, value) for value in own]

    @tf.function(autograph=False)
    def broadcast(*values: tf.Tensor) -> list[tf.Tensor]:
        return strategy.run(of_the_first, args=values)

    def receive(*values: Any) -> list[tf.Tensor]:
        return [strategy.experimental_local_results(value)[0] for value in broadcast(*values)]

    text = np.frombuffer(json.dumps(state).encode(), np.uint8).astype(np.int32)
    length = int(receive(tf.constant(len(text)))[0])
    padded = np.resize(text, length)  # only the chief's text is used; the others need one of the same length
    text = receive(tf.constant(padded, tf.int32))[0].numpy().astype(np.uint8)
    values = receive(*[tf.convert_to_tensor(variable.value) for variable in variables])
    for variable, value in zip(variables, values, strict=True):
        variable.value.assign(value)
    return json.loads(text.tobytes().decode())


@contextlib.contextmanager
def losing_workers(stopping: Stopping) -> Iterator[None]:
    """Report a lost worker in one line instead of TensorFlow's many; if a stop was requested meanwhile, stop."""
    import tensorflow as tf

    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        if stopping.requested:  # the chief left first
            stopping.leave()
        reason = " ".join(str(error).split())[:160]
        raise WorkerLostError(
            "another worker ended or can't be reached. Start all workers again with --resume: they go on from the"
            f" last checkpoint. [{reason}]"
        ) from error
