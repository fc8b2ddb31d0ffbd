"""The build on Beam against the build in processes: byte for byte, on several runners."""

import sys
from functools import partial

import pytest
from miniature import jpeg

from pipelines import records
from pipelines.building.sets import build_set
from pipelines.samples import RawSet, Sample, Skip

RUNNERS = {
    "direct": [],
    "bundles": ["--runner=BundleBasedDirectRunner"],
    "portable": ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"],
}


def beam_build(*args, **kwargs):
    pytest.importorskip("apache_beam")
    from pipelines.building.on_beam import build_set_on_beam

    return build_set_on_beam(*args, **kwargs)


def samples(folder, split, count, skipped):
    skipped.clear()
    for number in range(count):
        yield Sample(f"{split}-{number}", folder / f"{number}.jpg", (number % 3,), unknown=(3,))
    skipped.append(Skip(f"{split}-{count}", "nobody labelled it"))


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """Two splits, of many small shards and of one; a picture of each cannot be decoded, another its reader skips."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number}.jpg").write_bytes(jpeg(number))
    (folder / "2.jpg").write_bytes(b"not a picture")
    monkeypatch.setattr(records, "SHARD_BYTES", 2 * len(jpeg(0)))
    skipped = {"train": [], "test": []}
    return RawSet(
        name="mine",
        classes=("a", "b", "c", "d"),
        splits={
            split: partial(samples, folder, split, count, skipped[split])
            for split, count in (("train", 30), ("test", 3))
        },
        source="somewhere",
        licence="CC0",
        skipped=skipped,
    )


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS)
def test_every_runner_writes_the_bytes_of_the_build_in_processes(tmp_path, raw, runner):
    manifest = beam_build(raw, tmp_path / "beam", RUNNERS[runner])
    expected = build_set(raw, tmp_path / "processes", processes=1)
    assert content(tmp_path / "beam") == content(tmp_path / "processes")
    # Fifteen shards of about two pictures: by the hash of their ids some get none, and are written all the same.
    sizes = [shard.examples for shard in expected.splits["train"].shards]
    assert (len(sizes), min(sizes), sum(sizes)) == (15, 0, 29)
    assert [skip.id for skip in manifest.splits["train"].skipped] == ["train-30", "train-2"]


@pytest.mark.slow
def test_a_build_that_failed_goes_on_with_its_finished_shards(tmp_path, raw):
    with pytest.raises(ValueError, match=r"2\.jpg"):
        beam_build(raw, tmp_path / "beam", on_bad_image="stop")
    assert not (tmp_path / "beam" / "mine" / "dataset.json").exists()
    (tmp_path / "pictures" / "2.jpg").write_bytes(jpeg(2))
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "beam" / "mine").glob("*.tfrecord")}
    assert kept

    beam_build(raw, tmp_path / "beam", on_bad_image="stop")
    build_set(raw, tmp_path / "processes", processes=1, on_bad_image="stop")
    assert content(tmp_path / "beam") == content(tmp_path / "processes")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.slow
def test_a_complete_set_is_refused(tmp_path, raw):
    beam_build(raw, tmp_path)
    with pytest.raises(FileExistsError, match="is there and complete"):
        beam_build(raw, tmp_path)
    beam_build(raw, tmp_path, overwrite=True)


@pytest.mark.slow
def test_two_pictures_of_one_id_are_refused(tmp_path, raw):
    (sample,) = list(raw.splits["test"]())[:1]
    raw.splits["test"] = [sample, sample].__iter__
    with pytest.raises(ValueError, match=r"Two pictures of test have the id 'test-0'"):
        beam_build(raw, tmp_path)


@pytest.mark.slow
def test_a_split_without_pictures_is_refused(tmp_path, raw):
    raw.splits["test"] = [].__iter__
    with pytest.raises(ValueError, match="The split test of mine holds no usable picture"):
        beam_build(raw, tmp_path)


def test_without_beam_its_installation_is_told(tmp_path, raw, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    from pipelines.building.on_beam import build_set_on_beam

    with pytest.raises(ValueError, match=r"Apache Beam is not installed: pip install 'mcar-tf\[beam\]'"):
        build_set_on_beam(raw, tmp_path)
