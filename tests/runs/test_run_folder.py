"""A run folder is opened once, by one process, and goes on as what it was."""

import contextlib
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mcar_tf.config import FitConfig, read_config
from mcar_tf.runs import folder as run_folder
from mcar_tf.runs.folder import (
    append_history,
    command_on,
    locked,
    open_run_folder,
    read_classes,
    write_history,
)
from pipelines.manifest import Manifest, Shard, Split

CLASSES = ("cat", "dog")


def make_split(*checksums: str) -> Split:
    shards = tuple(Shard(f"{i}", 1, 1, checksum) for i, checksum in enumerate(checksums))
    return Split(Path(), len(shards), (), (), (), shards, ())


DATA = Manifest("digits", CLASSES, "", "", {"train": make_split("a", "b"), "validation": make_split("c")})


def open_and_leave(config: FitConfig, folder: Path, data: Manifest) -> None:
    with open_run_folder(config, folder, data):
        pass


@pytest.fixture
def config(tmp_path) -> FitConfig:
    return FitConfig(out_dir=tmp_path / "runs" / "run", weights="none")


def test_a_new_folder_holds_what_the_run_is(config):
    open_and_leave(config, config.run_dir, DATA)
    assert dataclasses.replace(read_config(config.run_dir / "config.yaml"), out_dir=config.out_dir) == config
    assert read_classes(config.run_dir) == CLASSES
    environment = json.loads((config.run_dir / "environment.json").read_text())
    assert {"mcar_tf", "python", "tensorflow", "keras", "numpy"} <= environment.keys()
    assert [path.name for path in config.run_dir.parent.iterdir()] == ["run"]


def test_a_run_is_neither_written_over_nor_gone_on_with_unasked(config):
    open_and_leave(config, config.run_dir, DATA)
    with pytest.raises(FileExistsError, match=r"holds a run already \(unfinished\). --resume"):
        open_and_leave(config, config.run_dir, DATA)
    (config.run_dir / "metrics.json").write_text("{}")
    with pytest.raises(FileExistsError, match=r"\(complete\)"):
        open_and_leave(config, config.run_dir, DATA)
    open_and_leave(dataclasses.replace(config, overwrite=True), config.run_dir, DATA)
    assert not (config.run_dir / "metrics.json").exists()


@pytest.mark.parametrize("option", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_of_anything_else_is_left_alone(config, option):
    config.run_dir.mkdir(parents=True)
    (config.run_dir / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="not empty and not a run folder"):
        open_and_leave(dataclasses.replace(config, **option), config.run_dir, DATA)
    assert (config.run_dir / "thesis.tex").read_text() == "years of work"


def test_to_resume_where_there_is_no_run_starts_it(config):
    open_and_leave(dataclasses.replace(config, resume=True), config.run_dir, DATA)
    assert read_classes(config.run_dir) == CLASSES


def test_other_options_are_named_on_resume(config):
    open_and_leave(config, config.run_dir, DATA)
    changed = dataclasses.replace(config, resume=True, tau=0.25, epochs=9, keep_checkpoints=7)
    with pytest.raises(
        ValueError, match=r"--tau was 0.5, is 0.25; --epochs was 60, is 9.*Only .*--keep-checkpoints"
    ):
        open_and_leave(changed, config.run_dir, DATA)
    assert read_config(config.run_dir / "config.yaml").tau == 0.5


def test_what_changes_no_result_may_change_on_resume(config, tmp_path):
    open_and_leave(config, config.run_dir, DATA)
    changed = {
        "data_dir": tmp_path,
        "checkpoint_minutes": 1.0,
        "keep_checkpoints": 7,
        "compare_baseline": True,
    }
    open_and_leave(dataclasses.replace(config, resume=True, **changed), config.run_dir, DATA)


def test_other_classes_are_refused_on_resume(config):
    open_and_leave(config, config.run_dir, DATA)
    other = dataclasses.replace(DATA, classes=("dog", "cat"))
    with pytest.raises(ValueError, match="other classes"):
        open_and_leave(dataclasses.replace(config, resume=True), config.run_dir, other)


def test_a_set_that_was_built_anew_is_noticed_on_resume(config):
    open_and_leave(config, config.run_dir, DATA)
    resume = dataclasses.replace(config, resume=True)
    for split in ("train", "validation"):
        other = dataclasses.replace(DATA, splits=DATA.splits | {split: make_split("d")})
        with pytest.raises(ValueError, match="started on other pictures or labels than those of digits now"):
            open_and_leave(resume, config.run_dir, other)
    other = dataclasses.replace(
        DATA, splits=DATA.splits | {"test": make_split("d")}
    )  # none that it learns from
    open_and_leave(resume, config.run_dir, other)
    environment = config.run_dir / "environment.json"
    environment.write_text(json.dumps({"mcar_tf": "0.1"}))  # of before this was noted
    open_and_leave(resume, config.run_dir, other)


def test_of_two_processes_that_start_at_once_one_gets_the_folder(config, monkeypatch):
    real = run_folder.versions

    def meanwhile():
        monkeypatch.setattr(run_folder, "versions", real)
        faster.enter_context(open_run_folder(config, config.run_dir, DATA))
        return real()

    monkeypatch.setattr(run_folder, "versions", meanwhile)
    with contextlib.ExitStack() as faster, pytest.raises(FileExistsError, match="being written by another"):
        open_and_leave(config, config.run_dir, DATA)
    assert [path.name for path in config.run_dir.parent.iterdir()] == ["run"]


def test_a_run_whose_deletion_was_cut_off_is_no_run(config, monkeypatch):
    open_and_leave(config, config.run_dir, DATA)

    def cut(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_folder.shutil, "rmtree", cut)
        with pytest.raises(KeyboardInterrupt):
            open_and_leave(dataclasses.replace(config, overwrite=True), config.run_dir, DATA)
    assert not config.run_dir.exists()
    open_and_leave(config, config.run_dir, DATA)


def test_a_second_writer_is_kept_out_until_the_first_is_gone(tmp_path):
    code = "import sys, time; from pathlib import Path; from mcar_tf.runs.folder import locked\n"
    code += "with locked(Path(sys.argv[1])): print('in', flush=True); time.sleep(100)"
    root = Path(__file__).parent.parent.parent
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=root, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"in\n"
        with pytest.raises(FileExistsError, match="being written by another process"), locked(tmp_path):
            pass
        first.kill()  # as nothing would let it tidy up
    with locked(tmp_path):
        pass


def test_a_run_that_is_being_written_is_not_overwritten(config):
    open_and_leave(config, config.run_dir, DATA)
    baseline = config.run_dir / "baseline"
    baseline.mkdir()
    for folder in (config.run_dir, baseline):
        with locked(folder), pytest.raises(FileExistsError, match="being written by another process"):
            open_and_leave(dataclasses.replace(config, overwrite=True), config.run_dir, DATA)
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
