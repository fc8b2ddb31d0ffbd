"""The Python of docs/library.md and of the notebook runs as it stands there, on fewer pictures and epochs."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "library.md").read_text()
NOTEBOOK = json.loads((ROOT / "examples" / "library.ipynb").read_text())


@pytest.mark.slow
def test_the_pages_code_runs(untrained_run, tiny_set, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits-tiny_resnet").symlink_to(untrained_run)
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save("photo.jpg")
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 9
    names: dict = {"tiny_set": tiny_set, "__name__": "page"}
    for block in blocks:
        smaller = block.replace('Path("data"), "digits"', 'tiny_set, "tiny"').replace("range(6)", "range(1)")
        exec(smaller, names)
    assert names["probs"].shape == (8, 3)
    assert names["same"].optimizer.iterations == names["model"].optimizer.iterations
    assert (tmp_path / "exported" / "mcar-float32.tflite").is_file()


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_the_notebooks_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipelines.readers.digits.SCENES", {"train": 40, "validation": 4, "test": 8})
    cells = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    names: dict = {"__name__": "notebook"}
    for cell in cells[:-1]:
        exec(cell.replace("PICTURES, EPOCHS = 2000, 6", "PICTURES, EPOCHS = 100, 1"), names)
    loaded, answer = cells[-1].rsplit("\n", 1)
    exec(loaded, names)
    assert eval(answer, names)
    told = capsys.readouterr().out
    assert re.findall(r"^(\w+) +mAP", told, re.MULTILINE) == ["global_probs", "local_probs", "probs"]
    assert "0 {'loss': " in told


def test_the_notebook_is_small():
    assert len(json.dumps(NOTEBOOK)) < 100_000
