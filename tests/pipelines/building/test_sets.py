import dataclasses
import errno
import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from miniature import real_data
from scenes import build_command, encode, gradient, noise, raw_set, small_shards

from pipelines.building import sets, shards
from pipelines.building.sets import build_set
from pipelines.building.spool import lay_out
from pipelines.manifest import load_manifest
from pipelines.readers.registry import read_raw_set
from pipelines.records import parse_sample
from pipelines.samples import RawSet, Sample, Skip
from pipelines.verify import verify_set


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    small_shards(monkeypatch)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A prepared set of two splits, undisturbed; (its raw set, its data directory)."""
    folder = tmp_path_factory.mktemp("built")
    raw = raw_set(folder / "source", count=20, splits=("train", "test"))
    with pytest.MonkeyPatch.context() as patch:
        small_shards(patch)
        build_set(raw, folder / "data")
    return raw, folder / "data"


def content(folder: Path) -> dict[str, str]:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def read_all(manifest, split="train"):
    files = [str(file) for file in manifest.splits[split].files]
    return [parse_sample(record) for record in tf.data.TFRecordDataset(files).as_numpy_iterator()]


def test_records_hold_the_very_bytes_and_labels_of_the_source(built):
    raw, data = built
    manifest = load_manifest(data, "tiny")
    for split in ("train", "test"):
        originals = {sample.id: sample for sample in raw.splits[split]()}
        found = read_all(manifest, split)
        assert len(found) == len(originals) == manifest.splits[split].examples == 20
        for sample, picture in found:
            original = originals[sample.id]
            assert picture.encoded == original.image.read_bytes()
            assert dataclasses.replace(sample, image=original.image) == original


def test_nothing_but_shards_and_manifest_is_left(built):
    _, data = built
    manifest = load_manifest(data, "tiny")
    named = {file.name for split in manifest.splits.values() for file in split.files}
    assert {file.name for file in (data / "tiny").iterdir()} == named | {"dataset.json"}
    assert len(named) > 4


def test_the_order_of_the_source_and_the_number_of_processes_change_no_byte(built, tmp_path):
    raw, data = built
    backwards = dataclasses.replace(
        raw, splits={s: lambda f=f: reversed(list(f())) for s, f in reversed(raw.splits.items())}
    )
    build_set(backwards, tmp_path, processes=1)
    assert set(content(tmp_path)) == set(content(data))
    for name, digest in content(data).items():
        if not name.endswith(".json"):  # which lists the splits in the source's order
            assert content(tmp_path)[name] == digest


def test_a_complete_set_is_refused_unless_it_may_be_overwritten(built, tmp_path):
    raw, data = built
    build_set(raw, tmp_path)
    with pytest.raises(FileExistsError, match="--overwrite"):
        build_set(raw, tmp_path)
    build_set(raw, tmp_path, overwrite=True)
    assert content(tmp_path) == content(data)


def test_shards_of_a_larger_build_before_do_not_stay(built, tmp_path, monkeypatch):
    raw, _ = built
    build_set(raw, tmp_path)
    small_shards(monkeypatch, 10**6)
    build_set(raw, tmp_path, overwrite=True)
    assert sorted(content(tmp_path)) == [
        "tiny/dataset.json",
        "tiny/test-00000-of-00001.tfrecord",
        "tiny/train-00000-of-00001.tfrecord",
    ]


class UnpluggedError(Exception):
    pass


def interrupt(monkeypatch, after: int):
    """Let the build end with an exception after so many pictures."""
    pictures = Counter()

    def check(encoded, *args):
        pictures["seen"] += 1
        if pictures["seen"] > after:
            raise UnpluggedError
        return real(encoded, *args)

    real = shards.check_picture
    monkeypatch.setattr(shards, "check_picture", check)
    return pictures


def test_a_build_that_was_stopped_goes_on_and_ends_the_same(built, tmp_path, monkeypatch):
    raw, data = built
    with monkeypatch.context() as patch:
        interrupt(patch, after=23)
        with pytest.raises(UnpluggedError):
            build_set(raw, tmp_path)
    with pytest.raises(FileNotFoundError, match="unfinished"):
        load_manifest(tmp_path, "tiny")
    assert not list(tmp_path.rglob("partial-*"))

    pictures = interrupt(monkeypatch, after=10**6)
    build_set(raw, tmp_path)
    assert content(tmp_path) == content(data)
    # What was in finished shards is not decoded again: at most the 23rd picture's shard is.
    assert pictures["seen"] < 40 - 23 + max(
        shard.examples for split in load_manifest(data, "tiny").splits.values() for shard in split.shards
    )


def test_a_finished_shard_is_made_anew_if_it_was_damaged_or_its_source_changed(built, tmp_path, monkeypatch):
    raw, data = built
    with monkeypatch.context() as patch:
        interrupt(patch, after=39)
        with pytest.raises(UnpluggedError):
            build_set(raw, tmp_path)
    shards = sorted((tmp_path / "tiny").glob("*.tfrecord"))
    damaged = bytearray(shards[0].read_bytes())
    damaged[100] ^= 1
    shards[0].write_bytes(damaged)
    changed = parse_sample(next(iter(tf.data.TFRecordDataset(str(shards[1])))).numpy())[0].id
    file = next(s.image for samples in raw.splits.values() for s in samples() if s.id == changed)
    os.utime(file, ns=(1, 1))  # same bytes, another time of change

    pictures = interrupt(monkeypatch, after=10**6)
    build_set(raw, tmp_path)
    assert content(tmp_path) == content(data)
    sizes = {
        s.name: s.examples for split in load_manifest(data, "tiny").splits.values() for s in split.shards
    }
    last = next(size for name, size in reversed(sizes.items()))
    assert pictures["seen"] >= sizes[shards[0].name] + sizes[shards[1].name]
    assert pictures["seen"] <= sizes[shards[0].name] + sizes[shards[1].name] + last


def with_bad_pictures(folder: Path) -> RawSet:
    raw = raw_set(folder, count=6)
    (folder / "train002.jpg").write_bytes(noise(2)[:-20])
    (folder / "train003.jpg").write_bytes(b"")
    (folder / "train004.jpg").write_bytes(encode(gradient(), "PPM"))
    return raw


def test_a_bad_picture_is_left_out_and_named_with_the_reason(tmp_path):
    manifest = build_set(with_bad_pictures(tmp_path / "source"), tmp_path / "data")
    assert manifest == load_manifest(tmp_path / "data", "tiny")
    split = manifest.splits["train"]
    assert split.examples == 3
    assert split.present == (1, 1, 2, 0)  # of pictures 0, 1 and 5
    why = {skip.id: skip.why for skip in split.skipped}
    assert set(why) == {"train002", "train003", "train004"}
    assert why["train003"] == "is an empty file"
    assert why["train004"] == "is not a picture in a known format"
    assert {sample.id for sample, _ in read_all(manifest)} == {"train000", "train001", "train005"}


def test_what_a_file_is_called_does_not_matter(tmp_path):
    raw = raw_set(tmp_path / "source", count=2)
    (tmp_path / "source" / "train001.jpg").write_bytes(encode(gradient(), "PNG"))
    split = build_set(raw, tmp_path / "data").splits["train"]
    assert (split.examples, split.skipped) == (2, ())


def test_a_bad_picture_stops_the_build_if_it_is_to(tmp_path):
    with pytest.raises(ValueError, match=r"train00[234]\.jpg .*--on-bad-image skip"):
        build_set(with_bad_pictures(tmp_path / "source"), tmp_path / "data", on_bad_image="stop")


def test_what_the_reader_left_out_is_named_too(tmp_path):
    raw = raw_set(tmp_path / "source", count=3)
    raw.skipped["train"] = [Skip("train999", "shows nothing")]
    assert build_set(raw, tmp_path / "data").splits["train"].skipped == (Skip("train999", "shows nothing"),)


def samples_of(*samples: Sample) -> RawSet:
    return RawSet("odd", ("a", "b"), {"train": lambda: iter(samples)}, source="made by a test")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (samples_of(), "split train of odd holds no usable picture"),
        (samples_of(Sample("x", b"", ())), "holds no usable picture.*x is an empty file"),
        (samples_of(Sample("ü", noise(0), ())), "'ü' in train has characters"),
        (samples_of(Sample("x", noise(0), (2,))), "x in train has class 2; there are 2"),
        (
            samples_of(Sample("x", noise(0), ()), Sample("x", noise(1), ())),
            "Two pictures of train have the id 'x'",
        ),
    ],
    ids=["empty", "only bad", "id", "class", "twice"],
)
def test_what_makes_no_set_is_refused_and_leaves_none(raw, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        build_set(raw, tmp_path)
    assert not (tmp_path / "odd" / "dataset.json").exists()


def test_a_source_file_that_vanishes_is_named_and_nothing_is_lost(built, tmp_path, monkeypatch):
    raw = raw_set(tmp_path / "source", count=20, splits=("train", "test"))
    lost = tmp_path / "source" / "test007.jpg"
    with monkeypatch.context() as patch:
        patch.setattr(sets, "_refuse_if_short_of_space", lambda *args: lost.unlink())  # behind the listing
        with pytest.raises(FileNotFoundError, match=r"test007\.jpg"):
            build_set(raw, tmp_path / "data")
    kept = content(tmp_path / "data")
    assert any(name.endswith(".tfrecord") for name in kept)
    lost.write_bytes(noise(7))
    build_set(raw, tmp_path / "data")
    assert content(tmp_path / "data") == content(built[1])


def test_too_little_space_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(ValueError, match=r"need .* MB, and .* has 0 MB free"):
        build_set(raw_set(tmp_path / "source"), tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.tfrecord"))


def test_two_builds_of_one_set_at_a_time_are_refused(tmp_path):
    raw = raw_set(tmp_path / "source", count=3)
    building = sets.only_build_in(tmp_path / "data" / "tiny", overwrite=False)
    with building, pytest.raises(FileExistsError, match="Another process is building"):
        build_set(raw, tmp_path / "data")


def test_each_of_50_flipped_bytes_is_found_and_named(built, tmp_path):
    data = Path(shutil.copytree(built[1], tmp_path / "data"))
    assert "40 pictures" in verify_set(data, "tiny")
    files = [file for split in load_manifest(data, "tiny").splits.values() for file in split.files]
    rng = np.random.default_rng(0)
    for _ in range(50):
        file = files[rng.integers(len(files))]
        whole = file.read_bytes()
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        named = rf"1 of {len(files)} shards .*{file.name} is damaged \(record \d+ cannot be read"
        with pytest.raises(ValueError, match=named):
            verify_set(data, "tiny")
        file.write_bytes(whole)
    assert "40 pictures" in verify_set(data, "tiny")


def test_verifying_names_every_shard_that_is_gone_or_cut_off(built, tmp_path):
    data = Path(shutil.copytree(built[1], tmp_path / "data"))
    first, second, *_ = load_manifest(data, "tiny").splits["train"].files
    first.unlink()
    second.write_bytes(second.read_bytes()[:-3])
    with pytest.raises(
        ValueError, match=rf"2 of .*{first.name} is gone; .*{second.name} has \d+ bytes instead of"
    ):
        verify_set(data, "tiny")


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "kills"), [(1, 15), (2, 5), (2, 2)])
def test_a_build_killed_at_random_moments_ends_as_the_undisturbed_one(processes, kills, tmp_path):
    """The real thing: processes, SIGKILL, the same command again."""
    raw = raw_set(tmp_path / "source", count=300)
    manifest = build_set(raw, tmp_path / "undisturbed", processes=1)
    num_shards = len(manifest.splits["train"].shards)
    assert num_shards > 5 * kills
    command = build_command(tmp_path, processes=processes, count=300, seconds_a_picture=0.01)
    manifest_file = tmp_path / "data" / raw.name / "dataset.json"
    rng = np.random.default_rng(processes)
    killed = 0
    # Each process lives until it has brought the build a little further, and then for a moment more: so the kills
    # fall on everything from the listing to the last shards, however fast the machine is.
    for goal in np.linspace(0, 0.9 * num_shards, kills):
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        while process.poll() is None and len([*manifest_file.parent.glob("*.tfrecord")]) < goal:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02 if goal else 3))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
        if manifest_file.exists():
            break
    assert killed > kills / 2
    if manifest_file.exists():  # killed in the last moment, when all was written; the refusal tidies up
        with pytest.raises(FileExistsError, match="complete"):
            build_set(raw, tmp_path / "data")
    else:
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert content(tmp_path / "data") == content(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("name", "folder", "split"), [("coco", "coco", "test"), ("voc2012", "voc", "devkit_val")]
)
def test_real_pictures_go_through_whole_and_every_class_is_counted(
    name, folder, split, tmp_path, monkeypatch
):
    small_shards(monkeypatch, 4_000_000)
    raw = read_raw_set(name, real_data(folder))
    raw.splits = {split: raw.splits[split]}
    originals = {sample.id: sample for sample in raw.splits[split]()}
    manifest = build_set(raw, tmp_path, processes=1)
    counts = Counter(label for sample in originals.values() for label in sample.present)
    assert manifest.splits[split].present == tuple(counts[label] for label in range(len(raw.classes)))
    assert manifest.splits[split].skipped == ()
    found = read_all(manifest, split)
    assert len(found) == len(originals)
    for sample, picture in found:
        assert picture.encoded == originals[sample.id].image.read_bytes()


def changed(built, tmp_path) -> RawSet:
    """The set of the fixture, with other pictures of the same labels in every third place."""
    raw = raw_set(tmp_path / "changed", count=20, splits=("train", "test"))
    for place in range(0, 20, 3):
        (tmp_path / "changed" / f"train{place:03}.jpg").write_bytes(noise(100 + place))
    return raw


def test_a_good_set_stays_whole_until_the_one_that_replaces_it_is_complete(built, tmp_path, monkeypatch):
    data = Path(shutil.copytree(built[1], tmp_path / "data"))
    good = load_manifest(data, "tiny")
    raw = changed(built, tmp_path)
    for after in (0, 7, 15, 5):
        with monkeypatch.context() as patch:
            interrupt(patch, after)
            with pytest.raises(UnpluggedError):
                build_set(raw, data, overwrite=True)
        assert load_manifest(data, "tiny") == good
        assert "40 pictures" in verify_set(data, "tiny")
    with monkeypatch.context() as patch:  # all shards are finished, and then the disk is full
        patch.setattr(sets, "write_manifest", lambda *args: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            build_set(raw, data, overwrite=True)
    assert "40 pictures" in verify_set(data, "tiny")

    build_set(raw, data, overwrite=True)
    build_set(raw, tmp_path / "alone")
    assert "40 pictures" in verify_set(data, "tiny")
    shards_of = {}
    for folder in (data, tmp_path / "alone"):
        manifest = load_manifest(folder, "tiny")
        shards_of[folder] = [shard.sha256 for split in manifest.splits.values() for shard in split.shards]
        named = {file.name for split in manifest.splits.values() for file in split.files}
        assert {file.name for file in (folder / "tiny").iterdir()} == named | {"dataset.json"}
    assert shards_of[data] == shards_of[tmp_path / "alone"]


def test_a_bad_picture_that_ends_a_new_build_costs_the_old_set_nothing(built, tmp_path):
    data = Path(shutil.copytree(built[1], tmp_path / "data"))
    raw = changed(built, tmp_path)
    (tmp_path / "changed" / "test005.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"test005\.jpg is an empty file"):
        build_set(raw, data, overwrite=True, on_bad_image="stop")
    assert "40 pictures" in verify_set(data, "tiny")


def test_a_set_can_be_replaced_again_and_again(built, tmp_path):
    data = Path(shutil.copytree(built[1], tmp_path / "data"))
    for raw in (changed(built, tmp_path), built[0], changed(built, tmp_path), built[0]):
        manifest = build_set(raw, data, overwrite=True)
        assert "40 pictures" in verify_set(data, "tiny")
        found = {sample.id: picture.encoded for sample, picture in read_all(manifest)}
        assert found == {sample.id: sample.image.read_bytes() for sample in raw.splits["train"]()}


def test_building_a_damaged_set_anew_mends_it_under_the_same_names(built, tmp_path):
    data = Path(shutil.copytree(built[1], tmp_path / "data"))
    damaged = load_manifest(data, "tiny").splits["train"].files[1]
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
    build_set(built[0], data, overwrite=True)
    assert content(data) == content(built[1])


def test_what_a_build_left_that_was_killed_behind_its_manifest_is_tidied_up(built, tmp_path, monkeypatch):
    data = Path(shutil.copytree(built[1], tmp_path / "data"))
    raw = changed(built, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(sets, "_remove_unused_shards", lambda folder: (_ for _ in ()).throw(UnpluggedError()))
        with pytest.raises(UnpluggedError):
            build_set(raw, data, overwrite=True)
    assert "40 pictures" in verify_set(data, "tiny")
    with pytest.raises(FileExistsError, match="is there and complete"):
        build_set(raw, data)
    named = {file.name for split in load_manifest(data, "tiny").splits.values() for file in split.files}
    assert {file.name for file in (data / "tiny").iterdir()} == named | {"dataset.json"}


def test_refusing_to_build_a_complete_set_leaves_an_unfinished_new_one_to_go_on_with(
    built, tmp_path, monkeypatch
):
    data = Path(shutil.copytree(built[1], tmp_path / "data"))
    raw = changed(built, tmp_path)
    with monkeypatch.context() as patch:
        interrupt(patch, after=39)
        with pytest.raises(UnpluggedError):
            build_set(raw, data, overwrite=True)
    with pytest.raises(FileExistsError, match="is there and complete"):
        build_set(raw, data)
    pictures = interrupt(monkeypatch, after=10**6)
    build_set(raw, data, overwrite=True)
    assert pictures["seen"] < 10


def failing_to_read(monkeypatch, name: str, number: int):
    """Let reading a file of that name fail as the system does: without its name."""
    real = Path.read_bytes

    def read_bytes(path):
        if path.name == name:
            raise OSError(number, os.strerror(number))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)


def test_a_picture_on_a_bad_sector_is_left_out_and_named(tmp_path, monkeypatch):
    raw = raw_set(tmp_path / "source", count=4)
    failing_to_read(monkeypatch, "train002.jpg", errno.EIO)
    split = build_set(raw, tmp_path / "data", processes=1).splits["train"]
    assert split.examples == 3
    assert split.skipped == (Skip("train002", "cannot be read: Input/output error"),)


def test_a_picture_on_a_bad_sector_stops_the_build_by_name_if_it_is_to(tmp_path, monkeypatch):
    raw = raw_set(tmp_path / "source", count=4)
    failing_to_read(monkeypatch, "train002.jpg", errno.EIO)
    with pytest.raises(ValueError, match=r"train002\.jpg cannot be read: Input/output error"):
        build_set(raw, tmp_path / "data", processes=1, on_bad_image="stop")


def test_a_folder_with_the_name_of_a_picture_is_left_out(tmp_path):
    raw = raw_set(tmp_path / "source", count=3)
    (tmp_path / "source" / "train001.jpg").unlink()
    (tmp_path / "source" / "train001.jpg").mkdir()
    split = build_set(raw, tmp_path / "data", processes=1).splits["train"]
    assert split.skipped == (Skip("train001", "is no file but a folder, a pipe or a device"),)


@pytest.mark.parametrize(
    "name",
    ["a\nb", "a\u2028b", "a\u0085b", "a\x0bb", "a\x1b[31mb", "a\0b", "a\u202eb", " a", "", "x" * 201],
)
def test_a_class_name_that_a_list_or_a_terminal_would_garble_is_refused(tmp_path, name):
    raw = dataclasses.replace(raw_set(tmp_path / "source", count=3), classes=("a", name, "c", "d"))
    with pytest.raises(ValueError, match="A class name must") as caught:
        build_set(raw, tmp_path / "data")
    assert str(caught.value).isprintable()
    assert not (tmp_path / "data").exists()


def test_a_class_name_of_200_letters_of_any_script_is_fine(tmp_path):
    raw = raw_set(tmp_path / "source", count=3)
    names = ("猫" * 200, "crème brûlée", "👩‍🚀", "نص")
    build_set(dataclasses.replace(raw, classes=names), tmp_path / "data")
    assert load_manifest(tmp_path / "data", "tiny").classes == names


def test_a_work_folder_that_another_user_made_is_refused(built, tmp_path):
    work = tmp_path / "tiny" / shards.WORK_FOLDER
    work.mkdir(parents=True)
    try:
        os.chown(work, 12345, -1)
    except PermissionError:
        pytest.skip("only root gives folders away")
    with pytest.raises(FileExistsError, match=rf"{work}, of an unfinished build, belongs to another user"):
        build_set(built[0], tmp_path)


@pytest.mark.parametrize("name", ["", "lock", "train.samples", "train-00000-of-00001.tfrecord.json"])
def test_a_link_in_the_work_folder_is_refused_and_not_followed(built, tmp_path, name):
    victim = tmp_path / "victim"
    work = tmp_path / "tiny" / shards.WORK_FOLDER
    if name:
        work.mkdir(parents=True)
        victim.write_text("precious")
    else:
        work.parent.mkdir()
        victim.mkdir()
    (work / name).symlink_to(victim)
    with pytest.raises(FileExistsError, match="of an unfinished build, is a link"):
        build_set(built[0], tmp_path)
    assert victim.is_dir() or victim.read_text() == "precious"


def test_a_link_laid_later_is_not_followed_either(built, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    work = tmp_path / "work"
    work.mkdir()

    def lay_a_link():
        (work / "test.samples").symlink_to(victim)
        return iter(built[0].splits["train"]())

    raw = dataclasses.replace(built[0], splits={"train": lay_a_link, "test": built[0].splits["test"]})
    with pytest.raises(FileExistsError):
        lay_out(raw, work)
    assert victim.read_text() == "precious"


def test_a_note_that_is_damaged_or_made_up_costs_only_time(built, tmp_path, monkeypatch):
    raw, data = built
    with monkeypatch.context() as patch:
        interrupt(patch, after=30)
        with pytest.raises(UnpluggedError):
            build_set(raw, tmp_path)
    notes = sorted((tmp_path / "tiny" / shards.WORK_FOLDER).glob("*.json"))
    assert len(notes) > 4
    whole = notes[0].read_text()
    for note, text in zip(
        notes,
        ["", "[" * 10**5, '{"digest": 1}', whole[:-20], whole.replace('"examples"', '"many"')],
        strict=False,
    ):
        note.write_text(text)
    build_set(raw, tmp_path)
    assert content(tmp_path) == content(data)
