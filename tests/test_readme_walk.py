"""The six commands of README.md, from one's own pictures to a phone, run as they stand there, on a tiny backbone."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
NAMES = ("red", "green", "blue", "yellow")
# Without a package of weights, and for a minute instead of an hour: word -> words in its place, and words to add.
SMALLER = {"efficientnet_lite0": ["tiny_resnet", "--weights", "none"], "160": ["32"]}
MORE = {"fit": ["--epochs", "2", "--batch-size", "8", "--top-n", "2"], "export": ["--pictures", "4"]}


@pytest.mark.slow
def test_own_pictures_reach_a_phone_in_six_commands(make_sample, tmp_path, monkeypatch, capsys):
    pytest.importorskip("ai_edge_litert")
    monkeypatch.chdir(tmp_path)
    photos = tmp_path / "photos"
    photos.mkdir()
    lines = ["file,labels"]
    for i in range(90):
        sample = make_sample("train", i % 18)
        name = "beach.jpg" if i == 0 else f"{i}.png"
        (photos / name).write_bytes(sample.image)
        lines.append(f"{name},{';'.join(NAMES[label] for label in sample.present)}")
    (photos / "labels.csv").write_text("\n".join(lines) + "\n")
    block = re.search(r"## From your own pictures.*?```bash\n(.*?)```", README, re.DOTALL)
    commands = [shlex.split(line)[1:] for line in block[1].splitlines()]
    assert len(commands) == 6
    for first, *words in commands[:-1]:
        assert first == "-m"
        module, *given = words
        smaller = [new for word in given for new in SMALLER.get(word, [word])]
        importlib.import_module(module).main([*smaller, *MORE.get(module.partition(".")[2], [])])
        assert "What next:" in capsys.readouterr().out
    preview = [sys.executable, str(ROOT / commands[-1][0]), *commands[-1][1:]]
    done = subprocess.run(preview, capture_output=True, text=True, check=True)
    assert "XNNPACK" not in done.stderr
    assert (tmp_path / "seen.png").is_file()
