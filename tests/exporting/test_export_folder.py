"""The export folder: written whole, checked, and cleared of what a killed export left."""

import hashlib
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mcar_tf.exporting.folder import check_checksums, check_place, new_export_folder, read_parity

HELPERS = Path(__file__).parent.parent / "helpers"


def write_export(folder, text="new", overwrite=False):
    with new_export_folder(folder, overwrite) as partial:
        (partial / "parity.json").write_text("{}")
        (partial / "saved_model" / "1").mkdir(parents=True)
        (partial / "saved_model" / "1" / "saved_model.pb").write_text(text)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def killed_export(folder, *words):
    """Start writing an export in another process and kill it there."""
    command = [sys.executable, str(HELPERS / "half_an_export.py"), str(folder), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"half\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL


def test_checksums_are_those_that_sha256sum_reads(tmp_path):
    write_export(tmp_path / "out")
    assert (tmp_path / "out" / "SHA256SUMS").read_text().splitlines() == [
        f"{hashlib.sha256(b'{}').hexdigest()}  parity.json",
        f"{hashlib.sha256(b'new').hexdigest()}  saved_model/1/saved_model.pb",
    ]
    check_checksums(tmp_path / "out")
    if program := shutil.which("sha256sum"):
        result = subprocess.run([program, "-c", "SHA256SUMS"], cwd=tmp_path / "out", check=False)
        assert result.returncode == 0


def test_a_flipped_bit_and_a_missing_file_are_named(tmp_path):
    write_export(tmp_path / "out")
    graph = tmp_path / "out" / "saved_model" / "1" / "saved_model.pb"
    graph.write_bytes(bytes([graph.read_bytes()[0] ^ 1]) + graph.read_bytes()[1:])
    with pytest.raises(ValueError, match=r"saved_model/1/saved_model\.pb differs from what was exported"):
        check_checksums(tmp_path / "out")
    graph.unlink()
    with pytest.raises(ValueError, match=r"saved_model\.pb is missing from what was exported"):
        check_checksums(tmp_path / "out")


def test_an_export_without_checksums_passes(tmp_path):
    check_checksums(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_what_a_killed_export_left_goes_with_the_next(tmp_path):
    killed_export(tmp_path / "out")
    assert any(name.startswith("partial-") for name in names(tmp_path))
    (tmp_path / "partial-0123456789ab-my-out").mkdir()  # of another export
    write_export(tmp_path / "out")
    assert names(tmp_path) == ["out", "partial-0123456789ab-my-out"]


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_an_export_killed_amid_its_replacement_is_not_lost(tmp_path):
    """The old folder has been put aside and the new one, whole, is not there yet."""
    write_export(tmp_path / "out", "old")
    killed_export(tmp_path / "out", "amid-the-replacement")
    assert "out" not in names(tmp_path)
    with pytest.raises(FileExistsError, match="--overwrite replaces it"):
        write_export(tmp_path / "out")
    assert names(tmp_path) == ["out"]
    check_checksums(tmp_path / "out")


def test_two_exports_to_one_place_do_not_meet(tmp_path):
    with new_export_folder(tmp_path / "out", overwrite=False) as partial:
        with pytest.raises(FileExistsError, match="is being written by another process"):
            write_export(tmp_path / "out")
        write_export(tmp_path / "other")
        (partial / "parity.json").write_text("{}")
    assert names(tmp_path) == ["other", "out"]


def test_a_folder_that_is_no_export_is_no_place_and_no_source(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="is no export folder"):
        check_place(tmp_path, overwrite=True)
    with pytest.raises(FileNotFoundError, match="is not an export folder"):
        read_parity(tmp_path)


def test_only_the_parts_that_are_used_need_be_there(tmp_path):
    write_export(tmp_path / "out")
    (tmp_path / "out" / "saved_model" / "1" / "saved_model.pb").unlink()
    check_checksums(tmp_path / "out", ("parity.json",))
    with pytest.raises(ValueError, match=r"saved_model\.pb is missing"):
        check_checksums(tmp_path / "out", ("saved_model/", "parity.json"))
