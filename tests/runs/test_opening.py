"""A run folder is opened once, by one process, and goes on as what it was."""

import contextlib
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mcar_tf.config import FitConfig, read_config
from mcar_tf.runs import opening
from mcar_tf.runs.folder import is_run, read_classes
from mcar_tf.runs.opening import LOCK, locked, open_run_folder
from pipelines.files import partial_path
from pipelines.manifest import Manifest, Shard, Split

CLASSES = ("cat", "dog")


def make_split(*checksums: str) -> Split:
    shards = tuple(Shard(f"{i}", 1, 1, checksum) for i, checksum in enumerate(checksums))
    return Split(Path(), len(shards), (), (), (), shards, ())


DATA = Manifest("digits", CLASSES, "", "", {"train": make_split("a", "b"), "validation": make_split("c")})


def open_and_leave(config: FitConfig, folder: Path, data: Manifest = DATA) -> None:
    """Open a folder and begin, as `fit` does."""
    with open_run_folder(config, folder, data) as place:
        place.begin()


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
        ValueError,
        match=r"--tau was 0.5, is 0.25; --epochs was 60, is 9.*Only .*--keep-checkpoints.*: --init-from ",
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


def test_a_second_writer_is_kept_out_until_the_first_is_gone(tmp_path):
    program = Path(__file__).parent.parent / "helpers" / "hold_lock.py"
    with subprocess.Popen([sys.executable, program, tmp_path / LOCK], stdout=subprocess.PIPE) as first:
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


def test_of_two_processes_that_start_at_once_one_gets_the_folder(config, monkeypatch):
    real = opening.check_place

    def meanwhile(config, folder):
        real(config, folder)
        monkeypatch.setattr(opening, "check_place", real)
        faster.enter_context(open_run_folder(config, folder, DATA)).begin()

    monkeypatch.setattr(opening, "check_place", meanwhile)
    with contextlib.ExitStack() as faster, pytest.raises(FileExistsError, match="being written by another"):
        open_and_leave(config, config.run_dir)
    assert is_run(config.run_dir)


def test_a_run_that_does_not_come_to_its_model_leaves_nothing(config):
    def fails() -> None:
        with open_run_folder(config, config.run_dir, DATA):
            raise ConnectionError("no weights")

    with pytest.raises(ConnectionError):
        fails()
    assert not config.run_dir.exists()
    config.run_dir.mkdir()
    with pytest.raises(ConnectionError):
        fails()
    open_and_leave(config, config.run_dir)


def fill(folder: Path) -> dict[str, str]:
    """What a run writes into its folder, once it has begun; its name and content by file."""
    for name in (
        *("metrics.json", "history.csv", "thresholds.json", "checkpoints/last.weights.h5"),
        *("checkpoints/last.weights.h5.sha256", "checkpoints/epoch-0001-step-0000000/state.json"),
        *("tensorboard/events.out.tfevents.1", "evaluations/test,flip/metrics.json"),
    ):
        for place in (folder, folder / "baseline"):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(f"old {name}")
    return files_of(folder)


def files_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_to_overwrite_takes_away_what_a_run_wrote_and_nothing_else(config):
    open_and_leave(config, config.run_dir)
    fill(config.run_dir)
    mine = {
        "thesis.tex": "years",
        "checkpoints/notes.txt": "of",
        "data/raw.csv": "work",
        "predictions/1.png": "x",
    }
    for name, text in mine.items():
        (config.run_dir / name).parent.mkdir(exist_ok=True)
        (config.run_dir / name).write_text(text)
    open_and_leave(dataclasses.replace(config, overwrite=True, tau=0.25), config.run_dir)
    found = files_of(config.run_dir)
    assert {name: found.pop(name) for name in mine} == mine
    assert found.keys() == {"config.yaml", "classes.txt", "environment.json"}
    assert read_config(config.run_dir / "config.yaml").tau == 0.25
    assert not (config.run_dir / "tensorboard").exists()


@pytest.mark.parametrize(
    "files",
    [
        {"config.yaml": "title: My thesis\n", "thesis.tex": "years of work"},
        {"config.yaml": "a: 1\n", "classes.txt": "cat\n", "environment.json": '{"python": "3.11"}'},
        {"config.yaml": "a: 1\n", "classes.txt": "cat\n", "environment.json": "no JSON"},
        {"classes.txt": "my own list\n"},
        {"metrics.json": "{}"},
        {"last.weights.h5": "of somebody"},
    ],
)
@pytest.mark.parametrize("option", [{}, {"overwrite": True}])
def test_a_folder_that_is_no_run_by_all_its_marks_is_left_alone(config, files, option):
    config.run_dir.mkdir(parents=True)
    for name, text in files.items():
        (config.run_dir / name).write_text(text)
    with pytest.raises(FileExistsError, match=r"not a run folder|holds a run already|deletes nothing there"):
        open_and_leave(dataclasses.replace(config, **option), config.run_dir)
    assert files_of(config.run_dir) == files


def test_the_old_run_is_as_it_was_where_the_new_one_fails(config, monkeypatch):
    open_and_leave(config, config.run_dir)
    before = fill(config.run_dir)
    anew = dataclasses.replace(config, overwrite=True)

    def no_weights() -> None:
        with open_run_folder(anew, config.run_dir, DATA):
            raise ConnectionError("ImageNet's weights can't be downloaded")

    with pytest.raises(ConnectionError):
        no_weights()
    assert files_of(config.run_dir) == before

    real = opening.write_text
    for failing in ("environment.json", "classes.txt", "config.yaml"):

        def full_disk(path, text, failing=failing):
            if path.name == failing:
                raise OSError(28, "No space left on device", str(path))
            real(path, text)

        monkeypatch.setattr(opening, "write_text", full_disk)
        with pytest.raises(OSError, match="No space left"):
            open_and_leave(anew, config.run_dir)
        assert files_of(config.run_dir) == before, failing


class Killed(BaseException):
    """Nothing tidies up."""


def test_where_a_beginning_is_killed_the_next_one_begins(config, monkeypatch):
    anew = dataclasses.replace(config, overwrite=True)
    for killed_at in range(0, 30, 4):  # files are moved and written
        open_and_leave(anew, config.run_dir)
        fill(config.run_dir)
        count = 0

        def count_down(real, killed_at=killed_at):
            def call(*arguments):
                nonlocal count
                count += 1
                if count > killed_at:
                    raise Killed
                return real(*arguments)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", count_down(Path.rename))
            patch.setattr(opening, "write_text", count_down(opening.write_text))
            patch.setattr(opening, "remove", count_down(opening.remove))
            with contextlib.suppress(Killed):
                open_and_leave(anew, config.run_dir)
        assert count, "nothing was killed"
        open_and_leave(anew, config.run_dir)
        assert files_of(config.run_dir).keys() == {"config.yaml", "classes.txt", "environment.json"}


@pytest.mark.parametrize("how", ["moved", "deleted", "replaced", "lock deleted"])
def test_a_folder_that_is_no_longer_the_one_that_was_opened_is_noticed(config, how):
    with open_run_folder(config, config.run_dir, DATA) as place:
        place.begin()
        place.check()
        if how == "lock deleted":
            (config.run_dir / ".lock").unlink()
        elif how == "deleted":
            shutil.rmtree(config.run_dir)
        else:
            config.run_dir.rename(config.run_dir.with_name("elsewhere"))
        if how == "replaced":
            open_and_leave(config, config.run_dir)
        elif how == "lock deleted":  # another process then takes the folder for free
            with open_run_folder(dataclasses.replace(config, resume=True), config.run_dir, DATA):
                pass
        with pytest.raises(FileNotFoundError, match="is no longer the folder that this run writes"):
            place.check()


def test_a_link_and_the_folder_one_is_in_do_for_run_folders(config, tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    open_and_leave(config, tmp_path / "link")
    assert is_run(tmp_path / "disk")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    open_and_leave(config, Path())
    open_and_leave(dataclasses.replace(config, overwrite=True), Path())
    assert is_run(tmp_path / "here")
    assert Path.cwd() == tmp_path / "here"


def test_what_killed_processes_left_in_a_run_goes_when_it_is_resumed(config):
    open_and_leave(config, config.run_dir)
    left = partial_path(config.run_dir / "metrics.json")
    left.write_text("half")
    open_and_leave(dataclasses.replace(config, resume=True), config.run_dir)
    assert not left.exists()


def test_another_process_that_writes_the_run_is_said_before_anything_is_touched(config):
    open_and_leave(config, config.run_dir)
    left = partial_path(config.run_dir / "metrics.json")
    left.write_text("being written")
    with locked(config.run_dir), pytest.raises(FileExistsError, match="being written by another process"):
        open_and_leave(dataclasses.replace(config, resume=True), config.run_dir)
    assert left.exists()
