"""Each shape in which labels come: the line that says how it was read, and the counts."""

import pickle
from collections import Counter

import label_shapes
import pytest
from label_shapes import CLASSES, COUNTS, SHAPES
from miniature import jpeg

from pipelines.build import main
from pipelines.manifest import load_manifest
from pipelines.readers.table import read_table

WHOLE = {"val_fraction": 0, "test_fraction": 0}


def samples_of(raw):
    return [(sample, split) for split, iterate in raw.splits.items() for sample in iterate()]


def counts_of(raw):
    return dict(Counter(raw.classes[label] for sample, _ in samples_of(raw) for label in sample.present))


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_is_read_as_it_lies_and_said(tmp_path, shape):
    make, said = SHAPES[shape]
    raw = read_table(make(tmp_path), **WHOLE)
    assert said in raw.read_as
    assert raw.classes == CLASSES
    found = samples_of(raw)
    assert len(found) == len({sample.id for sample, _ in found}) == 6
    assert counts_of(raw) == COUNTS
    assert all(not sample.unknown for sample, _ in found)
    assert all(isinstance(sample.image, bytes) or sample.image.is_file() for sample, _ in found)
    assert samples_of(pickle.loads(pickle.dumps(raw))) == found  # another process reads the same


@pytest.mark.parametrize(
    "shape", ["_classes.csv", "JSON lines of splits", "Roboflow", "VOC", "YOLO", "is_valid", "CelebA"]
)
def test_the_splits_of_a_shape_are_kept(tmp_path, shape):
    raw = read_table(SHAPES[shape][0](tmp_path))
    pictures = Counter(split for _, split in samples_of(raw))
    if shape == "is_valid":
        assert pictures == {"train": 4, "validation": 2}
    else:
        assert pictures == {"train": 4, "validation": 1, "test": 1}


def test_boxes_without_sizes_are_measured_on_the_picture(tmp_path):
    raw = read_table(label_shapes.coco_ids_as_text(tmp_path), **WHOLE)
    found = {sample.id: sample for sample, _ in samples_of(raw)}
    # [10, 5, 20, 10] px of 40 x 20
    assert found["a.jpg"].boxes == ((0.25, 0.25, 0.75, 0.75),)
    assert found["a.jpg"].measured == (20, 40)


def test_boxes_of_yolo_and_voc_are_kept(tmp_path):
    of_yolo = {s.id: s for s, _ in samples_of(read_table(label_shapes.yolo(tmp_path / "y")))}
    of_voc = {s.id: s for s, _ in samples_of(read_table(label_shapes.voc(tmp_path / "v")))}
    box = (0.25, 0.25, 0.75, 0.75)
    assert of_yolo["images/train/a.jpg"].boxes == (box, box)
    assert of_voc["JPEGImages/a.jpg"].boxes == (box,)


def test_polygons_of_voc_are_labels_without_boxes(tmp_path):
    found = samples_of(read_table(label_shapes.voc_polygons_beside_pictures(tmp_path), **WHOLE))
    assert all(sample.boxes == () for sample, _ in found)


def test_what_is_uncertain_or_blank_in_chexpert_is_unknown(tmp_path):
    raw = read_table(label_shapes.chexpert(tmp_path), **WHOLE)
    assert raw.read_as == (
        "file = Path without its first folder, a column per class (Enlarged Cardiomediastinum to Pleural Effusion);"
        " 3 classes; 5 pictures"
    )
    found = {sample.id: (sample.present, sample.unknown) for sample, _ in samples_of(raw)}
    assert found == {
        "train/p1/a.jpg": ((0,), (2,)),
        "train/p1/b.jpg": ((1,), (0,)),
        "train/p1/c.jpg": ((2,), (1,)),
        "train/p1/d.jpg": ((0,), (1, 2)),
        "train/p1/e.jpg": ((), ()),
    }
    assert "-1 is read as unknown: these are CheXpert's columns, where it says uncertain" in raw.remarks
    assert "columns that are not read: Age, Frontal/Lateral, Sex" in raw.remarks


def test_what_a_long_form_does_not_say_is_unknown(tmp_path):
    raw = read_table(label_shapes.long_form(tmp_path), **WHOLE)
    assert raw.read_as == (
        "a line a label: file = ImageID + .jpg in validation/, labels = LabelName, named by class-descriptions.csv,"
        " 1 present, 0 absent, all else unknown; 3 classes; 4 pictures"
    )
    found = {sample.id[-5:]: (sample.present, sample.unknown) for sample, _ in samples_of(raw)}
    assert found == {  # cat 0, cow 1, dog 2
        "a.jpg": ((0,), (1, 2)),
        "b.jpg": ((0, 2), (1,)),
        "c.jpg": ((2,), (1,)),
        "d.jpg": ((0, 1), (2,)),
    }


def test_a_picture_in_several_class_folders_has_all_labels(tmp_path):
    raw = read_table(label_shapes.class_folders(tmp_path), **WHOLE)
    assert raw.read_as == "a folder a class: cat, cow, dog; 3 classes; 4 pictures"
    assert counts_of(raw) == COUNTS
    assert raw.remarks == ["copies of other files: 2, read as one picture with them"]


def test_files_of_one_name_and_other_bytes_must_be_told(tmp_path):
    for number, label in enumerate(("cat", "dog")):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.jpg").write_bytes(jpeg(number))
    with pytest.raises(ValueError, match=r"--same-name one says that they are one picture"):
        read_table(tmp_path, **WHOLE)
    assert len(samples_of(read_table(tmp_path, same_name="several", **WHOLE))) == 2
    ((sample, _),) = samples_of(read_table(tmp_path, same_name="one", **WHOLE))
    assert sample.present == (0, 1)


def test_annotators_who_disagree_leave_a_label_unknown(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    answers = [[{"value": {"choices": ["cat", "dog"]}}], [{"value": {"choices": ["cat"]}}]]
    task = {"data": {"image": "a.jpg"}, "annotations": [{"result": result} for result in answers]}
    label_shapes.write(tmp_path / "e.json", label_shapes.json.dumps([task]))
    raw = read_table(tmp_path / "e.json", classes=["cat", "dog"], **WHOLE)
    ((sample, _),) = samples_of(raw)
    assert (sample.present, sample.unknown) == ((0,), (1,))


def test_labels_that_are_numbers_need_names(tmp_path):
    label_shapes.pictures(tmp_path, "a")
    path = label_shapes.write(tmp_path / "m.jsonl", '{"file_name": "a.jpg", "labels": [1]}')
    with pytest.raises(ValueError, match=r"the labels are numbers, .* --classes FILE"):
        read_table(path, **WHOLE)
    ((sample, _),) = samples_of(read_table(path, classes=["cat", "dog"], **WHOLE))
    assert sample.present == (1,)


def test_options_say_what_is_not_guessed(tmp_path):
    label_shapes.pictures(tmp_path, "abc")
    path = label_shapes.write(
        tmp_path / "t.csv", "Bild,Zweitbild,Inhalt", "a,x.jpg,cat/dog", "b,y.jpg,dog", "c,z.jpg,leer"
    )
    raw = read_table(
        path,
        file_column="Bild",
        labels_column="Inhalt",
        separator="/",
        extension="jpg",
        none_label="leer",
        **WHOLE,
    )
    assert {s.id: s.present for s, _ in samples_of(raw)} == {"a.jpg": (0, 1), "b.jpg": (1,), "c.jpg": ()}


def test_a_dry_run_says_how_and_builds_nothing(tmp_path, capsys):
    source = label_shapes.tags(tmp_path / "raw")
    main(["--dataset=table", f"--source={source}", f"--data-dir={tmp_path / 'data'}", "--dry-run",
          "--val-fraction=0", "--test-fraction=0"])  # fmt: skip
    out = capsys.readouterr().out
    assert out.startswith(
        "read as: file = image_name + .jpg in train-jpg/, labels = tags by blanks; 3 classes; 6 pictures\n"
    )
    assert "classes: cat, cow, dog" in out
    assert not (tmp_path / "data").exists()


def test_pictures_of_a_parquet_file_are_built(tmp_path):
    source = label_shapes.parquet(tmp_path / "raw")
    main(["--dataset=table", f"--source={source}", f"--data-dir={tmp_path}", "--name=p", "--processes=1",
          "--val-fraction=0", "--test-fraction=0"])  # fmt: skip
    manifest = load_manifest(tmp_path, "p")
    assert manifest.classes == CLASSES
    assert manifest.splits["train"].present == (3, 1, 2)


def test_a_label_of_one_row_among_thousands_is_named(tmp_path):
    rows = [f"{number}.jpg,{'cat' if number % 2 else 'dog'}" for number in range(1999)]
    path = label_shapes.write(tmp_path / "t.csv", "file,labels", *rows, "1999.jpg,dgo")
    raw = read_table(path, check_files=False)
    assert raw.remarks == [
        "suspicious: of 2,000 rows only one has the label `dgo` (line 2001). Did you mean `dog`? If it is misspelt,"
        " mend it; --classes FILE makes such a label an error"
    ]


def test_the_pictures_of_a_group_come_into_one_split(tmp_path):
    # 200 patients with 1 to 5 pictures each; every third has a finding in all of his.
    rows = [
        f"{patient}_{number}.jpg,{'nodule' if patient % 3 == 0 else 'clear'},p{patient}"
        for patient in range(200)
        for number in range(patient % 5 + 1)
    ]
    path = label_shapes.write(tmp_path / "t.csv", "file,labels,patient", *rows)
    raw = read_table(path, group_column="patient", check_files=False)
    assert "200 groups by patient, each in one split" in raw.remarks
    assert raw.grouped_by == "patient"
    splits, nodules, pictures = {}, Counter(), Counter()
    for sample, split in samples_of(raw):
        splits.setdefault(sample.id.partition("_")[0], set()).add(split)
        pictures[split] += 1
        nodules[split] += sample.present == (1,)
    assert all(len(found) == 1 for found in splits.values())
    assert pictures == {"train": 480, "validation": 60, "test": 60}
    assert {split: round(nodules[split] / pictures[split], 2) for split in pictures} == {
        "train": 0.33,
        "validation": 0.33,
        "test": 0.33,
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a.jpg,dog,p,train", "b.jpg,dog,p,test"], "line 3: the group 'p' is in train and in test"),
        (["a.jpg,dog,,train"], "line 2: the cell of its group is blank"),
    ],
)
def test_groups_that_cannot_be_kept_are_refused(tmp_path, rows, message):
    path = label_shapes.write(tmp_path / "t.csv", "file,labels,patient,split", *rows)
    with pytest.raises(ValueError, match=message):
        read_table(path, group_column="patient", check_files=False)


def test_columns_of_0_and_1_are_classes_whatever_their_names(tmp_path):
    path = label_shapes.write(tmp_path / "t.csv", "filename,class,tag,class2", "a.jpg,1,0,1", "b.jpg,0,1,1")
    raw = read_table(path, check_files=False, **WHOLE)
    assert raw.classes == ("class", "tag", "class2")


def test_folds_are_equal_stratified_and_keep_groups_together(tmp_path):
    # 200 patients with 1 to 5 pictures each, 600 in all; every third has a finding in all of his.
    rows = [
        f"{patient}_{number}.jpg,{'nodule' if patient % 3 == 0 else 'clear'},p{patient}"
        for patient in range(200)
        for number in range(patient % 5 + 1)
    ]
    path = label_shapes.write(tmp_path / "t.csv", "file,labels,patient", *rows)
    raw = read_table(path, group_column="patient", folds=5, check_files=False)
    fold_of, pictures, nodules = {}, Counter(), Counter()
    for sample, fold in samples_of(raw):
        fold_of.setdefault(sample.id.partition("_")[0], set()).add(fold)
        pictures[fold] += 1
        nodules[fold] += sample.present == (1,)
    assert pictures == {f"fold{number}": 120 for number in range(1, 6)}
    assert all(len(found) == 1 for found in fold_of.values())
    assert {fold: round(nodules[fold] / 120, 2) for fold in pictures} == dict.fromkeys(pictures, 0.33)


def test_a_test_split_may_stand_beside_folds(tmp_path):
    rows = [f"{number}.jpg,{'cat' if number % 2 else 'dog'}" for number in range(100)]
    path = label_shapes.write(tmp_path / "t.csv", "file,labels", *rows)
    raw = read_table(path, folds=10, test_fraction=0.2, check_files=False)
    counts = Counter(split for _, split in samples_of(raw))
    assert counts == {"test": 20} | {f"fold{number}": 8 for number in range(1, 11)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, r"`folds` must lie in \[2, 100\]. Received: 1"),
        ({"folds": 3, "val_fraction": 0.1}, "`--val-fraction` does nothing with `--folds`"),
        ({"folds": 5}, r"4 pictures, too few .* `fold\d` its share of 0.2. .*or fewer --folds"),
    ],
)
def test_folds_that_cannot_be_made_are_refused(tmp_path, options, message):
    path = label_shapes.write(tmp_path / "t.csv", "file,labels", *(f"{name}.jpg,dog" for name in "abcd"))
    with pytest.raises(ValueError, match=message):
        read_table(path, check_files=False, **options)


def test_splits_that_the_table_names_are_not_divided_into_folds(tmp_path):
    path = label_shapes.write(tmp_path / "t.csv", "file,labels,split", "a.jpg,dog,train", "b.jpg,dog,test")
    with pytest.raises(ValueError, match=r"names its splits \(test, train\), so `--folds`"):
        read_table(path, folds=2, check_files=False)
