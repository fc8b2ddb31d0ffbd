import json
import pickle
import re

import pytest
from miniature import coco_image, coco_object, real_data, write_coco, write_json

from pipelines.readers.classes import COCO_CLASSES
from pipelines.readers.coco import read_coco, read_instances

PERSON, STOP_SIGN, DOG, TOOTHBRUSH = (
    COCO_CLASSES.index(name) for name in ("person", "stop sign", "dog", "toothbrush")
)


@pytest.fixture
def source(tmp_path):
    return write_coco(tmp_path)


def change(source, edit, part="train"):
    """Change one of the JSON files of a COCO download."""
    path = source / "annotations" / f"instances_{part}2014.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_classes_are_in_the_order_of_category_ids(source):
    raw = read_coco(source)
    assert raw.name == "coco"
    assert (len(raw.classes), raw.classes[0], raw.classes[11], raw.classes[79]) == (
        *(80, "person", "stop sign", "toothbrush"),
    )
    assert (PERSON, STOP_SIGN, DOG, TOOTHBRUSH) == (0, 11, 16, 79)


def test_train_and_test_are_train2014_and_val2014(source):
    raw = read_coco(source)
    assert {split: [sample.id for sample in iterate()] for split, iterate in raw.splits.items()} == {
        "train": ["9", "30"],
        "test": ["42"],
    }
    (test,) = raw.splits["test"]()
    assert test.image == source / "val2014" / "000000000042.jpg"
    assert test.present == (STOP_SIGN,)


def test_labels_are_the_classes_of_all_objects_and_boxes_fractions(source):
    first, _ = read_coco(source).splits["train"]()
    assert first.present == (PERSON, DOG)
    assert first.box_labels == (DOG, PERSON, DOG)
    # x 10, y 5, 20 wide, 10 high, of 40 x 20 px.
    assert first.boxes == ((0.25, 0.25, 0.75, 0.75), (0, 0, 1, 1), (0, 0, 0.2, 0.1))


def test_a_crowd_counts_as_a_label_and_its_box_is_cut_to_the_picture(source):
    _, crowd = read_coco(source).splits["train"]()
    assert crowd.present == (TOOTHBRUSH,)
    assert crowd.boxes == ((0.95, 0.975, 1, 1),)


def test_pictures_without_labels_are_left_out_and_counted(source):
    raw = read_coco(source)
    for _ in range(2):  # and counted once, however often the split is read
        assert [sample.id for sample in raw.splits["train"]()] == ["9", "30"]
        assert [(skip.id, skip.why) for skip in raw.skipped["train"]] == [("25", "no labelled object")]


def test_pictures_without_labels_are_kept_on_demand(source):
    raw = read_coco(source, keep_unlabelled=True)
    kept = [sample for sample in raw.splits["train"]() if not sample.present]
    assert [sample.id for sample in kept] == ["25"]
    assert raw.skipped["train"] == []


def test_2017_has_files_and_a_name_of_its_own(tmp_path):
    raw = read_coco(write_coco(tmp_path, year=2017), year=2017)
    assert raw.name == "coco2017"
    assert [sample.id for sample in raw.splits["test"]()] == ["42"]


def test_a_raw_set_travels_to_another_process(source):
    raw = read_coco(source)
    copy = pickle.loads(pickle.dumps(raw))
    assert list(copy.splits["train"]()) == list(raw.splits["train"]())
    assert len(copy.skipped["train"]) == 1


def test_another_year_is_refused(source):
    with pytest.raises(ValueError, match=r"must be one of \(2014, 2017\). Received: 2015"):
        read_coco(source, year=2015)


@pytest.mark.parametrize("missing", ["annotations/instances_val2014.json", "train2014"])
def test_what_is_missing_is_named(source, missing):
    (source / missing).rename(source / "elsewhere")
    with pytest.raises(FileNotFoundError, match=f"{missing} is missing. COCO 2014 is annotations"):
        read_coco(source)


def test_an_incomplete_folder_of_pictures_is_refused_at_once(source):
    (source / "train2014" / "000000000030.jpg").unlink()
    iterator = read_coco(source).splits["train"]()
    with pytest.raises(
        FileNotFoundError,
        match=r"000000000030.jpg is missing, and 0 more of the 3 pictures that instances_train2014",
    ):
        next(iterator)


def test_a_picture_outside_of_the_folder_is_refused(source):
    change(source, lambda content: content["images"][0].update(file_name="../val2014/000000000042.jpg"))
    iterator = read_coco(source).splits["train"]()
    with pytest.raises(FileNotFoundError, match="is missing"):
        next(iterator)


def test_categories_that_are_not_cocos_are_refused(source):
    change(source, lambda content: content["categories"][0].update(name="tothbrush"))
    iterator = read_coco(source).splits["train"]()
    with pytest.raises(ValueError, match=r"category 90, `tothbrush`, is not .* Did you mean `toothbrush`\?"):
        next(iterator)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.pop("annotations"), "it has no list `annotations`; its keys: images, categories"),
        (lambda c: c.update(images={}), "it has no list `images`"),
        (lambda c: c["images"].append(7), r"images[3]: expected an object. Received: 7"),
        (lambda c: c["images"].append(coco_image(9)), r"images[3]: image id 9 is there twice"),
        (
            lambda c: c["images"][1].pop("file_name"),
            "images[1]: `file_name` must be a text. It has id, width",
        ),
        (
            lambda c: c["categories"].append({"id": 1, "name": "you"}),
            "categories[80]: id 1 or name `you` is given",
        ),
        (
            lambda c: c["annotations"].append(coco_object(6, 31, 1, [0, 0, 1, 1])),
            "annotations[4]: `image_id` 31 is not in `images`",
        ),
        (
            lambda c: c["annotations"].append(coco_object(6, 30, 12, [0, 0, 1, 1])),
            "annotations[4]: `category_id` 12 is not in `categories`",
        ),
        (
            lambda c: c["annotations"][0].update(category_id="dog"),
            "annotations[0]: `category_id` must be a whole number. Received: 'dog'",
        ),
        (
            lambda c: c["annotations"][0].update(bbox=[1, 2, 3]),
            "annotations[0]: `bbox` must be four numbers, x y width height. Received: [1, 2, 3]",
        ),
        (lambda c: c["images"][0].pop("width"), "annotations[0]: image 9 has a `bbox` but no `width`"),
    ],
)
def test_an_entry_that_is_not_coco_is_refused_by_place(source, edit, message):
    change(source, edit)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_instances(source / "annotations" / "instances_train2014.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a JSON file"),
        ("\xff", "is not COCO|is not a JSON file"),
        ("[]", "is not COCO"),
        ('{"a": 1, "a": 2}', "holds `a` twice"),
    ],
)
def test_a_file_that_is_no_coco_json_is_refused(tmp_path, content, message):
    path = tmp_path / "some.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        read_instances(path)


def test_objects_without_a_box_or_an_area_keep_their_label(tmp_path):
    path = tmp_path / "some.json"
    flat, bare = coco_object(1, 9, 18, [3, 3, 0, 5]), coco_object(2, 9, 1, [])
    write_json(path, [coco_image(9)], [flat, bare])
    assert read_instances(path).objects == {9: [(18, None), (1, None)]}


@pytest.mark.parametrize(
    ("split", "part", "pictures"), [("train", "train2014", 1793), ("test", "val2014", 568)]
)
def test_counts_of_real_pictures_are_those_of_an_independent_count(split, part, pictures):
    source = real_data("coco")
    content = json.loads((source / "annotations" / f"instances_{part}.json").read_text())
    name_of = {category["id"]: category["name"] for category in content["categories"]}
    expected = {(str(entry["image_id"]), name_of[entry["category_id"]]) for entry in content["annotations"]}

    samples = list(read_coco(source).splits[split]())
    assert len(samples) == pictures
    assert {(sample.id, COCO_CLASSES[label]) for sample in samples for label in sample.present} == expected
    assert sum(len(sample.boxes) for sample in samples) == len(content["annotations"])


def test_no_real_picture_is_in_two_splits():
    raw = read_coco(real_data("coco"))
    train, test = ({sample.id for sample in raw.splits[split]()} for split in ("train", "test"))
    assert not train & test
