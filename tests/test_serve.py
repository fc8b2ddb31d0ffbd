"""The command: it serves, it refuses what it can't serve in one line, and a signal ends it with answers given."""

import contextlib
import http.client
import importlib.util
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from mcar_tf import serve

needs_extra = pytest.mark.skipif(
    any(importlib.util.find_spec(module) is None for module in serve.NEEDED), reason="needs the extra [serve]"
)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--port", "70000"], "`port` must lie in"),
        (["--timeout", "0"], "`timeout` must be"),
        (["--batch-size", "0"], "`batch-size` must be at least 1"),
        (["--name", "a/b"], "`name` must be of letters"),
        ([], "is not an export folder"),
    ],
)
def test_what_can_not_be_served_is_refused(tmp_path, words, line):
    with pytest.raises((ValueError, FileNotFoundError), match=line):
        serve.main(["--export", str(tmp_path), *words])


def test_a_port_that_is_taken_is_said():
    with serve.listen("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(
            ValueError, match=r"Nobody can listen at 127\.0\.0\.1, port \d+: Address already in use"
        ):
            serve.listen("127.0.0.1", taken.getsockname()[1])


def test_what_is_no_address_is_said():
    for host in ("", "a" * 70, "no.such.host.invalid"):
        with pytest.raises(ValueError, match=r"Nobody can listen at .*, port 8501: .*\. See --host"):
            serve.listen(host, 8501)


@needs_extra
def test_of_two_servers_that_start_at_once_the_second_says_that_the_port_is_taken(monkeypatch, tmp_path):
    from mcar_tf.serving import server

    monkeypatch.setattr(server, "load_served_model", lambda folder: None)
    monkeypatch.setattr(server, "make_server", lambda model, name, **limits: (None, None))
    limits = {"batch_size": 1, "most_waiting": 1, "most_bytes": 1, "seconds": 1}
    with (
        serve.listen("127.0.0.1", 0) as first,
        serve.listen("127.0.0.1", first.getsockname()[1]) as second,  # as long as neither listens
    ):
        first.listen()
        with pytest.raises(ValueError, match=r"port \d+: Address already in use\. See --port"):
            server.serve(tmp_path, second, "mcar", **limits)


@needs_extra
def test_an_export_without_a_saved_model_is_said(tmp_path):
    (tmp_path / "parity.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="holds no SavedModel: export it with --formats saved_model"):
        serve.main(["--export", str(tmp_path), "--port", "0"])


@needs_extra
def test_sigterm_lets_those_at_hand_have_their_answers(tmp_path, untrained_run, make_sample):
    import base64
    import json

    from mcar_tf.exporting.folder import labels_text
    from mcar_tf.exporting.saved_model import write_saved_model
    from mcar_tf.runs.loading import load_run

    run = load_run(untrained_run)
    write_saved_model(run.model, run.classes, tmp_path / "saved_model" / "1")
    (tmp_path / "labels.txt").write_text(labels_text(run.classes))
    (tmp_path / "parity.json").write_text("{}")
    words = [sys.executable, "-m", "mcar_tf.serve", "--export", str(tmp_path), "--port", "0"]
    with (
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
        contextlib.ExitStack() as failing,
    ):
        failing.callback(process.kill)  # a fault here is told, and not waited on for ever
        said = "".join(_until(process.stdout, "listening"))
        port = int(re.search(r"listening at http://127\.0\.0\.1:(\d+) ", said).group(1))
        picture = {"b64": base64.b64encode(make_sample("test", 0).image).decode()}
        body = json.dumps({"instances": [picture] * 200})
        answers = []

        def ask():
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
                connection.request("POST", "/v1/models/mcar:predict", body)
                answer = connection.getresponse()
                answers.append((answer.status, len(json.loads(answer.read())["predictions"])))

        asking = threading.Thread(target=ask)
        asking.start()
        _wait_for_pictures(port)
        process.send_signal(signal.SIGTERM)
        asking.join(60)
        _, errors = process.communicate(timeout=60)
        failing.pop_all()
    assert answers == [(200, 200)]
    assert (process.returncode, errors.strip()) == (143, "terminated")


def _until(stream, word):
    for line in stream:
        yield line
        if word in line:
            return


def _wait_for_pictures(port):
    """Until the model has begun with the request, so that the signal comes while it is at hand."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("GET", "/metrics")
            if re.search(rb"^mcar_pictures_total [1-9]", connection.getresponse().read(), re.MULTILINE):
                return
    raise AssertionError("the model looked at no picture within two minutes")
