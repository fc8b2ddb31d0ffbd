import logging
import re
from collections import Counter
from pathlib import Path

import pytest
from miniature import VOC_LISTS, real_data, write_voc

from pipelines.readers import voc
from pipelines.readers.classes import VOC_CLASSES
from pipelines.readers.voc import read_voc

DOG, PERSON, TRAIN = (VOC_CLASSES.index(name) for name in ("dog", "person", "train"))


@pytest.fixture
def root(tmp_path):
    return write_voc(tmp_path)


def ids(raw, split):
    return [sample.id for sample in raw.splits[split]()]


def samples(raw):
    return {sample.id: sample for split in ("train", "test") for sample in raw.splits[split]()}


def test_train_is_trainval_and_the_devkits_own_lists_have_names_of_their_own(root):
    raw = read_voc(root)
    assert raw.name == "voc2007"
    assert raw.classes == VOC_CLASSES
    assert {split: ids(raw, split) for split in raw.splits} == {
        "train": ["000001", "000002", "000003", "000004"],
        "test": ["000005"],
        "devkit_train": ["000001", "000002"],
        "devkit_val": ["000003", "000004"],
    }


def test_train_is_the_union_where_there_is_no_trainval(tmp_path):
    root = write_voc(tmp_path, lists={name: VOC_LISTS[name] for name in ("train", "val")})
    raw = read_voc(root)
    assert ids(raw, "train") == ["000001", "000002", "000003", "000004"]
    assert list(raw.splits) == ["train", "devkit_train", "devkit_val"]


@pytest.mark.parametrize("levels_up", [0, 1, 2])
def test_source_may_be_the_year_the_devkit_or_its_folder(root, levels_up):
    source = [root, *root.parents][levels_up]
    assert len(read_voc(source).splits) == 4


def test_present_difficult_and_absent_are_told_apart(root):
    found = samples(read_voc(root))
    assert found["000001"].present == (DOG, PERSON)
    assert found["000001"].difficult == (PERSON,)
    # One of its two people is easy to see: the class is not difficult.
    assert found["000002"].present == (PERSON,)
    assert found["000002"].difficult == ()
    assert found["000004"].present == found["000004"].difficult == (TRAIN,)


def test_boxes_are_fractions_of_the_picture(root):
    sample = samples(read_voc(root))["000001"]
    assert sample.box_labels == (DOG, PERSON)
    # 40 x 20 px: the dog fills it; the person is px 11..20 by 6..15, from 1: 10/40 to 20/40 and 5/20 to 15/20.
    assert sample.boxes == ((0, 0, 1, 1), (0.25, 0.25, 0.75, 0.5))


def test_image_is_the_devkits_file(root):
    assert samples(read_voc(root))["000003"].image == root / "JPEGImages" / "000003.jpg"


def test_labels_come_from_the_objects_where_there_are_no_lists_per_class(root):
    with_lists = samples(read_voc(root))
    for path in (root / "ImageSets" / "Main").glob("*_*.txt"):
        path.unlink()
    assert samples(read_voc(root)) == with_lists


def test_lists_win_over_the_objects_and_a_warning_says_by_how_much(root, caplog):
    path = root / "ImageSets" / "Main" / "dog_test.txt"
    path.write_text("000005  1\n")
    with caplog.at_level(logging.WARNING):
        (sample,) = read_voc(root).splits["test"]()
    assert DOG in sample.present
    assert "disagree in 1 of 20 labels, first about dog in 000005" in caplog.text


def test_nothing_is_known_of_the_test_pictures_of_2012(tmp_path):
    raw = read_voc(write_voc(tmp_path, year=2012), year=2012)
    (sample,) = raw.splits["test"]()
    assert sample.present == ()
    assert sample.unknown == tuple(range(20))


def test_an_object_without_area_keeps_its_label_and_loses_its_box(root):
    path = root / "Annotations" / "000003.xml"
    path.write_text(path.read_text().replace("<xmax>8</xmax>", "<xmax>4</xmax>"))
    sample = samples(read_voc(root))["000003"]
    assert sample.present == (VOC_CLASSES.index("cat"),)
    assert sample.boxes == sample.box_labels == ()


def test_a_folder_without_a_devkit_is_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"VOC 2012 is not in .*expected VOCdevkit/VOC2012/ImageSets/Main"
    ):
        read_voc(tmp_path, year=2012)


def test_another_years_devkit_is_refused(root):
    with pytest.raises(ValueError, match="is of another year than 2012"):
        read_voc(root, year=2012)


def test_a_year_without_a_devkit_is_refused(root):
    with pytest.raises(ValueError, match=r"must be one of \(2007, 2012\). Received: 2010"):
        read_voc(root, year=2010)


def test_half_of_the_archives_are_refused(root):
    (root / "Annotations").rename(root / "elsewhere")
    with pytest.raises(FileNotFoundError, match="Annotations is missing: unpack all"):
        read_voc(root)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train", "", "train.txt lists no picture"),
        ("train", "000001\n000001\n", "train.txt: 000001 is listed twice"),
        ("train", "000001\n../000002\n", "train.txt: ../000002 is not the name of a picture in JPEGImages"),
        ("val", "000001\n000003\n000004\n", "000001 is both in train.txt and in val.txt"),
        (
            "trainval",
            "000001\n000002\n000003\n",
            "trainval.txt is not train.txt and val.txt together: 000004",
        ),
        ("test", "000004\n", "000004 is both in val.txt and in test.txt"),
    ],
)
def test_lists_that_contradict_each_other_are_refused(root, name, content, message):
    (root / "ImageSets" / "Main" / f"{name}.txt").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_voc(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("000005  2\n", r"cat_test.txt, line 1: expected a picture's id and 1, 0 or -1. Received: 000005  2"),
        ("000005 -1\n000009 -1\n", "cat_test.txt, line 2: 000009 is not in test.txt"),
        ("", "cat_test.txt lacks 000005, which test.txt lists"),
    ],
)
def test_a_broken_list_of_a_class_is_refused(root, content, message):
    (root / "ImageSets" / "Main" / "cat_test.txt").write_text(content)
    iterator = read_voc(root).splits["test"]()
    with pytest.raises(ValueError, match=message):
        next(iterator)


def test_a_missing_list_of_a_class_is_refused(root):
    (root / "ImageSets" / "Main" / "cat_test.txt").unlink()
    iterator = read_voc(root).splits["test"]()
    with pytest.raises(FileNotFoundError, match=r"cat_test\.txt is missing, beside 19 lists like it"):
        next(iterator)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<name>cat", "<name>cats", "000003.xml: `cats` is not a class of VOC. Did you mean `cat`?"),
        ("</annotation>", "", "000003.xml is not XML"),
        ("<width>40", "<width>wide", "000003.xml: `size/width` must be a number. Received: 'wide'"),
        ("<width>40", "<width>0", "000003.xml: `size` must be positive"),
    ],
)
def test_a_broken_annotation_is_refused_by_name(root, old, new, message):
    path = root / "Annotations" / "000003.xml"
    path.write_text(path.read_text().replace(old, new))
    iterator = read_voc(root).splits["devkit_val"]()
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        next(iterator)


def test_a_missing_picture_is_refused_by_name(root):
    (root / "JPEGImages" / "000005.jpg").unlink()
    iterator = read_voc(root).splits["test"]()
    with pytest.raises(
        FileNotFoundError, match=r"000005.jpg is missing, but ImageSets/Main/test.txt lists it"
    ):
        next(iterator)


@pytest.fixture(scope="module")
def real_root():
    return real_data("voc", "VOCdevkit", "VOC2012")


def test_lists_and_objects_of_real_pictures_agree_for_every_picture_and_class(real_root):
    ids = (real_root / "ImageSets" / "Main" / "trainval.txt").read_text().split()
    assert len(ids) == 1984
    from_lists = voc.states_from_lists(real_root / "ImageSets" / "Main", "trainval", ids)
    from_objects = {
        id: voc.states_from_objects(voc.read_objects(real_root / "Annotations" / f"{id}.xml")) for id in ids
    }
    assert from_lists == from_objects
    states = [state for states in from_lists.values() for state in states]
    assert {voc.PRESENT, voc.DIFFICULT, voc.ABSENT} == set(states)


def test_no_real_picture_is_in_two_splits(real_root):
    raw = read_voc(real_root, year=2012)
    train, val = set(ids(raw, "devkit_train")), set(ids(raw, "devkit_val"))
    assert not train & val
    assert train | val == set(ids(raw, "train"))
    assert (len(train), len(val)) == (1523, 461)


def test_counts_of_real_pictures_are_those_of_an_independent_count(real_root):
    # Counted with a pattern over the XML text, not with our parser.
    names_of = {
        path.stem: set(re.findall(r"<object>\s*<name>(\w+)</name>", path.read_text()))
        for path in (real_root / "Annotations").glob("*.xml")
    }
    expected = Counter(name for names in names_of.values() for name in names)
    found = Counter(
        VOC_CLASSES[label]
        for sample in read_voc(real_root, year=2012).splits["train"]()
        for label in sample.present
    )
    assert found == expected


XML = "<annotation><size><width>40</width><height>20</height></size>{}</annotation>"
OBJECT = (
    "<path>D:\\图片\\é</path><object><name>dog</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>40</xmax>"
    "<ymax>20</ymax></bndbox></object>"
)


@pytest.mark.parametrize(
    ("named", "written"),
    [("gb2312", "gb18030"), ("GBK", "gbk"), ("UTF-8", "utf-8"), ("utf-16", "utf-16"), ("big5", "big5")],
)
def test_annotations_in_other_encodings_are_read(tmp_path, named, written):
    objects = OBJECT.replace("é", "") if written in ("gbk", "big5") else OBJECT
    text = f'<?xml version="1.0" encoding="{named}"?>' + XML.format(objects.replace("图片", "圖"))
    (tmp_path / "a.xml").write_bytes(text.encode(written))
    ((label, difficult, box),) = voc.read_objects(tmp_path / "a.xml")
    assert (VOC_CLASSES[label], difficult, box) == ("dog", False, (0.0, 0.0, 1.0, 1.0))


@pytest.mark.parametrize("named", ["ansi", "x-mystery", "rot13", "zip"])
def test_an_encoding_that_is_none_is_named_with_its_file(tmp_path, named):
    text = f'<?xml version="1.0" encoding="{named}"?>' + XML.format(OBJECT)
    (tmp_path / "a.xml").write_bytes(text.encode())
    with pytest.raises(
        ValueError, match=rf"a\.xml says encoding=`{named}`, by which it can't be read.*as UTF-8"
    ):
        voc.read_objects(tmp_path / "a.xml")


def test_bytes_that_are_not_of_the_encoding_that_is_named_are_refused_by_file(tmp_path):
    (tmp_path / "a.xml").write_bytes(
        b'<?xml version="1.0" encoding="gb2312"?><annotation>\xff\xff</annotation>'
    )
    with pytest.raises(ValueError, match=r"a\.xml says encoding=`gb2312`"):
        voc.read_objects(tmp_path / "a.xml")


def test_a_bad_sector_under_an_annotation_is_named(tmp_path, monkeypatch):
    def broken(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", broken)
    with pytest.raises(OSError, match=r"a\.xml"):
        voc.read_objects(tmp_path / "a.xml")
