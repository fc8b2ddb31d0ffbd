"""The Python of docs/library.md runs as it stands there, on a smaller set and for one epoch."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

PAGE = (Path(__file__).parent.parent / "docs" / "library.md").read_text()


def test_the_pages_code_runs(untrained_run, tiny_set, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits-tiny_resnet").symlink_to(untrained_run)
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save("photo.jpg")
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 6
    names: dict = {"tiny_set": tiny_set}
    for block in blocks:
        smaller = block.replace('Path("data"), "digits"', 'tiny_set, "tiny"').replace("range(6)", "range(1)")
        exec(smaller, names)
    assert names["probs"].shape == (8, 3)
    assert (tmp_path / "exported" / "mcar-float32.tflite").is_file()
