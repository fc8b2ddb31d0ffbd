"""Who trains a run is asked of one object: a process alone, or one of several workers."""

import json

import pytest

from mcar_tf.training.signals import Stopping
from mcar_tf.training.workers import OneProcess, SeveralWorkers, find_workers


def test_a_process_alone_leads_and_has_nobody_to_agree_with(tmp_path):
    workers = find_workers("auto")
    assert type(workers) is OneProcess
    assert (workers.leads, workers.several) == (True, False)
    with workers.folder(tmp_path / "run") as folder, workers.losing_others(Stopping()):
        assert folder == tmp_path / "run"
    workers.agree({"tensorflow": "2.21"})
    assert workers.share([], {"epoch": 3}) == {"epoch": 3}
    assert workers.connect("auto", False) is workers.connect("auto", False)


@pytest.mark.parametrize("index", [0, 1])
def test_of_several_workers_the_first_leads(index, tmp_path, monkeypatch):
    cluster = {"worker": ["127.0.0.1:2222", "127.0.0.1:2223"]}
    monkeypatch.setenv(
        "TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
    )
    workers = find_workers("multi_worker")
    assert isinstance(workers, SeveralWorkers)
    assert (workers.leads, workers.several) == (index == 0, True)
    with workers.folder(tmp_path / "run") as folder:
        assert (folder == tmp_path / "run") == workers.leads


def test_several_workers_need_to_be_told_who_they_are(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="--strategy multi_worker needs TF_CONFIG"):
        find_workers("multi_worker")
