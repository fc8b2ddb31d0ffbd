"""What docs/serving.md and docs/phones.md say: their commands run as they stand there, their tables are true."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from mcar_tf import benchmark, export

ROOT = Path(__file__).parent.parent
PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("serving", "phones")}
MODULES = {"mcar_tf.export": export, "mcar_tf.benchmark": benchmark}
# What no test can run here; the pages say so before each.
ELSEWHERE = {"sh", "kotlin", "swift"}


def blocks(page):
    """(language, text) of each block of a page."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", PAGES[page], re.DOTALL | re.MULTILINE)


@pytest.fixture
def places(tiny_run, tmp_path):
    """What stands for the pages' capital words: a finished run and a picture."""
    (tiny_run / "metrics.json").write_text(json.dumps({"test": {"images": 16}}))
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((60, 44)).save(tmp_path / "photo.png")
    places = {"RUN": tiny_run, "EXPORT": tmp_path / "exported", "PICTURE": tmp_path / "photo.png"}
    return {word: str(path) for word, path in places.items()} | {"seen.png": str(tmp_path / "seen.png")}


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_pages_commands_run(page, places, tmp_path, capsys):
    done = []
    for language, text in blocks(page):
        if language in ELSEWHERE:
            continue
        text = re.sub("|".join(places), lambda match: places[match[0]], text)
        program = tmp_path / "block.py"
        program.write_text(text)
        commands = (
            [[program]] if language == "python" else [shlex.split(line)[1:] for line in text.splitlines()]
        )
        for words in commands:
            if words[0] == "-m":
                MODULES[words[1]].main(words[2:])
            else:
                result = subprocess.run(
                    [sys.executable, *words], capture_output=True, text=True, check=False, cwd=ROOT
                )
                assert result.returncode == 0, result.stderr
                assert result.stdout
            done.append(words[1] if words[0] == "-m" else words[0])
    assert (
        done
        == {
            "serving": ["mcar_tf.export", "examples/serve_client.py", program, "mcar_tf.benchmark"],
            "phones": ["mcar_tf.export", "examples/phone_preview.py", "mcar_tf.benchmark"],
        }[page]
    )


@pytest.mark.parametrize("page", PAGES)
def test_what_was_not_run_is_said_not_to_have_been(page):
    before = re.split(r"^```\w*\n.*?^```$", PAGES[page], flags=re.DOTALL | re.MULTILINE)
    for (language, _), text in zip(blocks(page), before, strict=False):
        if language in ELSEWHERE - {"sh"}:
            assert "not been run here" in text.rsplit("\n## ", 1)[1]
    if any(language == "sh" for language, _ in blocks(page)):
        assert "has not been run here" in PAGES[page]


def test_the_apps_are_given_a_file_of_what_they_feed():
    (export_line,) = [
        line for _, text in blocks("phones") for line in text.splitlines() if "mcar_tf.export" in line
    ]
    words = shlex.split(export_line)
    apps = {language: text for language, text in blocks("phones") if language in ("kotlin", "swift")}
    assert set(apps) == {"kotlin", "swift"}
    assert "writeFloat(image)" in apps["kotlin"]
    assert "_ image: [Float32]" in apps["swift"]
    assert "--tflite-input" not in words  # floats unless told otherwise
    assert "mcar-int8.tflite" in apps["kotlin"]
    assert "int8" in words


def test_the_server_is_named_by_a_version_that_is_no_older_than_ours():
    service = yaml.safe_load((ROOT / "examples" / "compose.yaml").read_text())["services"]["mcar"]
    name, _, version = service["image"].partition(":")
    assert name == "tensorflow/serving"
    newest = re.search(r"tensorflow>=[\d.]+,<(\d+)\.(\d+)", (ROOT / "pyproject.toml").read_text())
    assert tuple(map(int, version.split(".")[:2])) >= (int(newest[1]), int(newest[2]) - 1)
    assert f"{service['image']}\n" in PAGES["serving"]
    assert {"healthcheck", "mem_limit", "cpus", "pids_limit"} <= set(service)
    assert "It has not been run here" in (ROOT / "examples" / "compose.yaml").read_text()


@pytest.mark.slow
def test_the_table_of_ops_is_that_of_mobilenet():
    from mcar_tf.exporting.tflite import convert_tflite, list_ops
    from mcar_tf.models.mcar import build_mcar

    options = {"image_size": 64, "weights": None, "backbone_width": 0.35}
    once = set(list_ops(convert_tflite(build_mcar(5, top_n=0, **options)))["global_only"])
    twice = set(list_ops(convert_tflite(build_mcar(5, **options)))["mcar"])
    (one_look,), (both_looks,) = (
        re.findall(rf"^\| {row}.*$", PAGES["phones"], re.MULTILINE)
        for row in ("`global_probs` of `global_only`", "`mcar`, besides")
    )
    told = [set(re.findall(r"\b[A-Z][A-Z0-9_]{2,}\b", line)) for line in (one_look, both_looks)]
    assert told == [once, twice - once]
