"""The example that loads a server: it counts right answers, and notices wrong ones."""

import contextlib
import importlib.util
import re
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "serve_load.py"


@pytest.fixture
def load():
    spec = importlib.util.spec_from_file_location("serve_load", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def photos(make_sample, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(3):
        (folder / f"{number}.png").write_bytes(make_sample("test", number).image)
    return sorted(folder.iterdir())


class Model:
    """The served model with another way to answer."""

    def __init__(self, served, run):
        self._served, self.run = served, run

    def __getattr__(self, name):
        return getattr(self._served, name)


@contextlib.contextmanager
def serving(served, run):
    """The model's URL on a server of this process."""
    from mcar_tf.serve import listen
    from mcar_tf.serving.server import make_server

    limits = {"batch_size": 8, "most_waiting": 64, "most_bytes": 2**20, "seconds": 30}
    server, batcher = make_server(Model(served, run), "mcar", **limits)
    with listen("127.0.0.1", 0) as door:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        door.listen()
        thread.start()
        try:
            yield f"http://127.0.0.1:{door.getsockname()[1]}/v1/models/mcar"
        finally:
            server.should_exit = True
            thread.join(60)
            batcher.close()


def row_of(picture):
    """An answer that depends on the picture alone, and is that of no other."""
    probs = np.full(4, len(picture) % 997 / 1000, np.float32)
    return {"global_probs": probs, "probs": probs, "valid": picture != b"no picture"}


def answer(signature, inputs):
    time.sleep(0.01)  # so that requests meet in batches
    rows = [row_of(picture) for picture in inputs["encoded"]]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def mixed_up(signature, inputs):
    """Gives the first picture's answer to all of its batch."""
    return {name: np.repeat(value[:1], len(value), 0) for name, value in answer(signature, inputs).items()}


def start(load, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["serve_load.py", *map(str, words)])
    load.main()


def test_many_clients_get_their_own_answers(load, served, photos, monkeypatch, capsys):
    words = ("--clients", 6, "--seconds", 1, "--hostile", 0.5, "--most-megabytes", 1)
    with serving(served, answer) as url:
        start(load, monkeypatch, "--url", url, *words, *photos)
    first, *_, model = capsys.readouterr().out.splitlines()[:4]
    assert re.fullmatch(r"\d+ answers in \d+ s: [\d.]+ a second; wrong or none: 0", first)
    assert re.fullmatch(r"the model computed \d+% of the time, [\d.]+ pictures a second", model)


def test_the_answer_for_another_picture_is_an_error(load, served, photos, monkeypatch):
    words = ("--clients", 6, "--seconds", 1, "--hostile", 0, *photos)
    with serving(served, mixed_up) as url, pytest.raises(SystemExit, match="answers were not right: picture"):
        start(load, monkeypatch, "--url", url, *words)


def test_hostile_bodies_get_what_is_right_for_them(load, make_client):
    client = make_client(answer, most_bytes=2**20)
    for body, right in load.make_hostile(b"", 1):
        if right:  # else it is cut off
            assert client.post("/v1/models/mcar:predict", content=body).status_code in right, body[:60]


def test_a_hostile_request_that_is_answered_is_an_error(load, served, photos, monkeypatch):
    monkeypatch.setattr(load, "make_hostile", lambda body, most: [(body, {400})])
    words = ("--clients", 2, "--seconds", 0.5, "--hostile", 1, *photos)
    with serving(served, answer) as url, pytest.raises(SystemExit, match=r"not right: .* got 200"):
        start(load, monkeypatch, "--url", url, *words)


def test_no_server_is_said(load, photos, monkeypatch):
    with pytest.raises(SystemExit, match=r"error: .*refused"):
        start(load, monkeypatch, "--url", "http://127.0.0.1:9/v1/models/mcar", *photos)
