"""A run folder is opened once, by one process, and goes on as what it was."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mcar_tf.config import FitConfig, read_config
from mcar_tf.run_folder import (
    append_history,
    command_on,
    locked,
    open_run_folder,
    read_classes,
    write_history,
)

CLASSES = ("cat", "dog")


@pytest.fixture
def config(tmp_path) -> FitConfig:
    return FitConfig(out_dir=tmp_path / "runs" / "run", weights="none")


def test_a_new_folder_holds_what_the_run_is(config):
    open_run_folder(config, config.run_dir, CLASSES)
    assert dataclasses.replace(read_config(config.run_dir / "config.yaml"), out_dir=config.out_dir) == config
    assert read_classes(config.run_dir) == CLASSES
    environment = json.loads((config.run_dir / "environment.json").read_text())
    assert {"mcar_tf", "python", "tensorflow", "keras", "numpy"} <= environment.keys()
    assert [path.name for path in config.run_dir.parent.iterdir()] == ["run"]


def test_a_run_is_neither_written_over_nor_gone_on_with_unasked(config):
    open_run_folder(config, config.run_dir, CLASSES)
    with pytest.raises(FileExistsError, match=r"holds a run already \(unfinished\). --resume"):
        open_run_folder(config, config.run_dir, CLASSES)
    (config.run_dir / "metrics.json").write_text("{}")
    with pytest.raises(FileExistsError, match=r"\(complete\)"):
        open_run_folder(config, config.run_dir, CLASSES)
    open_run_folder(dataclasses.replace(config, overwrite=True), config.run_dir, CLASSES)
    assert not (config.run_dir / "metrics.json").exists()


@pytest.mark.parametrize("option", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_of_anything_else_is_left_alone(config, option):
    config.run_dir.mkdir(parents=True)
    (config.run_dir / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="not empty and not a run folder"):
        open_run_folder(dataclasses.replace(config, **option), config.run_dir, CLASSES)
    assert (config.run_dir / "thesis.tex").read_text() == "years of work"


def test_to_resume_where_there_is_no_run_starts_it(config):
    open_run_folder(dataclasses.replace(config, resume=True), config.run_dir, CLASSES)
    assert read_classes(config.run_dir) == CLASSES


def test_other_options_are_named_on_resume(config):
    open_run_folder(config, config.run_dir, CLASSES)
    changed = dataclasses.replace(config, resume=True, tau=0.25, epochs=9, keep_checkpoints=7)
    with pytest.raises(
        ValueError, match=r"tau was 0.5, is 0.25; epochs was 60, is 9.*Only .*keep-checkpoints"
    ):
        open_run_folder(changed, config.run_dir, CLASSES)
    assert read_config(config.run_dir / "config.yaml").tau == 0.5


def test_what_changes_no_result_may_change_on_resume(config, tmp_path):
    open_run_folder(config, config.run_dir, CLASSES)
    changed = {
        "data_dir": tmp_path,
        "checkpoint_minutes": 1.0,
        "keep_checkpoints": 7,
        "compare_baseline": True,
    }
    open_run_folder(dataclasses.replace(config, resume=True, **changed), config.run_dir, CLASSES)


def test_other_classes_are_refused_on_resume(config):
    open_run_folder(config, config.run_dir, CLASSES)
    with pytest.raises(ValueError, match="other classes"):
        open_run_folder(dataclasses.replace(config, resume=True), config.run_dir, ("dog", "cat"))


def test_a_second_writer_is_kept_out_until_the_first_is_gone(tmp_path):
    code = "import sys, time; from pathlib import Path; from mcar_tf.run_folder import locked\n"
    code += "with locked(Path(sys.argv[1])): print('in', flush=True); time.sleep(100)"
    root = Path(__file__).parent.parent
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=root, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"in\n"
        with pytest.raises(FileExistsError, match="being written by another process"), locked(tmp_path):
            pass
        first.kill()  # as nothing would let it tidy up
    with locked(tmp_path):
        pass


def test_a_run_that_is_being_written_is_not_overwritten(config):
    open_run_folder(config, config.run_dir, CLASSES)
    baseline = config.run_dir / "baseline"
    baseline.mkdir()
    for folder in (config.run_dir, baseline):
        with locked(folder), pytest.raises(FileExistsError, match="being written by another process"):
            open_run_folder(dataclasses.replace(config, overwrite=True), config.run_dir, CLASSES)
        assert (config.run_dir / "config.yaml").is_file()


def test_history_is_rewritten_as_of_the_state_and_then_grows(tmp_path):
    file = tmp_path / "history.csv"
    append_history(file, {"epoch": 1, "loss": 0.5})
    append_history(file, {"epoch": 2, "loss": 0.25})
    write_history(file, [{"epoch": 1, "loss": 0.5}])
    append_history(file, {"epoch": 2, "loss": 0.125})
    assert file.read_text() == "epoch,loss\n1,0.5\n2,0.125\n"


def test_a_command_on_a_folder_can_be_pasted():
    assert command_on(Path("runs/my run"), "evaluate") == "python -m mcar_tf.evaluate --run 'runs/my run'"
