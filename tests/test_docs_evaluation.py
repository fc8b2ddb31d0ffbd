"""The commands of docs/evaluation.md run as they stand there."""

import re
import shutil
from pathlib import Path

import pytest

from mcar_tf import benchmark_metrics, calibrate, compare, evaluate, report, sweep

PAGE = (Path(__file__).parent.parent / "docs" / "evaluation.md").read_text()
COMMANDS = {
    **{"evaluate": evaluate, "calibrate": calibrate, "report": report, "sweep": sweep},
    **{"compare": compare, "benchmark_metrics": benchmark_metrics},
}


@pytest.mark.slow
def test_the_pages_commands_run(tiny_run, tmp_path):
    blocks = re.findall(r"^```\n(python -m .*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    other = tmp_path / "other"
    done = []
    for line in lines:
        module, *words = line.removeprefix("python -m mcar_tf.").split()
        if {"--voc-results", "--coco-results"} & set(words):
            continue  # these need sets of their own: tests/test_evaluate.py
        if "OTHER_RUN" in words and not other.exists():
            shutil.copytree(tiny_run, other)
        # 576 px as in the paper would take this test a minute; the tiny set has four classes.
        places = {"RUN": str(tiny_run), "OTHER_RUN": str(other), "576": "64", "6": "4"}
        places |= {"top_n=0,1,2,4,6": "top_n=2", "selection=bottom,random,top": "selection=bottom"}
        COMMANDS[module].main([places.get(word, word) for word in words])
        done.append(module)
    assert done == [
        "evaluate",
        "calibrate",
        "evaluate",
        "report",
        "compare",
        *["evaluate"] * 5,
        *["sweep"] * 2,
        *["calibrate"] * 2,
        "report",
        "benchmark_metrics",
    ]
    assert sorted(folder.name for folder in (tiny_run / "evaluations").iterdir()) == [
        "test,calibrated",
        "test,flip",
        "test,image_size=64",
        "test,selection=random",
        "test,top_n=4,tau=0.3",
        "validation",
    ]
    assert (tiny_run / "report.html").is_file()
