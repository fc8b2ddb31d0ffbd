"""Pictures are listed once each, and a list that was made stays as it is."""

import json
import os

import pyarrow
import pyarrow.parquet
import pytest

from mcar_tf.bulk.listing import plan_files, read_list, read_plan, read_table

OPTIONS = {"format": "jsonl"}


def test_shards_hold_every_picture_once_in_its_order(tmp_path):
    plan = plan_files(tmp_path, OPTIONS, ["/a", "/b", "/a", "/c", "/d", "/e"], shard_size=2)
    assert (plan.shards, plan.pictures, plan.repeated) == (3, 5, 1)
    assert [read_list(tmp_path, shard) for shard in range(3)] == [["/a", "/b"], ["/c", "/d"], ["/e"]]
    assert read_plan(tmp_path, OPTIONS) == plan


def test_names_that_are_no_text_are_kept(tmp_path):
    name = os.fsdecode(b"/caf\xe9.png")
    plan_files(tmp_path, OPTIONS, [name], shard_size=2)
    assert read_list(tmp_path, 0) == [name]


def test_a_listing_that_was_interrupted_is_made_anew(tmp_path):
    def interrupted():
        yield from ("/a", "/b", "/c")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan_files(tmp_path, OPTIONS, interrupted(), shard_size=1)
    assert read_plan(tmp_path, OPTIONS) is None
    assert plan_files(tmp_path, OPTIONS, ["/d"], shard_size=1).shards == 1
    assert [file.name for file in (tmp_path / "lists").iterdir()] == ["00000.json"]


def test_a_plan_with_other_options_is_refused(tmp_path):
    plan_files(tmp_path, OPTIONS, ["/a"], shard_size=2)
    with pytest.raises(ValueError, match="holds predictions with --format jsonl, not parquet"):
        read_plan(tmp_path, {"format": "parquet"})


def test_no_pictures_are_refused(tmp_path):
    with pytest.raises(ValueError, match="There is not one picture"):
        plan_files(tmp_path, OPTIONS, [], shard_size=2)


def write_txt(path, rows):
    path.write_text("".join(f"{row['image']}\n" for row in rows))


def write_csv(path, rows):
    path.write_text("number,image\n" + "".join(f'{row["number"]},"{row["image"]}"\n' for row in rows))


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(path, rows):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


WRITERS = {"txt": write_txt, "csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}


@pytest.mark.parametrize("form", WRITERS)
def test_every_kind_of_table_gives_absolute_paths(form, tmp_path):
    WRITERS[form](
        tmp_path / f"a.{form}", [{"number": 1, "image": "b/c, d.jpg"}, {"number": 2, "image": "/e.jpg"}]
    )
    assert list(read_table(tmp_path / f"a.{form}")) == [str(tmp_path / "b/c, d.jpg"), "/e.jpg"]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_the_column_can_be_told_and_must_be_there(form, tmp_path):
    WRITERS[form](tmp_path / f"a.{form}", [{"number": "x.jpg", "image": "b.jpg"}])
    assert list(read_table(tmp_path / f"a.{form}", "number")) == [str(tmp_path / "x.jpg")]
    with pytest.raises(ValueError, match=r"no `file-column` photo. It has number, image"):
        list(read_table(tmp_path / f"a.{form}", "photo"))


@pytest.mark.parametrize("form", [form for form in WRITERS if form != "txt"])
def test_a_row_without_a_path_is_named(form, tmp_path):
    WRITERS[form](tmp_path / f"a.{form}", [{"number": 1, "image": "b.jpg"}, {"number": 2, "image": ""}])
    place = {"csv": "line 3", "parquet": "row 2"}.get(form, "line 2")
    with pytest.raises(ValueError, match=rf"a\.{form}, {place}: there is no path of a picture"):
        list(read_table(tmp_path / f"a.{form}"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", "", "`table` must end in"),
        ("a.jsonl", "[1]\n", "line 1: it is not a JSON object"),
        ("a.parquet", "no", "is not a Parquet file"),
        ("a.csv", "", "names the pictures by none of the usual keys"),
    ],
)
def test_what_is_no_table_is_refused(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        list(read_table(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "\ufeffx.jpg\n\ny.jpg\n\n"),
        ("a.jsonl", '\ufeff{"file": "x.jpg"}\n\n{"file": "y.jpg"}\n\n'),
        ("b.jsonl", '\n{"file": "x.jpg"}\n{"file": "y.jpg"}\n'),
    ],
)
def test_byte_order_marks_and_empty_lines_are_no_paths(name, content, tmp_path):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert list(read_table(tmp_path / name)) == [str(tmp_path / "x.jpg"), str(tmp_path / "y.jpg")]
