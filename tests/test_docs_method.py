"""The commands of docs/method.md are ones that their modules take."""

import re
import shlex
from pathlib import Path

import pytest

from mcar_tf import benchmark, compare, evaluate, report, sweep
from mcar_tf.config import parse_fit_config
from pipelines.command import parse_options

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "method.md").read_text()
COMMANDS = re.findall(r"(?:`|^)(python -m [^`\n]+)", PAGE, re.MULTILINE)
OPTIONS = {
    "benchmark": benchmark.BenchmarkOptions,
    "compare": compare.CompareOptions,
    "evaluate": evaluate.EvaluateOptions,
    "report": report.ReportOptions,
    "sweep": sweep.SweepOptions,
}


def test_the_page_holds_a_command_for_each_table_and_figure():
    modules = {command.split()[2].removeprefix("mcar_tf.") for command in COMMANDS}
    assert modules >= {"fit", *OPTIONS}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_pages_commands_are_understood(command, monkeypatch):
    monkeypatch.chdir(ROOT)  # where configs/ is
    module, *words = shlex.split(command.removeprefix("python -m mcar_tf."))
    if module == "fit":
        parse_fit_config(words)
        return
    own, passed_on = sweep.split_words(words)
    options = parse_options(OPTIONS[module], own, module=f"mcar_tf.{module}", description="")
    if module == "benchmark":
        benchmark.check(options)
    if module == "sweep":
        for name, values in sweep.parse_varied(options.vary).items():
            for value in values:
                varied = [f"--{name.replace('_', '-')}", value]
                if options.run is None:
                    parse_fit_config([*passed_on, *varied])
                else:
                    parse_options(
                        evaluate.EvaluateOptions, ["--run", "RUN", *varied], module="", description=""
                    )
