"""What happens between two training steps: the progress bar, checkpoints by the clock, stopping, guards."""

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

LOOK_AT_LOSS_EVERY = 50  # steps


class ProgressBar(keras.callbacks.Callback):
    """A bar over the steps of an epoch, with images/s, time left and the loss; nothing where no terminal is.

    Args:
        steps: of one epoch.
        batch_size: images a step.
        epochs: of the run, for the bar's title.
        first_step: where the bar starts: how many steps of the epoch are done.
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
        """Move on by a batch."""
        self.bar.update(self.batch_size)
        if batch % 10 == 0 and not self.bar.disable and logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.4f}", refresh=False)

    def close(self) -> None:
        """Take the bar away: another line follows."""
        self.bar.close()


class ResumedMeans(keras.callbacks.Callback):
    """Keeps the running means of an epoch that is resumed: Keras sets metrics to zero as an epoch begins.

    Args:
        model: whose metrics have been restored.
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
    forgotten early on. Keras' own `use_ema` averages no statistics, and overwrites the weights after each `fit`.

    Args:
        model: built, with an optimizer.
        decay: in [0, 1).
    """

    def __init__(self, model: keras.Model, decay: float) -> None:
        super().__init__()
        self.weights = [weight.value for weight in model.weights]
        self.variables = [keras.Variable(weight, trainable=False) for weight in model.weights]
        self.optimizer = model.optimizer
        self.decay = decay
        self.trained: list[Any] = []  # weights, while the averages are in their place

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Move towards the weights."""
        self._update()

    @tf.function(autograph=False)
    def _update(self) -> None:
        # Where gradients are accumulated, `iterations` is no variable but made of one, anew each time.
        steps = tf.cast(tf.convert_to_tensor(self.optimizer.iterations), tf.float32)
        kept = tf.minimum(self.decay, (1 + steps) / (10 + steps))
        for average, weight in zip(self.variables, self.weights, strict=True):
            average.value.assign(kept * average.value + (1 - kept) * weight)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside a `with` block the model has the averages for weights."""
        self.trained = [weight.numpy() for weight in self.weights]
        try:
            for weight, average in zip(self.weights, self.variables, strict=True):
                weight.assign(average.value)
            yield
        finally:
            self.give_way()

    def give_way(self) -> None:
        """Give the model its trained weights back; to be called again where a signal broke in, else idle."""
        for weight, value in zip(self.weights, self.trained, strict=False):
            weight.assign(value)
        self.trained = []


class StallWatch(keras.callbacks.Callback):
    """Says so where no step ends for long, and which file can't be read if that is why.

    Args:
        files: that the input pipeline reads.
        seconds: without a step.
        say: what to do with the line.
    """

    def __init__(
        self,
        files: Sequence[Path],
        seconds: float = 300.0,
        say: Callable[[str], None] = print,
    ) -> None:
        super().__init__()
        self.files, self.seconds, self.say = files, seconds, say
        self.closed = threading.Event()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begin to watch."""
        self.last_step = time.monotonic()
        self.closed.clear()
        threading.Thread(target=self._watch, daemon=True).start()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Remember when."""
        self.last_step = time.monotonic()

    def close(self) -> None:
        """Stop watching: no more steps follow."""
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
        return "the files can be read, so the input pipeline or the device is stuck or very slow"


def _read_a_byte(path: Path) -> None:
    # A file that is gone or forbidden stalls nothing: the pipeline itself reports it.
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.read(1)


class StepGuard(keras.callbacks.Callback):
    """After each step of an epoch: save by the clock, save and stop when asked to, end where the loss is not finite.

    Args:
        save: writes a checkpoint; takes the number of steps done in this epoch.
        minutes: between two saves inside an epoch.
        stop_requested: whether to save and leave, asked after each step.
        steps_done: of the epoch, before the first step that is seen here.
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
        self.losses: list[Any] = []  # after each step since the last look

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the step, look at its loss now and then, save or stop where it is time."""
        self.steps_done += 1
        self.losses.append(logs["loss"] if logs else 0.0)
        due = time.monotonic() - self.last_saved > self.seconds
        stop = self.stop_requested()
        # The loss is the epoch's running mean: once no number, it stays so, and a look now and then finds it. To look
        # is to wait for the device.
        if due or stop or self.steps_done % LOOK_AT_LOSS_EVERY == 1:
            self._check_loss()
        if due or stop:
            check_finite(self.model)
            self.save(self.steps_done)
            self.last_saved = time.monotonic()
        if stop:
            raise StopRequestedError

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """The last look at the epoch's loss, before anything is saved."""
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
    """Refuse weights that are no numbers: an update can break what the loss before it did not show.

    Raises:
        NonFiniteLossError: naming the first such weight.
    """
    for weight in model.weights:  # counts among them are always finite, and TensorFlow asks floats alone
        if weight.value.dtype.is_floating and not bool(tf.reduce_all(tf.math.is_finite(weight.value))):
            raise NonFiniteLossError(f"{weight.path} is no longer finite. {advice_on_divergence(model)}")


def advice_on_divergence(model: keras.Model) -> str:
    """What to try once training has diverged."""
    scale = getattr(model.optimizer, "dynamic_scale", None)
    first = "" if scale is None else f"The loss scale is {float(scale):g}: try --precision float32 first. "
    return (
        f"{first}Lower --learning-rate or set --clip-norm, and start anew with --overwrite or in another"
        " --out-dir."
    )


class StopRequestedError(Exception):
    """A signal asked to stop; the step was finished and saved."""


class NonFiniteLossError(ValueError):
    """Training diverged."""
