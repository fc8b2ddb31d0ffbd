"""An export folder of an untrained run, and its application, asked without a network."""

import json

import pytest

pytest.importorskip("fastapi", reason="needs the extra [serve]")
pytest.importorskip("prometheus_client", reason="needs the extra [serve]")
pytest.importorskip("python_multipart", reason="needs the extra [serve]")
pytest.importorskip("httpx2", reason="starlette's test client needs it")


@pytest.fixture(scope="session")
def exported(untrained_run, tmp_path_factory):
    """An export folder with a SavedModel and thresholds; not to be changed."""
    from mcar_tf.exporting.folder import labels_text, thresholds_text, write_checksums
    from mcar_tf.exporting.saved_model import write_saved_model
    from mcar_tf.runs.loading import load_run

    run = load_run(untrained_run)
    folder = tmp_path_factory.mktemp("served") / "squares"
    folder.mkdir()
    write_saved_model(run.model, run.classes, folder / "saved_model" / "1")
    (folder / "labels.txt").write_text(labels_text(run.classes))
    (folder / "thresholds.json").write_text(thresholds_text(run.classes, [0.7, 0.1, 0.2, 0.9]))
    (folder / "parity.json").write_text(json.dumps({"model": {}}))
    write_checksums(folder)
    return folder


@pytest.fixture(scope="session")
def served(exported):
    """The model of the export folder."""
    from mcar_tf.serving.served_model import load_served_model

    return load_served_model(exported)


@pytest.fixture
def make_client(served):
    """A function of `make_app`'s options: a client of an application with a batcher of its own."""
    from prometheus_client import CollectorRegistry
    from starlette.testclient import TestClient

    from mcar_tf.serving.app import make_app
    from mcar_tf.serving.batching import Batcher

    batchers = []

    def make(run=served.run, most_waiting=64, **options):
        batchers.append(Batcher(run, 8, most_waiting))
        app = make_app(served, batchers[-1], registry=CollectorRegistry(), **options)
        return TestClient(app, raise_server_exceptions=False)

    yield make
    for batcher in batchers:
        batcher.close()


@pytest.fixture
def client(make_client):
    """A client of the application."""
    return make_client()
