import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import raw_set, small_shards

from pipelines.building.sets import build_set
from pipelines.manifest import MANIFEST, Part, hold_out, load_manifest, write_manifest


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    with pytest.MonkeyPatch.context() as patch:
        small_shards(patch)
        build_set(raw_set(folder / "source", count=40), folder / "data")
    return folder / "data"


def test_a_manifest_gives_back_what_was_built(prepared):
    manifest = load_manifest(prepared, "tiny")
    split = manifest.splits["train"]
    assert manifest.classes == ("a", "b", "c", "d")
    assert manifest.source == "made by a test"
    assert split.examples == 40 == sum(shard.examples for shard in split.shards)
    # i % 3 == 0: 14, 1: 13, 2: 13 of 40; class 2 also where i is odd: i = 1, 3, 7, 9, ... (14 of them), difficult.
    assert split.present == (14, 13, 27, 0)
    assert split.difficult == (0, 0, 14, 0)
    assert split.unknown == (0, 0, 0, 40)
    assert all(file.is_file() for file in split.files)
    assert len(split.files) > 3


def copy_of(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "copy")


def test_a_set_that_was_never_built_says_how_to_build_it(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"nowhere is not there.*pipelines\.build --dataset table --name nowhere"
    ):
        load_manifest(tmp_path, "nowhere")


def test_an_unfinished_build_is_no_set(prepared, tmp_path):
    data = copy_of(prepared, tmp_path)
    (data / "tiny" / "dataset.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"unfinished build: it has no file dataset\.json"):
        load_manifest(data, "tiny")


def test_a_lost_shard_is_named(prepared, tmp_path):
    data = copy_of(prepared, tmp_path)
    lost = load_manifest(data, "tiny").splits["train"].files[1]
    lost.unlink()
    with pytest.raises(FileNotFoundError, match=f"{lost.name} is gone"):
        load_manifest(data, "tiny")


def test_a_shard_that_was_cut_off_is_named(prepared, tmp_path):
    data = copy_of(prepared, tmp_path)
    cut = load_manifest(data, "tiny").splits["train"].files[1]
    cut.write_bytes(cut.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{cut.name} is damaged"):
        load_manifest(data, "tiny")


def test_another_schema_version_is_refused(prepared, tmp_path):
    data = copy_of(prepared, tmp_path)
    path = data / "tiny" / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    with pytest.raises(ValueError, match="schema version 99; this program reads version 1"):
        load_manifest(data, "tiny")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 1}'])
def test_a_damaged_manifest_is_refused(prepared, tmp_path, text):
    data = copy_of(prepared, tmp_path)
    (data / "tiny" / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match=r"dataset\.json"):
        load_manifest(data, "tiny")


def test_a_changed_manifest_is_refused(prepared, tmp_path):
    data = copy_of(prepared, tmp_path)
    path = data / "tiny" / "dataset.json"
    path.write_text(path.read_text().replace('"a"', '"x"', 1))
    with pytest.raises(ValueError, match="checksum"):
        load_manifest(data, "tiny")


def test_holding_out_divides_a_split_without_remainder(prepared):
    split = load_manifest(prepared, "tiny").splits["train"]
    rest, held = hold_out(split, 0.25, seed=3)
    assert (rest.examples, held.examples) == (30, 10)
    assert all(isinstance(part, Part) for part in rest.files + held.files)
    assert sum(part.limit for part in rest.files) == 30
    assert sum(part.limit for part in held.files) == 10
    assert hold_out(split, 0.25, seed=3) == (rest, held)
    assert hold_out(split, 0.25, seed=4) != (rest, held)


@pytest.mark.parametrize("fraction", [0.0, 1.0, 0.01])
def test_holding_out_nothing_or_everything_is_refused(prepared, fraction):
    with pytest.raises(ValueError, match=r"fraction|without any"):
        hold_out(load_manifest(prepared, "tiny").splits["train"], fraction, seed=0)


def test_writing_what_was_read_changes_no_byte(prepared, tmp_path):
    data = copy_of(prepared, tmp_path)
    before = (data / "tiny" / MANIFEST).read_bytes()
    write_manifest(data / "tiny", load_manifest(data, "tiny"))
    assert (data / "tiny" / MANIFEST).read_bytes() == before


def test_the_column_of_the_groups_is_kept(prepared, tmp_path):
    data = copy_of(prepared, tmp_path)
    manifest = load_manifest(data, "tiny")
    assert manifest.grouped_by == ""
    write_manifest(data / "tiny", dataclasses.replace(manifest, grouped_by="patient"))
    assert load_manifest(data, "tiny").grouped_by == "patient"


def test_the_hash_of_a_set_is_that_of_its_records(prepared, tmp_path):
    manifest = load_manifest(prepared, "tiny")
    elsewhere = load_manifest(copy_of(prepared, tmp_path), "tiny")
    assert manifest.content_hash == elsewhere.content_hash
    train = manifest.splits["train"]
    shards = (dataclasses.replace(train.shards[0], sha256="0" * 64), *train.shards[1:])
    changed = manifest.splits | {"train": dataclasses.replace(train, shards=shards)}
    assert dataclasses.replace(manifest, splits=changed).content_hash != manifest.content_hash


def test_remarks_are_kept(prepared, tmp_path):
    data = copy_of(prepared, tmp_path)
    manifest = load_manifest(data, "tiny")
    split = dataclasses.replace(manifest.splits["train"], remarks={"pictures were turned": 3})
    write_manifest(data / "tiny", dataclasses.replace(manifest, splits={"train": split}))
    assert load_manifest(data, "tiny").splits["train"].remarks == {"pictures were turned": 3}


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("digits", "--dataset digits --data-dir"),
        ("coco", "--dataset coco --source FOLDER --data-dir"),
        ("my photos", "--dataset table --name 'my photos' --source TABLE --data-dir"),
    ],
)
def test_the_command_that_is_named_for_an_absent_set_is_one_that_works(tmp_path, name, command):
    with pytest.raises(FileNotFoundError, match=f"python -m pipelines.build {command}"):
        load_manifest(tmp_path, name)


def rewrite(folder: Path, change) -> None:
    """Change what a manifest says, as somebody would who knows of its checksum."""
    content = json.loads((folder / MANIFEST).read_text())
    del content["checksum"]
    change(content)
    content["checksum"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(content))


def set_field(*path, value):
    """A function that sets a field deep inside of a manifest, or takes it away."""

    def change(content):
        for step in path[:-1]:
            content = content[step]
        if value is None:
            del content[path[-1]]
        else:
            content[path[-1]] = value

    return change


TRAIN = ("splits", "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_field("classes", value="abcd"), "`classes` must be a list. Received: 'abcd'"),
        (set_field("classes", 1, value="a"), "`classes` must be names, each of them once"),
        (set_field("licence", value=7), "`licence` must be a text. Received: 7"),
        (set_field("source", value=None), "`source` is missing"),
        (set_field("colour", value="red"), "`colour` is no field that we know"),
        (set_field("splits", value=[]), r"`splits` must be an object that names splits. Received: \[\]"),
        (set_field(*TRAIN, "examples", value="40"), "split 'train': `examples` must be a whole number"),
        (set_field(*TRAIN, "examples", value=True), "split 'train': `examples` must be a whole number"),
        (set_field(*TRAIN, "examples", value=41), "split 'train': `examples` must be the sum of its shards'"),
        (set_field(*TRAIN, "examples", value=2**70), "split 'train': `examples` must be a whole number"),
        (set_field(*TRAIN, "present", value=[1, 2]), "split 'train': `present` must be 4 numbers"),
        (
            set_field(*TRAIN, "present", 0, value=-1),
            r"split 'train': `present` must be 4 numbers.* in \[0, 40\]",
        ),
        (
            set_field(*TRAIN, "unknown", 3, value=1e3),
            r"`unknown\[3\]` must be a whole number. Received: 1000.0",
        ),
        (set_field(*TRAIN, "shards", 1, "bytes", value="x"), r"`shards\[1\].bytes` must be a whole number"),
        (set_field(*TRAIN, "shards", 1, "bytes", value=-5), "what it says of train-00001-of-.* can't be"),
        (set_field(*TRAIN, "shards", 1, "sha256", value="é"), "what it says of train-00001-of-.* can't be"),
        (set_field(*TRAIN, "shards", 0, "name", value="../../x"), "'../../x'` is no shard of it"),
        (set_field(*TRAIN, "skipped", value={"id": 1}), "`skipped` must be a list"),
    ],
)
def test_a_field_of_a_wrong_kind_is_named_with_its_file(prepared, tmp_path, change, message):
    data = copy_of(prepared, tmp_path)
    rewrite(data / "tiny", change)
    with pytest.raises(ValueError, match=rf"dataset\.json.*{message}.*--overwrite"):
        load_manifest(data, "tiny")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"schema_version": ' + "9" * 5000 + "}", "is not JSON"),
        ('{"schema_version": 1, "checksum": NaN}', "`splits` must be an object"),
        (b"\xff\xfe{}", "is not UTF-8"),
    ],
)
def test_what_would_exhaust_a_reader_is_one_line(prepared, tmp_path, text, message):
    data = copy_of(prepared, tmp_path)
    (data / "tiny" / MANIFEST).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        load_manifest(data, "tiny")


def test_a_manifest_larger_than_any_that_we_write_is_not_read(prepared, tmp_path, monkeypatch):
    data = copy_of(prepared, tmp_path)
    monkeypatch.setattr("pipelines.manifest.MAX_MANIFEST_BYTES", 1000)
    with pytest.raises(ValueError, match=r"dataset\.json is damaged: it is larger than 1,000 bytes"):
        load_manifest(data, "tiny")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_whatever_stands_in_a_manifest_it_is_read_or_refused_by_name(prepared, data):
    """One value of it becomes another; the checksum fits."""
    content = json.loads((prepared / "tiny" / MANIFEST).read_text())
    del content["checksum"]
    place, path = content, []
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        path.append(key)
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JSON)
    content["checksum"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    folder = prepared.parent / "changed" / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).write_text(json.dumps(content))
    manifest, refusal = None, ""
    try:
        manifest = load_manifest(folder.parent, "tiny", check_files=False)
    except ValueError as error:
        refusal = str(error)
    if manifest is None:
        assert str(folder / MANIFEST) in refusal
        assert refusal.isprintable()
    else:
        assert len(manifest.splits["train"].present) == len(manifest.classes)
