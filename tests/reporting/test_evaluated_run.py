"""Runs in a report are told apart by their names."""

from mcar_tf.reporting.evaluated_run import name_runs


def test_names_tell_runs_apart_by_as_little_as_needed(tmp_path):
    folders = [tmp_path / "a" / "run", tmp_path / "b" / "run"]
    assert name_runs(folders) == ["a/run", "b/run"]
    assert name_runs([tmp_path / "one", tmp_path / "two"]) == ["one", "two"]
