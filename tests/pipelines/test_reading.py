"""Files that others wrote: read within bounds, or refused in one sentence that names them."""

import time

import pytest

from pipelines.reading import read_json, read_json_object, read_lines, read_text, read_yaml


def test_lines_end_at_line_feeds_alone(tmp_path):
    (tmp_path / "a.txt").write_bytes("a\u2028b\nc\rd\ve\x85f\n\n".encode())
    assert read_lines(tmp_path / "a.txt") == ("a\u2028b", "c\rd\ve\x85f", "")
    (tmp_path / "a.txt").write_text("no end")
    assert read_lines(tmp_path / "a.txt") == ("no end",)
    (tmp_path / "a.txt").write_text("")
    assert read_lines(tmp_path / "a.txt") == ()


@pytest.mark.parametrize("text", ["", "{", "nul", "[" * 10**6, '{"a": ' * 10**5, '{"a": 1, "a": 2}'])
def test_what_is_not_json_is_named(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json is damaged: it is n"):
        read_json(tmp_path / "a.json")


def test_an_object_is_asked_for(tmp_path):
    (tmp_path / "a.json").write_text('{"a": [1]}')
    assert read_json_object(tmp_path / "a.json") == {"a": [1]}
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(ValueError, match="must hold an object"):
        read_json_object(tmp_path / "a.json")


def test_what_is_too_large_or_no_text_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 11)
    with pytest.raises(ValueError, match="is larger than 10 bytes"):
        read_text(tmp_path / "a", 10)
    (tmp_path / "a").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="is not UTF-8"):
        read_text(tmp_path / "a")


ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ALIASES, "it holds an alias"),
        ("[" * 20_000, "nested too deep|is not YAML"),
        ("- " * 20_000, "nested too deep|is not YAML"),
        ("a: [", r"is not YAML: line 1, column 5: expected"),
        ("a: !!python/object/apply:os.system [ls]", "is not YAML"),
        ("a: 2020-99-99", "is not YAML"),
        ("a: " + "9" * 50_000, "is not YAML"),
        ("a: 1" + ":59" * 20_000, ""),
        ("a: " + "x" * 70_000, "is larger than 65,536 bytes"),
    ],
)
def test_yaml_that_would_fill_the_memory_is_refused_at_once(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    began = time.process_time()
    if message:
        with pytest.raises(ValueError, match=message):
            read_yaml(tmp_path / "a.yaml")
    else:
        read_yaml(tmp_path / "a.yaml")
    assert time.process_time() - began < 20


def test_plain_yaml_is_read(tmp_path):
    (tmp_path / "a.yaml").write_text("a: 1\nb: [2, 3.5]\nc: null\nd: text  # why\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": 1, "b": [2, 3.5], "c": None, "d": "text"}


def test_a_file_is_read_up_to_its_bound(tmp_path):
    file = tmp_path / "a.json"
    file.write_text("[1, 2]")
    assert read_json(file, 6) == [1, 2]
    with pytest.raises(ValueError, match=r"a\.json is damaged: it is larger than 5 bytes"):
        read_json(file, 5)
