"""Every command in README.md and docs/ is one that its own parser takes, and every option named there exists."""

import contextlib
import importlib
import io
import re
import shlex
from pathlib import Path

import pytest

from mcar_tf import sweep
from mcar_tf.__main__ import COMMANDS
from mcar_tf.config import parse_fit_config

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "exported" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODULES = {name: module for commands in COMMANDS.values() for name, (module, _) in commands.items()}
# Options of programs that are not ours, and of the examples, which are run by tests/test_docs_export.py.
OF_OTHERS = {
    *("--logdir", "--rm", "--strict", "--directory", "--no-save", "--prefix", "--camera", "--rows"),
    *(
        "--tf_xla_persistent_cache_directory",
        "--xla_gpu_autotune_level",
        "--gpus-per-node",
        "--nodes",
        "--ntasks-per-node",
        "--requeue",
        "--labels",
        "--saved-model",
        "--url",
        "--npm",
    ),
    *("--clients", "--seconds", "--hostile", "--checks", "--exclude-checks", "--dist"),
    # Apache Beam's
    *("--runner", "--direct_num_workers", "--direct_running_mode", "--flink_master", "--environment_type"),
    *("--environment_config", "--parallelism", "--staging_location", "--temp_location", "--name"),
}
START = r"(?:python -m (mcar_tf|pipelines)\.(\w+)|(?<![\w`/-])mcar (\w+))"


class ParsedError(Exception):
    """A command has parsed its options; the test needs no more of it."""


def documented():
    """(page, module, words) of each command that stands in a block of code, or in a span with options."""
    found = []
    for page in PAGES:
        text = page.read_text()
        blocks = re.findall(r"^ *```\w*\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
        lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        prose = re.sub(r"^ *```\w*\n.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
        spans = [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", prose)]
        for text in [*lines, *(span for span in spans if " --" in span)]:
            match = re.search(START, text)
            if match and "..." not in text:
                module = f"{match[1]}.{match[2]}" if match[1] else MODULES[match[3]]
                words = shlex.split(re.split(r" [|;>&]|&&", text[match.end() :])[0], comments=True)
                found.append((page.name, module, words))
    return found


DOCUMENTED = documented()


def options_of(module):
    """The options that a command's help lists."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), pytest.raises(SystemExit):
        importlib.import_module(module).main(["--help"])
    return set(re.findall(r"--[a-z][\w-]*", text.getvalue()))


def test_every_command_is_documented():
    assert {module for _, module, _ in DOCUMENTED} == set(MODULES.values())


@pytest.mark.parametrize(
    ("module", "words"), sorted({(module, tuple(words)) for _, module, words in DOCUMENTED})
)
def test_a_documented_command_is_understood(module, words, monkeypatch):
    monkeypatch.chdir(ROOT)  # where configs/ is
    command = importlib.import_module(module)
    name = "parse_fit_config" if module == "mcar_tf.fit" else "parse_options"
    parse = getattr(command, name)

    def only_parse(*arguments, **named):
        parse(*arguments, **named)
        raise ParsedError

    monkeypatch.setattr(command, name, only_parse)
    with pytest.raises(ParsedError):
        command.main(list(words))
    if module == "mcar_tf.sweep":
        _, passed_on = sweep.split_words(list(words))
        parse_fit_config(passed_on)


def test_every_option_named_in_the_pages_exists():
    of_commands = set().union(*(options_of(module) for module in MODULES.values()))
    of_examples = {
        option
        for path in (ROOT / "examples").glob("*.py")
        for option in re.findall(r'add_argument\(\s*"(--[\w-]+)"', path.read_text())
    }
    known = of_commands | of_examples | OF_OTHERS
    unknown = {}
    for page in PAGES:
        named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", page.read_text()))
        if named - known:
            unknown[page.name] = sorted(named - known)
    assert unknown == {}
