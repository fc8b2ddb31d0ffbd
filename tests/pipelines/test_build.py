import pytest
from loading import loads
from scenes import noise

from pipelines import build


def test_the_command_reads_a_table_builds_it_verifies_and_describes_it(tmp_path, monkeypatch, capsys):
    source = tmp_path / "source"
    source.mkdir()
    for i in range(12):
        (source / f"{i}.jpg").write_bytes(noise(i))
    rows = [f"{i}.jpg,{'cat;dog' if i % 2 else 'cat'},{'test' if i > 8 else 'train'}" for i in range(12)]
    (source / "labels.csv").write_text("file,labels,split\n" + "\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path)
    build.main(["--dataset", "table", "--source", "source/labels.csv", "--name", "pets"])
    assert "train: 9 pictures" in capsys.readouterr().out
    build.main(["--dataset", "pets", "--verify", "--stats"])
    printed = capsys.readouterr().out
    assert "12 pictures" in printed
    assert "every byte as it was written" in printed
    # Pictures 0 to 8 are for training: nine cats, and dogs in 1, 3, 5 and 7.
    assert "train: 9 pictures, 1.44 labels each" in printed
    assert "2 labels: 4 (44.4%)" in printed
    assert [line.split() for line in printed.splitlines() if line.startswith("dog")] == [
        ["dog", "4", "0", "2", "0", "cat"]
    ]
    assert (tmp_path / "data" / "pets" / "stats.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "imagenet"], "must be one of digits, coco"),
        (["--dataset", "tabel"], r"voc2012, table. Received: 'tabel'. Did you mean `table`\?"),
        (["--dataset", "coco"], "`--source` must name the original files of coco"),
        (["--dataset", "digits", "--source", "x"], "does nothing for digits"),
        (["--dataset", "voc2007", "--source", "x", "--classes", "y"], "`--classes` does nothing for voc2007"),
        (["--dataset", "table", "--source", "tfds"], "TFDS is a source of coco"),
        (["--dataset", "nothing", "--verify"], "nothing is not there"),
        (["--processes", "0"], "`processes` must be at least 1"),
        (["--seed", "-1"], "`--seed` must be 0 or more. Received: -1"),
        (["--max-megapixels", "0"], r"`max-megapixels` must lie in \(0, 178\]. Received: 0"),
        (["--max-megapixels", "500"], r"`max-megapixels` must lie in \(0, 178\]. Received: 500"),
    ],
)
def test_a_wrong_option_is_one_sentence(words, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build.main([*words, "--data-dir", str(tmp_path)])


def test_help_comes_at_once_and_without_tensorflow():
    assert loads("pipelines.build", "--help") == []
