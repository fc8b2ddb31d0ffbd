import json
import pickle
import re
import unicodedata

import pytest
from miniature import coco_image, coco_object, jpeg, write_json

from pipelines.readers.table import read_table

ANIMALS = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate("abcdef"):
        (tmp_path / f"{name}.jpg").write_bytes(jpeg(number))
    return tmp_path


def write(folder, *lines, name="labels.csv"):
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def everything(raw):
    """Picture id -> its sample, and picture id -> its split."""
    found = [(sample, split) for split, iterate in raw.splits.items() for sample in iterate()]
    return {sample.id: sample for sample, _ in found}, {sample.id: split for sample, split in found}


def test_labels_in_one_cell(folder):
    raw = read_table(
        write(folder, "file,labels,split", "a.jpg,dog;cat,train", "b.jpg, cat ;,train", "c.jpg,,train")
    )
    assert raw.classes == ("cat", "dog")  # by name
    found, _ = everything(raw)
    assert found["a.jpg"].present == (0, 1)
    assert found["b.jpg"].present == (0,)
    assert found["c.jpg"].present == ()  # none of the classes, which is worth learning
    assert found["a.jpg"].image == folder / "a.jpg"


def test_difficult_labels_are_present_ones(folder):
    raw = read_table(
        write(folder, "file,labels,difficult,split", "a.jpg,dog,cat,train", "b.jpg,dog,dog,train")
    )
    found, _ = everything(raw)
    assert (found["a.jpg"].present, found["a.jpg"].difficult) == ((0, 1), (0,))
    assert (found["b.jpg"].present, found["b.jpg"].difficult) == ((1,), (1,))


def test_a_column_per_class(folder):
    raw = read_table(write(folder, "file,dog,cat,cow,split", "a.jpg,1,0,,train", "b.jpg,-1,1.0,0.0,train"))
    assert raw.classes == ("dog", "cat", "cow")  # as the columns stand
    found, _ = everything(raw)
    assert (found["a.jpg"].present, found["a.jpg"].unknown) == ((0,), (2,))
    assert (found["b.jpg"].present, found["b.jpg"].difficult, found["b.jpg"].unknown) == ((0, 1), (0,), ())


def test_a_picture_of_which_nothing_is_known_is_left_out(folder):
    raw = read_table(write(folder, "file,dog,cat,split", "a.jpg,1,0,train", "b.jpg,,,train"))
    assert [sample.id for sample in raw.splits["train"]()] == ["a.jpg"]
    assert [(skip.id, skip.why) for skip in raw.skipped["train"]] == [("b.jpg", "every class is unknown")]


def test_given_classes_decide_the_order_and_the_columns(folder):
    (folder / "classes.txt").write_text("cow\n\ndog\n")
    path = write(folder, "file,dog,width,cow,split", "a.jpg,1,640,0,train")
    raw = read_table(path, classes=folder / "classes.txt")
    assert raw.classes == ("cow", "dog")
    assert everything(raw)[0]["a.jpg"].present == (1,)
    assert "columns not read: width" in raw.source


def test_splits_are_those_of_the_table_and_val_is_validation(folder):
    raw = read_table(
        write(folder, "file,labels,split", "a.jpg,dog,train", "b.jpg,dog,val", "c.jpg,dog,hard_ones")
    )
    assert everything(raw)[1] == {"a.jpg": "train", "b.jpg": "validation", "c.jpg": "hard_ones"}


def test_a_table_without_splits_is_divided_by_seed_and_not_by_order(folder):
    names = [f"{number}.jpg" for number in range(100)]
    lines = [f"{name},{'dog' if number % 3 else 'cat'}" for number, name in enumerate(names)]
    forwards = write(folder, "file,labels", *lines, name="forwards.csv")
    backwards = write(folder, "file,labels", *reversed(lines), name="backwards.csv")

    split_of = everything(read_table(forwards, check_files=False))[1]
    assert [list(split_of.values()).count(split) for split in ("train", "validation", "test")] == [80, 10, 10]
    assert everything(read_table(backwards, check_files=False))[1] == split_of
    assert everything(read_table(forwards, seed=1, check_files=False))[1] != split_of


def test_fractions_choose_the_splits(folder):
    path = write(folder, "file,labels", *(f"{name}.jpg,dog" for name in "abcdef"))
    raw = read_table(path, val_fraction=0.5, test_fraction=0)
    assert sorted(everything(raw)[1].values()) == ["train"] * 3 + ["validation"] * 3


def test_a_file_for_each_split(folder):
    write(folder, "file,labels", "a.jpg,dog", name="train.csv")
    write(folder, "file,labels", "b.jpg,cat", name="val.csv")
    raw = read_table(folder)
    assert raw.classes == ("cat", "dog")
    assert everything(raw)[1] == {"a.jpg": "train", "b.jpg": "validation"}


def test_a_coco_style_json(folder):
    write_json(
        folder / "own.json", [coco_image(1), coco_image(2)], [coco_object(1, 1, 7, [10, 5, 20, 10])], ANIMALS
    )
    for number in (1, 2):
        (folder / f"{number:012d}.jpg").write_bytes(jpeg(number))
    raw = read_table(folder, val_fraction=0, test_fraction=0)
    assert raw.classes == ("cat", "dog")  # by category id
    found, _ = everything(raw)
    labelled = found["000000000001.jpg"]
    assert (labelled.present, labelled.box_labels, labelled.boxes) == (
        (1,),
        (1,),
        ((0.25, 0.25, 0.75, 0.75),),
    )
    assert found["000000000002.jpg"].present == ()


def test_pictures_may_lie_elsewhere(folder):
    path = write(folder, "file,labels,split", "sub/../a.jpg,dog,train", f"{folder}/b.jpg,dog,train")
    (folder / "sub").mkdir()
    elsewhere = path.rename(folder / "sub" / "labels.csv")
    assert set(everything(read_table(elsewhere, images=folder))[0]) == {"a.jpg", "b.jpg"}


def test_a_byte_order_mark_blank_lines_and_quotes_do_no_harm(folder):
    (folder / "a, b.jpg").write_bytes(jpeg(9))
    (folder / "labels.csv").write_bytes(
        b'\xef\xbb\xbffile,labels,split\r\n\r\n"a, b.jpg","dog;cat",train\r\n'
    )
    (sample,) = read_table(folder / "labels.csv").splits["train"]()
    assert sample.image == folder / "a, b.jpg"
    assert sample.present == (0, 1)


def test_names_that_no_id_may_have_get_ids_of_their_own(folder):
    for name in ("猫.jpg", "犬.jpg"):
        (folder / name).write_bytes(jpeg(1))
    found, _ = everything(
        read_table(write(folder, "file,labels,split", "猫.jpg,cat,train", "犬.jpg,dog,train"))
    )
    assert len(found) == 2
    assert all(re.fullmatch(r"_\.jpg-[0-9a-f]{16}", id) for id in found)


def test_a_raw_set_travels_to_another_process(folder):
    raw = read_table(
        write(folder, "file,labels", *(f"{name}.jpg,dog" for name in "abcdef")), val_fraction=0.2
    )
    copy = pickle.loads(pickle.dumps(raw))
    assert everything(copy) == everything(raw)


def test_the_tables_checksum_tells_which_table_it_was(folder):
    # sha256 of "file,labels,split\na.jpg,dog,train\n", by sha256sum
    raw = read_table(write(folder, "file,labels,split", "a.jpg,dog,train"), licence="CC0")
    assert raw.source == "labels.csv (sha256 3cf8a014bc948786); splits as in the table"
    assert raw.licence == "CC0"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "labels.csv is empty"),
        (["File,labels"], "labels.csv has no column `file`. It has File, labels. Did you mean `File`?"),
        (["file labels", "a.jpg dog"], "It has file labels. Columns are separated by commas"),
        (["file,labels,labels"], "labels.csv has two columns `labels`"),
        (["file,split", "a.jpg,train"], "labels.csv has neither a column `labels` nor a column per class"),
        (["file,labels,spilt", "a.jpg,dog,train"], "labels.csv has a column `spilt`. Did you mean `split`?"),
        (["file,label", "a.jpg,dog"], "labels.csv has a column `label`. Did you mean `labels`?"),
        (["file,dog,difficult", "a.jpg,1,dog"], "-1 says difficult; drop the column `difficult`"),
        (["file,labels"], "labels.csv: there is not one picture in it"),
        (["file,labels,split", "a.jpg,,train"], "labels.csv has no label in any of its 1 rows"),
        (["file,labels", "a.jpg,dog,cat"], "labels.csv, line 2: 3 fields, but 2 in the header"),
        (["file,labels", "a.jpg,dog", ",dog"], "labels.csv, line 3: `file` names no file. Received: ''"),
        (["file,labels", "a.jpg,dog", "../b.jpg,dog"], "labels.csv, line 3: ../b.jpg is outside of"),
        (["file,labels", "/etc/passwd,dog"], "labels.csv, line 2: /etc/passwd is outside of"),
        (["file,labels", ".,dog"], "labels.csv, line 2: . is outside of"),
        (["file,labels", "a.jpg,dog", "./a.jpg,cat"], "line 3: ./a.jpg was there already, in"),
        (["file,labels,split", "a.jpg,dog,"], "labels.csv, line 2: `split` must be a name"),
        (["file,labels,split", "a.jpg,dog,Hard", "b.jpg,dog,hard"], "differ by case only: Hard, hard"),
        (
            ["file,dog,cat", "a.jpg,1,yes"],
            "line 2, column `cat`: expected 1, 0, -1 or nothing. Received: 'yes'",
        ),
        (["file,dog,width", "a.jpg,1,640"], "Received: '640'. If that is no class, give the names"),
        (["file,labels", '"a.jpg,dog'], "labels.csv, line 2: not CSV"),
        (
            ["file,labels", "a.jpg,dog", "b.jpg,cat|dog"],
            "line 3: `cat|dog` looks like several labels with `|`",
        ),
        (["file,labels", "a.jpg,dog", "b.jpg,Dog"], "line 3: the classes `Dog` and `dog` differ by case"),
        (["file,Dog,dog,cat", "a.jpg,1,0,0"], "the classes `dog` and `Dog` differ by case"),
        (
            ["file,smiling,male", "a.jpg,-1,1", "b.jpg,1,-1"],
            "has 1 and -1 in its columns and no 0: does -1 say absent, unknown, or present but hard to see?"
            " --minus-one absent, unknown or difficult tells",
        ),
        (["file,labels,is_valid", "a.jpg,dog,maybe"], "line 2: `is_valid` must be True or False"),
        (["file,labels", 'a.jpg,"car\ntree"'], "line 3: A class name must not hold line breaks"),
        (["file,labels", "a.jpg,car\u2028tree"], "line 2: A class name must not hold line breaks"),
        (["file,labels", f"a.jpg,{'x' * 201}"], "line 2: A class name must have at most 200 characters"),
        (["file,dog,cat", "a.jpg,0,0"], "labels.csv has no label in any of its 1 rows"),
        (
            ["file,labels", "a.jpg,dog", "b.jpg,dog"],
            "too few to give the split `validation` its share of 0.1",
        ),
    ],
)
def test_a_bad_table_is_refused_by_line(folder, lines, message):
    path = write(folder, *lines)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_table(path)


def test_a_label_that_is_no_class_is_refused_with_the_nearest_one(folder):
    path = write(folder, "file,labels", "a.jpg,dog", "b.jpg,dgo")
    with pytest.raises(ValueError, match=r"labels.csv, line 3: `dgo` is not a class. Did you mean `dog`\?"):
        read_table(path, classes=["cat", "dog"])


def test_a_class_without_a_column_is_refused_with_the_nearest_one(folder):
    path = write(folder, "file,dogs,cat", "a.jpg,1,0")
    with pytest.raises(ValueError, match=r"nor one of the class `dog`. Did you mean `dogs`\?"):
        read_table(path, classes=["dog", "cat"])


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["dog", "dog"], "`dog` is named twice"),
        (["dog "], "space around it"),
        (["a;b"], "a `;`"),
        (["a\nb"], "line breaks"),
    ],
)
def test_bad_class_names_are_refused(folder, classes, message):
    path = write(folder, "file,labels", "a.jpg,dog")
    with pytest.raises(ValueError, match=message):
        read_table(path, classes=classes)


def test_a_missing_picture_is_refused_by_line_with_the_nearest_one(folder):
    path = write(folder, "file,labels", "a.jpg,dog", "b.jpeg,dog")
    with pytest.raises(FileNotFoundError, match=r"line 3: .*b.jpeg is not there. Did you mean `b.jpg`\?"):
        read_table(path)


def test_a_missing_folder_of_a_picture_is_named(folder):
    path = write(folder, "file,labels", "photos/a.jpg,dog")
    with pytest.raises(FileNotFoundError, match=r"photos/a.jpg is not there. Nor is its folder .*photos"):
        read_table(path)


def test_a_missing_table_is_refused_with_the_nearest_one(folder):
    write(folder, "file,labels")
    with pytest.raises(FileNotFoundError, match=r"label.csv is not there. Did you mean `labels.csv`\?"):
        read_table(folder / "label.csv")


def test_a_missing_root_is_refused(folder):
    path = write(folder, "file,labels", "a.jpg,dog")
    with pytest.raises(FileNotFoundError, match="photos, the folder of the pictures, is not there"):
        read_table(path, images=folder / "photos")


def test_a_folder_without_a_table_is_refused(folder):
    with pytest.raises(FileNotFoundError, match="holds no CSV and no JSON"):
        read_table(folder)


def test_a_folder_of_tables_that_are_no_splits_is_refused(folder):
    write(folder, "file,labels", name="old.csv")
    write(folder, "file,labels", name="new.csv")
    with pytest.raises(ValueError, match=r"holds new.csv, old.csv: name the one to read"):
        read_table(folder)


def test_a_picture_in_two_splits_is_refused(folder):
    write(folder, "file,labels", "a.jpg,dog", name="train.csv")
    write(folder, "file,labels", "a.jpg,dog", name="test.csv")
    with pytest.raises(
        ValueError, match=r"train.csv, line 2: a.jpg was there already, in .*test.csv, line 2"
    ):
        read_table(folder)


def test_files_of_splits_with_other_classes_are_refused(folder):
    write(folder, "file,dog", "a.jpg,1", name="train.csv")
    write(folder, "file,cat", "b.jpg,1", name="test.csv")
    with pytest.raises(ValueError, match="name other classes"):
        read_table(folder)


def test_a_table_that_is_neither_csv_nor_json_is_refused(folder):
    with pytest.raises(ValueError, match=r"a.jpg: a table must be one of .csv, .tsv"):
        read_table(folder / "a.jpg")


def test_a_table_that_is_not_utf8_is_refused(folder):
    (folder / "labels.csv").write_bytes("file,labels\na.jpg,käfer\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"labels.csv is not UTF-8 text"):
        read_table(folder / "labels.csv")


@pytest.mark.parametrize(
    ("fractions", "message"),
    [((1.0, 0), r"`val_fraction` must lie in \[0, 1\)"), ((0.5, 0.5), "leave nothing to train on")],
)
def test_fractions_that_leave_nothing_are_refused(folder, fractions, message):
    path = write(folder, "file,labels", "a.jpg,dog")
    with pytest.raises(ValueError, match=message):
        read_table(path, val_fraction=fractions[0], test_fraction=fractions[1])


def test_a_name_that_is_no_folder_name_is_refused(folder):
    path = write(folder, "file,labels", "a.jpg,dog")
    with pytest.raises(ValueError, match="`name` may have letters"):
        read_table(path, name="../mine")


def test_a_json_with_a_label_that_is_no_class_is_refused(folder):
    path = folder / "own.json"
    path.write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.jpg"}],
                "categories": ANIMALS,
                "annotations": [{"image_id": 1, "category_id": 7}],
            }
        )
    )
    with pytest.raises(ValueError, match=r"own.json, image 1: `dog` is not a class"):
        read_table(path, classes=["cat"])


def test_a_separator_can_be_named(folder):
    path = write(folder, "file,labels,split", "a.jpg,dog|cat,train", "b.jpg,cat | cow,train")
    raw = read_table(path, separator="|")
    assert raw.classes == ("cat", "cow", "dog")
    assert everything(raw)[0]["b.jpg"].present == (0, 1)
    path = write(folder, "file,labels,split", "a.jpg,dog cat,train", "b.jpg,cat  cow,train")
    assert read_table(path, separator=" ").classes == ("cat", "cow", "dog")


@pytest.mark.parametrize("separator", ["", "  "])
def test_an_empty_separator_is_refused(folder, separator):
    with pytest.raises(ValueError, match="`separator` must be a text"):
        read_table(write(folder, "file,labels", "a.jpg,dog"), separator=separator)


def test_names_that_look_joined_are_names_if_they_are_listed(folder):
    path = write(folder, "file,labels,split", "a.jpg,cat|dog,train", "b.jpg,Cat|dog,train")
    raw = read_table(path, classes=["cat|dog", "Cat|dog"])
    assert everything(raw)[0]["b.jpg"].present == (1,)


@pytest.mark.parametrize(
    ("said", "present", "difficult", "unknown"),
    [("absent", (1,), (), ()), ("unknown", (1,), (), (0,)), ("difficult", (0, 1), (0,), ())],
)
def test_what_minus_one_says_can_be_told(folder, said, present, difficult, unknown):
    path = write(folder, "file,smiling,male,split", "a.jpg,-1,1,train", "b.jpg,1,-1.0,train")
    raw = read_table(path, minus_one=said)
    sample = everything(raw)[0]["a.jpg"]
    assert (sample.present, sample.difficult, sample.unknown) == (present, difficult, unknown)
    assert raw.remarks == []


def test_minus_one_beside_zero_is_difficult_and_said(folder):
    raw = read_table(write(folder, "file,dog,cat,split", "a.jpg,-1,0,train", "b.jpg,1,0,train"))
    assert everything(raw)[0]["a.jpg"].difficult == (0,)
    assert raw.remarks == ["-1 is read as difficult: present, but hard to see. --minus-one tells otherwise"]


def test_valid_and_is_valid_are_validation_and_said(folder):
    raw = read_table(write(folder, "file,labels,split", "a.jpg,dog,train", "b.jpg,cat,valid"))
    assert everything(raw)[1] == {"a.jpg": "train", "b.jpg": "validation"}
    assert raw.remarks == ["the split valid is read as validation"]
    raw = read_table(write(folder, "file,labels,is_valid", "a.jpg,dog,False", "b.jpg,cat,True"))
    assert everything(raw)[1] == {"a.jpg": "train", "b.jpg": "validation"}
    assert raw.remarks == ["is_valid is read as the split: True is validation, False is train"]


def test_splits_are_named_in_any_case_as_files_and_folders_are(folder):
    raw = read_table(write(folder, "file,labels,split", "a.jpg,dog,Train", "b.jpg,cat,VALID"))
    assert everything(raw)[1] == {"a.jpg": "train", "b.jpg": "validation"}
    assert raw.remarks == ["the split Train is read as train", "the split VALID is read as validation"]


def test_columns_that_are_not_read_are_said(folder):
    raw = read_table(write(folder, "file,labels,width,split", "a.jpg,dog,640,train"))
    assert raw.remarks == ["columns that are not read: width"]


def test_paths_of_windows_are_read(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "a.jpg").write_bytes(jpeg(1))
    found, _ = everything(read_table(write(folder, "file,labels,split", "sub\\a.jpg,dog,train")))
    assert found["sub/a.jpg"].image == folder / "sub" / "a.jpg"


def test_a_back_slash_that_a_file_has_in_its_name_is_kept(folder):
    (folder / "x\\y.jpg").write_bytes(jpeg(1))
    (sample,) = read_table(write(folder, "file,labels,split", "x\\y.jpg,dog,train")).splits["train"]()
    assert sample.image == folder / "x\\y.jpg"


@pytest.mark.parametrize(("in_table", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_are_found_however_they_are_written(folder, in_table, on_disk):
    def name(form):
        return unicodedata.normalize(form, "Übung café.jpg")

    (folder / name(on_disk)).write_bytes(jpeg(1))
    raw = read_table(write(folder, "file,labels,split", f"{name(in_table)},dog,train"))
    (sample,) = raw.splits["train"]()
    assert sample.image == folder / name(on_disk)


def test_labels_with_accents_are_one_class_however_they_are_written(folder):
    forms = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    path = write(folder, "file,labels,split", f"a.jpg,{forms[0]},train", f"b.jpg,{forms[1]},train")
    assert read_table(path).classes == (forms[0],)
    assert read_table(path, classes=[forms[0]]).classes == (forms[0],)


def test_what_a_macs_archive_leaves_beside_a_table_is_no_table(folder):
    write(folder, "file,labels,split", "a.jpg,dog,train")
    (folder / "._labels.csv").write_bytes(b"\0\5\x16\7")
    assert read_table(folder).classes == ("dog",)


def test_ids_that_are_texts_in_one_list_are_matched_and_said(folder):
    content = {
        "images": [{"id": 0, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}],
        "categories": ANIMALS,
        "annotations": [{"image_id": "0", "category_id": 7}, {"image_id": "1", "category_id": 3}],
    }
    (folder / "own.json").write_text(json.dumps(content))
    raw = read_table(folder / "own.json", val_fraction=0, test_fraction=0)
    assert everything(raw)[0]["a.jpg"].present == (1,)
    assert raw.remarks == ["own.json: ids of images are numbers in one list and texts in the other"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [], "annotations": [], "categories": ANIMALS}, "there is not one picture in it"),
        (
            {"images": [{"id": 0, "file_name": "a.jpg"}], "annotations": [], "categories": ANIMALS},
            "has no label in any of its 1 rows",
        ),
        (
            {
                "images": [{"id": 0, "file_name": "a.jpg"}],
                "annotations": [{"image_id": "x", "category_id": 7}],
                "categories": ANIMALS,
            },
            "`image_id` 'x' is not in `images`",
        ),
    ],
)
def test_a_json_without_pictures_or_labels_is_refused(folder, content, message):
    (folder / "own.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=re.escape(message)):
        read_table(folder / "own.json")


def test_a_json_nested_without_end_is_refused_by_name(folder):
    (folder / "own.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"own.json is not a JSON file"):
        read_table(folder / "own.json")


def test_boxes_carry_the_sides_that_they_were_measured_on(folder):
    write_json(folder / "own.json", [coco_image(1)], [coco_object(1, 1, 7, [10, 5, 20, 10])], ANIMALS)
    (folder / f"{1:012d}.jpg").write_bytes(jpeg(1))
    (sample,) = read_table(folder / "own.json", val_fraction=0, test_fraction=0).splits["train"]()
    assert sample.measured == (20, 40)


def test_an_error_amid_a_table_names_it(folder, monkeypatch):
    path = write(folder, "file,labels,split", "a.jpg,dog,train")

    def broken(*args, **kwargs):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pipelines.readers.csv_layout.csv.reader", broken)
    with pytest.raises(OSError, match=r"labels\.csv"):
        read_table(path)
