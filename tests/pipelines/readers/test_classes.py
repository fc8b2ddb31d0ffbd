import pytest

from pipelines.readers.classes import COCO_CATEGORIES, COCO_CLASSES, VOC_CLASSES, read_class_names
from pipelines.words import nearest


def test_the_sets_have_their_numbers_of_classes():
    assert (len(set(VOC_CLASSES)), len(set(COCO_CLASSES))) == (20, 80)


def test_coco_classes_are_in_the_order_of_ids_and_vocs_alphabetical():
    assert list(COCO_CATEGORIES) == sorted(COCO_CATEGORIES)
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)
    # Ids that COCO reserved and never used.
    assert set(range(1, 91)) - set(COCO_CATEGORIES) == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


def test_class_names_are_one_a_line(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_bytes("\ufeffhot dog\r\n\r\n Käfer \r\n".encode())
    assert read_class_names(path) == ("hot dog", "Käfer")


@pytest.mark.parametrize(
    ("content", "message"), [(b"\n", "names no class"), (b"\xff\n", "is not UTF-8 text")]
)
def test_a_file_without_class_names_is_refused(tmp_path, content, message):
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_class_names(path)


def test_the_nearest_name_ends_the_sentence_or_nothing_does():
    assert nearest("dgo", ["cat", "dog"]) == " Did you mean `dog`?"
    assert nearest("xyz", ["cat", "dog"]) == ""
