"""Callbacks that run between training steps: progress bar, timed checkpoints, stopping, guards."""

import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tqdm import tqdm

from pipelines.words import about

LOOK_AT_LOSS_EVERY = 50  # steps


class ProgressBar(keras.callbacks.Callback):
    """A bar over the steps of an epoch, with images/s, time left and the loss; hidden if there is no terminal.

    Args:
        steps: number of steps in one epoch.
        batch_size: images per step.
        epochs: number of epochs in the run, for the bar's title.
        first_step: how many steps of the epoch are already done: the bar starts there.
    """

    def __init__(self, steps: int, batch_size: int, epochs: int, first_step: int = 0) -> None:
        super().__init__()
        self.steps, self.batch_size, self.epochs, self.first_step = steps, batch_size, epochs, first_step
        self.bar = tqdm(disable=True)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Draw the bar."""
        self.bar = tqdm(
            total=self.steps * self.batch_size,
            initial=self.first_step * self.batch_size,
            desc=f"epoch {epoch + 1}/{self.epochs}",
            unit=" images",
            leave=False,
            file=sys.stderr,
            disable=None,
        )

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Advance the bar by one batch."""
        self.bar.update(self.batch_size)
        if batch % 10 == 0 and not self.bar.disable and logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.4f}", refresh=False)

    def close(self) -> None:
        """Remove the bar, so that other lines can be printed."""
        self.bar.close()


class StepCallbacks(keras.callbacks.CallbackList):
    """Hands each step's logs on as tensors.

    Keras makes numbers of them first, and so waits for the device after every step before it starts the next one.
    """

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Call the callbacks one after the other."""
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs)


class FirstStep(keras.callbacks.Callback):
    """Says what happens before the first step ends, which takes far longer than the others.

    Args:
        say: called with each line.

    Attributes:
        ended: whether the step's graph is built.
    """

    def __init__(self, say: Callable[[str], None] = print) -> None:
        super().__init__()
        self.say, self.started, self.ended, self.again = say, 0.0, False, False

    def comes_again(self) -> None:
        """The steps from now on compute something else, so that a new graph is built for them."""
        self.again, self.ended = self.ended, False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Say what begins."""
        if not self.ended:
            self.started = time.monotonic()
            compiling = ", which XLA compiles" if self.model.jit_compile else ""
            what = (
                "building the graph of another training step"
                if self.again
                else "reading the first pictures, and building the training step's graph"
            )
            self.say(f"{what}{compiling}: seconds to minutes")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Say how long it took, once the device is done with it."""
        if not self.ended and logs:
            float(logs["loss"])
            self.ended = True
            with tqdm.external_write_mode():
                self.say(
                    f"{'its' if self.again else 'the'} first step took {time.monotonic() - self.started:.1f} s"
                )


class Forecast(keras.callbacks.Callback):
    """Says about how long the rest of the run will take, by the time of some of its steps. Once in its life.

    Args:
        seconds_left: from the seconds that a step takes to those that the rest of the run takes.
        steps_per_epoch: the number of steps in an epoch.
        say: called with the line.
        afterwards: the same for a plain backbone that is trained after the run, if there is one.
    """

    MEASURED = 20  # steps, after an epoch's first one, which may wait for the graph and the first pictures

    def __init__(
        self,
        seconds_left: Callable[[float], float],
        steps_per_epoch: int,
        say: Callable[[str], None] = print,
        afterwards: Callable[[float], float] | None = None,
    ) -> None:
        super().__init__()
        self.measured = min(self.MEASURED, steps_per_epoch - 1)
        self.seconds_left, self.afterwards, self.say, self.said = seconds_left, afterwards, say, False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the steps of this epoch."""
        self.steps, self.started = 0, 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clock after the first step, and say the forecast once enough steps have been measured."""
        self.steps += 1
        if self.said or not logs or self.measured < 5 or self.steps not in (1, 1 + self.measured):
            return
        float(logs["loss"])  # once the device is done
        if self.steps == 1:
            self.started = time.monotonic()
            return
        step_seconds = (time.monotonic() - self.started) / self.measured
        more = f" and {about(self.afterwards(step_seconds))} more for the baseline" if self.afterwards else ""
        left = about(self.seconds_left(step_seconds))
        self.said = True
        with tqdm.external_write_mode():
            self.say(
                f"about {left} to the end of the run{more}, by the time of the last {self.measured} steps"
            )


class ResumedMeans(keras.callbacks.Callback):
    """Keeps the running means of a resumed epoch, because Keras resets all metrics when an epoch begins.

    Args:
        model: the model, with its metrics already restored.
    """

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.values = [variable.numpy() for variable in model.metrics_variables]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Put the values back."""
        for variable, value in zip(self.model.metrics_variables, self.values, strict=True):
            variable.assign(value)


class MovingAverage(keras.callbacks.Callback):
    """An exponential moving average of a model's weights and BatchNorm statistics, updated after each step.

    After step t (from 1) the average keeps min(decay, (1 + t) / (10 + t)) of itself, so that the first weights are
    soon forgotten. Keras' own `use_ema` does not average statistics, and overwrites the weights after each `fit`.

    Args:
        model: a built model that has an optimizer.
        decay: in [0, 1).
    """

    def __init__(self, model: keras.Model, decay: float) -> None:
        super().__init__()
        self.weights = [weight.value for weight in model.weights]
        self.variables = [keras.Variable(weight, trainable=False) for weight in model.weights]
        self.optimizer = model.optimizer
        self.decay = decay
        self.trained: list[Any] = []  # the trained weights, while the model holds the averages instead

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Move the averages towards the weights."""
        self._update()

    @tf.function(autograph=False)
    def _update(self) -> None:
        # With gradient accumulation, `iterations` is not a variable: it is computed from one at each access.
        steps = tf.cast(tf.convert_to_tensor(self.optimizer.iterations), tf.float32)
        kept = tf.minimum(self.decay, (1 + steps) / (10 + steps))
        for average, weight in zip(self.variables, self.weights, strict=True):
            average.value.assign(kept * average.value + (1 - kept) * weight)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside a `with` block, the model's weights are the averages."""
        self.trained = [weight.numpy() for weight in self.weights]
        try:
            for weight, average in zip(self.weights, self.variables, strict=True):
                weight.assign(average.value)
            yield
        finally:
            self.give_way()

    def give_way(self) -> None:
        """Give the model its trained weights back. Call it again after a signal interrupted; else it does nothing."""
        for weight, value in zip(self.weights, self.trained, strict=False):
            weight.assign(value)
        self.trained = []


class StallWatch(keras.callbacks.Callback):
    """Reports when no step has ended for a long time, and names the file that blocks reading if that is the cause.

    Args:
        files: the files that the input pipeline reads.
        seconds: how long no step must have ended before this is reported.
        say: called with the line to report.
        building: whether the step's graph is still being built, or compiled.
    """

    def __init__(
        self,
        files: Sequence[Path],
        seconds: float = 300.0,
        say: Callable[[str], None] = print,
        building: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self.files, self.seconds, self.say, self.building = files, seconds, say, building
        self.closed = threading.Event()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start watching."""
        self.last_step = time.monotonic()
        self.closed.clear()
        threading.Thread(target=self._watch, daemon=True).start()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Remember when the step ended."""
        self.last_step = time.monotonic()

    def close(self) -> None:
        """Stop watching, because no more steps follow."""
        self.closed.set()

    def _watch(self) -> None:
        while not self.closed.wait(self.seconds / 10):
            waited = time.monotonic() - self.last_step
            if waited > self.seconds:
                self.say(f"no step for {waited:.0f} s: {self._reason()}")
                self.last_step = time.monotonic()

    def _reason(self) -> str:
        for file in self.files:
            reading = threading.Thread(target=_read_a_byte, args=(file,), daemon=True)
            reading.start()
            reading.join(self.seconds / 10)
            if reading.is_alive():
                return f"the input pipeline is stalled, {file} does not let itself be read"
        if self.building():
            return (
                "the files can be read; the training step's graph is probably still being built or compiled"
            )
        return "the files can be read, so the input pipeline or the device is stuck or very slow"


def _read_a_byte(path: Path) -> None:
    # A file that is missing or not permitted does not stall anything: the pipeline itself reports it.
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.read(1)


class StepGuard(keras.callbacks.Callback):
    """After each step: saves if the time is up, saves and stops if asked to, and fails if the loss is not finite.

    Args:
        save: writes a checkpoint; takes the number of steps done in this epoch.
        minutes: time between two saves inside an epoch.
        stop_requested: called after each step; returns whether to save and stop.
        steps_done: how many steps of the epoch were done before training started here.
    """

    def __init__(
        self,
        save: Callable[[int], None],
        minutes: float,
        stop_requested: Callable[[], bool],
        steps_done: int = 0,
    ) -> None:
        super().__init__()
        self.save, self.seconds, self.stop_requested = save, 60.0 * minutes, stop_requested
        self.last_saved = time.monotonic()
        self.steps_done = steps_done
        self.losses: list[Any] = []  # one for each step since they were last checked

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the step; check the losses now and then; save or stop if it is time to."""
        self.steps_done += 1
        self.losses.append(logs["loss"] if logs else 0.0)
        due = time.monotonic() - self.last_saved > self.seconds
        stop = self.stop_requested()
        # The loss is the epoch's running mean: once it is not finite, it stays so. A check now and then is enough;
        # each check has to wait for the device.
        if due or stop or self.steps_done % LOOK_AT_LOSS_EVERY == 1:
            self._check_loss()
        if due or stop:
            check_finite(self.model)
            self.save(self.steps_done)
            self.last_saved = time.monotonic()
        if stop:
            raise StopRequestedError

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Check the remaining losses and the weights of the epoch before anything is saved."""
        self._check_loss()
        check_finite(self.model)

    def _check_loss(self) -> None:
        first = self.steps_done - len(self.losses) + 1
        for step, loss in enumerate(map(float, self.losses), first):
            if not math.isfinite(loss):
                raise NonFiniteLossError(
                    f"the loss became {loss} at step {step} of the epoch. {advice_on_divergence(self.model)}"
                )
        self.losses = []


def check_finite(model: keras.Model) -> None:
    """Refuse weights that are not finite: an update can break them although the loss before it was finite.

    Raises:
        NonFiniteLossError: a weight is NaN or infinite; the error names the first one.
    """
    for weight in model.weights:  # integer counters are always finite, and TensorFlow can check only floats
        if weight.value.dtype.is_floating and not bool(tf.reduce_all(tf.math.is_finite(weight.value))):
            raise NonFiniteLossError(f"{weight.path} is no longer finite. {advice_on_divergence(model)}")


def advice_on_divergence(model: keras.Model) -> str:
    """Advice for the user when training has diverged."""
    scale = getattr(model.optimizer, "dynamic_scale", None)
    first = "" if scale is None else f"The loss scale is {float(scale):g}: try --precision float32 first. "
    return (
        f"{first}Lower --learning-rate or set --clip-norm, and start anew with --overwrite or in another"
        " --out-dir."
    )


class StopRequestedError(Exception):
    """A signal asked to stop; the current step was finished and saved."""


class NonFiniteLossError(ValueError):
    """Training diverged."""
