"""Between steps nothing waits for the device, and the first step says what it does."""

from types import SimpleNamespace

import keras
import numpy as np
import tensorflow as tf

from mcar_tf.training.callbacks import FirstStep, Forecast, StepCallbacks


class Seen(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.logs = []

    def on_train_batch_end(self, batch, logs=None):
        self.logs.append(logs["loss"])


def fit(callbacks, epochs=1, pictures=4):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    x = np.zeros((pictures, 2), np.float32)
    for _ in range(epochs):
        every = StepCallbacks(callbacks, add_history=True, model=model)
        history = model.fit(x, x[:, :1], batch_size=2, verbose=0, callbacks=every)
    return history


def test_the_logs_of_a_step_come_as_tensors():
    seen = Seen()
    history = fit([seen])
    assert len(seen.logs) == 2
    assert all(isinstance(loss, tf.Tensor) for loss in seen.logs)
    assert isinstance(history.history["loss"][0], float)


def test_keras_own_list_makes_numbers_of_them():
    """If this fails, Keras no longer waits for the device after each step, and `StepCallbacks` can go."""
    seen = Seen()
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(np.zeros((4, 2)), np.zeros((4, 1)), batch_size=2, verbose=0, callbacks=[seen])
    assert all(isinstance(loss, float) for loss in seen.logs)


def test_the_first_step_says_what_it_does_once():
    lines = []
    fit([FirstStep(lines.append)], epochs=2)
    assert len(lines) == 2
    assert lines[0].startswith("reading the first pictures, and building the training step's graph")
    assert lines[1].startswith("the first step took ")


def test_a_step_with_a_new_graph_is_a_first_one_again():
    lines = []
    callback = FirstStep(lines.append)
    callback.comes_again()  # before the very first step, nothing is new
    fit([callback])
    callback.comes_again()
    fit([callback], epochs=2)
    assert lines[0].startswith("reading the first pictures, and building the training step's graph: ")
    assert lines[1].startswith("the first step took ")
    assert lines[2].startswith("building the graph of another training step: ")
    assert lines[3].startswith("its first step took ")
    assert len(lines) == 4


def test_a_compiled_first_step_says_so():
    lines = []
    callback = FirstStep(lines.append)
    callback.set_model(SimpleNamespace(jit_compile=True))
    callback.on_epoch_begin(0)
    assert lines == [
        "reading the first pictures, and building the training step's graph, which XLA compiles: seconds to minutes"
    ]


def test_the_first_steps_say_how_long_the_run_will_take(monkeypatch):
    now = iter([10.0, 20.0])  # at the end of the first step, and of the sixth
    monkeypatch.setattr("mcar_tf.training.callbacks.time", SimpleNamespace(monotonic=lambda: next(now)))
    lines = []
    forecast = Forecast(lambda step_seconds: 300 * step_seconds, 6, lines.append)
    fit([forecast], epochs=2, pictures=12)
    assert lines == ["about 10 minutes to the end of the run, by the time of the last 5 steps"]


def test_the_forecast_names_the_time_of_the_baseline_too(monkeypatch):
    now = iter([10.0, 20.0])
    monkeypatch.setattr("mcar_tf.training.callbacks.time", SimpleNamespace(monotonic=lambda: next(now)))
    lines = []
    forecast = Forecast(lambda seconds: 300 * seconds, 6, lines.append, lambda seconds: 60 * seconds)
    fit([forecast], epochs=2, pictures=12)
    assert lines == [
        "about 10 minutes to the end of the run and 2 minutes more for the baseline, by the time of the last 5 steps"
    ]


def test_too_few_steps_say_nothing_about_the_time():
    lines = []
    fit([Forecast(lambda step_seconds: step_seconds, 2, lines.append)])
    assert lines == []
