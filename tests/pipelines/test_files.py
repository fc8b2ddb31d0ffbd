"""Files that are whole or absent, folders that take another's place, locks."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.files import (
    file_sha256,
    folder_written_whole,
    locked,
    partial_path,
    remove_partial,
    write_bytes,
    write_text,
    written_whole,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def interrupt(writing, inside: str = "") -> None:
    """Write half of something, then be interrupted."""
    with writing as partial:
        (partial / inside).write_text("half")
        raise KeyboardInterrupt


def test_a_file_appears_when_it_is_whole(tmp_path):
    with written_whole(tmp_path / "a.txt") as partial:
        partial.write_text("new")
        assert not (tmp_path / "a.txt").exists()
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "new"


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        interrupt(written_whole(tmp_path / "a.txt"))
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_an_interruption_can_leave_what_was_done(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        interrupt(written_whole(tmp_path / "a.txt", keep_partial=True))
    (left,) = tmp_path.iterdir()
    assert left.name.startswith("partial-")
    assert left.name.endswith("-a.txt")
    assert left.read_text() == "half"


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    with written_whole(tmp_path / "a.txt") as first, written_whole(tmp_path / "a.txt") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a.txt").read_text() == "first"  # whose block ends last


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_in_a_half_written_files_place_is_not_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr("pipelines.files.partial_path", lambda path: path.with_name("partial-known"))
    (tmp_path / "partial-known").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_text(tmp_path / "a.txt", "new")
    assert victim.read_text() == "precious"


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    old = tmp_path / "made"
    old.mkdir()
    (old / "old.txt").touch()
    with folder_written_whole(old) as new:
        (new / "new.txt").touch()
        assert names(old) == ["old.txt"]
    assert names(tmp_path) == ["made"]
    assert names(old) == ["new.txt"]


def test_a_folder_that_fails_leaves_the_old_one(tmp_path):
    old = tmp_path / "made"
    old.mkdir()
    (old / "old.txt").touch()
    with pytest.raises(KeyboardInterrupt):
        interrupt(folder_written_whole(old), "new.txt")
    assert names(tmp_path) == ["made"]
    assert names(old) == ["old.txt"]


def test_leftovers_of_killed_processes_go_by_name(tmp_path):
    for name in ("a.txt", "b.txt"):
        partial_path(tmp_path / name).touch()
    (tmp_path / "partial-of-mine").touch()  # somebody else's word
    partial_path(tmp_path / "a.txt").mkdir()
    remove_partial(tmp_path, "a.txt")
    assert [name.split("-")[-1] for name in names(tmp_path)] == ["b.txt", "mine"]


def test_what_another_name_ends_with_stays(tmp_path):
    (tmp_path / "partial-0123456789ab-my-run").mkdir()
    (tmp_path / "partial-0123456789ab-run").mkdir()
    remove_partial(tmp_path, "run")
    assert names(tmp_path) == ["partial-0123456789ab-my-run"]


def test_a_lock_keeps_another_process_out_and_goes_with_its_holder(tmp_path):
    program = Path(__file__).parent.parent / "helpers" / "hold_lock.py"
    with subprocess.Popen([sys.executable, program, tmp_path / "lock"], stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"in\n"
        with pytest.raises(FileExistsError, match="held"), locked(tmp_path / "lock", "held"):
            pass
        first.kill()
    with locked(tmp_path / "lock", "held"):
        pass


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_in_a_locks_place_is_refused(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "lock").symlink_to(victim)
    with pytest.raises(OSError, match="lock"), locked(tmp_path / "lock", "held"):
        pass
    assert victim.read_text() == "precious"


def test_a_file_without_room_is_named_and_the_one_before_stays(tmp_path, monkeypatch):
    """The system's error of a write has no name, whatever it is that is full: the disk, or the user's quota."""

    def full(path, content):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    write_bytes(tmp_path / "a", b"before")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="quota") as error:
        write_bytes(tmp_path / "a", b"after")
    assert error.value.filename == str(tmp_path / "a")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_a_checksum_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_of_a_similar_name_is_left_alone(tmp_path):
    """A run called `partial-digits` may lie beside one called `digits`."""
    (tmp_path / "partial-digits").mkdir()
    (tmp_path / "partial-digits" / "parity.json").write_text("{}")
    with folder_written_whole(tmp_path / "digits") as partial:
        (partial / "parity.json").write_text("{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits", "partial-digits"]
    assert (tmp_path / "partial-digits" / "parity.json").is_file()


def test_two_writers_of_one_folder_have_a_folder_each(tmp_path):
    with folder_written_whole(tmp_path / "out") as one, folder_written_whole(tmp_path / "out") as other:
        (one / "file").write_text("one")
        (other / "file").write_text("other")
    assert (tmp_path / "out" / "file").read_text() == "one"  # it ended last
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_a_signal_at_the_worst_moment_leaves_the_folder_before_it(tmp_path, monkeypatch, stop):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("before")
    rename = Path.rename

    def stopped(self, target):
        if target.name == "out" and not (self / "file").exists():  # the new folder
            assert not (tmp_path / "out").exists()
            raise stop
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stopped)
    with pytest.raises(stop), folder_written_whole(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / "file").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_written_into_the_working_folder_and_through_a_link(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "here")
    mode = (tmp_path / "here").stat().st_mode
    monkeypatch.chdir(tmp_path / "here")
    for folder in (Path(), tmp_path / "link"):
        with folder_written_whole(folder) as partial:
            (partial / "file").write_text(str(folder))
        assert (tmp_path / "here" / "file").read_text() == str(folder)
        assert (tmp_path / "here").stat().st_mode == mode
        monkeypatch.chdir(tmp_path / "here")
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "link"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_that_knows_no_locks_has_files_for_them(tmp_path, monkeypatch, number):
    fcntl = pytest.importorskip("fcntl")

    def unknown(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", unknown)
    lock = tmp_path / "lock"
    lock.touch()
    os.utime(lock, (0, 0))  # copied from a disk that knows them
    with locked(lock, "held"):
        with (
            pytest.raises(FileExistsError, match=f"held Where its machine is gone, delete {lock}"),
            locked(lock, "held"),
        ):
            pass
        assert names(tmp_path) == ["lock"]
    # Its holder was killed: no process has this number.
    pid = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    with locked(lock, "held"):
        text = lock.read_text()
    lock.write_text(text.replace(str(os.getpid()), pid.stdout.decode().strip(), 1))
    with locked(lock, "held"):
        pass
