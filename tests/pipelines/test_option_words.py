"""What users read about options."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from test_architecture import COMMANDS

from pipelines.command import option, parse_options
from pipelines.option_words import explain, nearest_option


@dataclasses.dataclass
class Options:
    run: Path = option(dataclasses.MISSING, "The run folder.", group="what")
    image_size: int | None = option(None, "Side in px (default: the run's).", group="what")
    learning_rate: float = option(0.001, "How fast.", group="how")
    optimizer: Literal["sgd", "adamw"] = option("sgd", "Which.", group="how")
    fusion: Literal["max", "mean"] | None = option(None, "How.", group="how")
    band: list[float] | None = option(None, "Two.", group="how")
    drops: list[int] = option([30], "When.", group="how")
    out: Path | None = option(None, "Where.", group="how")
    xla: bool = option(False, "Compile.", group="how")


def ask(words, **more):
    return parse_options(Options, words, module="mcar_tf.x", description="Does x.", **more)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lr", "0.1"], "there is no option `--lr`. Did you mean `--learning-rate`?"),
        (["--image_size", "3"], "there is no option `--image_size`. Did you mean `--image-size`?"),
        (["--colour", "3"], "there is no option `--colour`."),
        (
            ["--optimizer", "adam"],
            "`--optimizer` must be one of sgd, adamw. Received: 'adam'. Did you mean `adamw`?",
        ),
        (["--fusion", "maxx"], "`--fusion` must be one of max, mean. Received: 'maxx'. Did you mean `max`?"),
        (
            ["--image-size", "100px"],
            "`--image-size` must be a whole number. Received: '100px'. Did you mean `100`?",
        ),
        (["--image-size", "1.5"], "`--image-size` must be a whole number. Received: '1.5'."),
        (["--image-size"], "`--image-size` needs a value: a whole number."),
        (
            ["--learning-rate", "0,1"],
            "`--learning-rate` must be a number. Received: '0,1'. Did you mean `0.1`?",
        ),
        (["--learning-rate", "1e-3x"], "Received: '1e-3x'. Did you mean `1e-3`?"),
        (["--learning-rate", "1", "2"], "`--learning-rate` takes one value. Received another: '2'"),
        (["--band", "0.1", "b"], "`--band` must be a number. Received: 'b'."),
        (["--xla", "maybe"], "`--xla` takes no value. Received: 'maybe'"),
        (["--xla=maybe"], "`--xla` takes no value: write --xla or --no-xla."),
        (["--config", "none.yaml"], "`--config`: there is no file 'none.yaml'."),
        (["--config", "/"], "`--config`: there is no file '/', which is a folder."),
        (["--config"], "`--config` needs a value: the path of a file of options."),
        (["--print_config=foo"], "`--print_config` takes no value. Received: 'foo'"),
        (["--learning-rate", "10%"], "must be a number. Received: '10%'. Did you mean `0.1`?"),
        (["--image-size", "64.0"], "must be a whole number. Received: '64.0'."),
        (["--band", "0.1,0.9"], "`--band` must be a number. Received: '0.1,0.9'. Did you mean `0.1 0.9`?"),
        (["--band", "0,1"], "`--band` must be a number. Received: '0,1'. Did you mean `0.1`?"),
        (["--drops", "3,5"], "`--drops` must be a whole number. Received: '3,5'. Did you mean `3 5`?"),
    ],
)
def test_a_mistake_gets_the_nearest_right_thing_in_one_line(words, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        ask(["--run", "x", *words])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"python -m mcar_tf.x: {said}") or line.find(f" {said}") > 0
    assert line.endswith(" (--help lists the options)")
    assert "typing." not in line
    assert "<class" not in line


def test_what_must_be_given_is_named(capsys):
    with pytest.raises(SystemExit, match="2"):
        ask([])
    assert capsys.readouterr().err.startswith("python -m mcar_tf.x: `--run` must be given.")
    with pytest.raises(SystemExit, match="2"):
        ask(["x"])
    assert "'x' is no option: options begin with --." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image_size: 5x", "`image_size` must be a whole number. Received: '5x'. Did you mean `5`?"),
        ("image_size: 5.0", "`image_size` must be a whole number. Received: 5.0. Did you mean `5`?"),
        ("lr: 3", "there is no option `lr`. Did you mean `learning_rate`?"),
        ("image-size: 5x", "`image-size` must be a whole number. Received: '5x'. Did you mean `5`?"),
        ("3: 4", "there is no option `3`."),
        (
            "drops: 3",
            "`drops` must be a list of values, each a whole number. Received: 3. Did you mean `[3]`?",
        ),
        ("drops: [3, x]", "`drops` must be a list of values, each a whole number. Received: [3, 'x']."),
        ("band: 0.1", "`band` must be a list of values, each a number. Received: 0.1. Did you mean `[0.1]`?"),
        ("xla: perhaps", "`xla` must be true or false. Received: 'perhaps'."),
        ("optimizer: adam", "must be one of sgd, adamw. Received: 'adam'. Did you mean `adamw`?"),
        ("out: 3", "`out` must be a path. Received: 3. Did you mean `'3'`?"),
    ],
)
def test_a_mistake_in_a_file_of_options_is_told_with_its_name(text, said, tmp_path, capsys):
    file = tmp_path / "x.yaml"
    file.write_text(f"learning_rate: 1e-3\n{text}\n")  # which YAML takes for a text
    for words in (["--config", str(file)], [f"--config={file}"]):
        with pytest.raises(SystemExit, match="2"):
            ask([*words, "--run", "x"])
        line = capsys.readouterr().err
        assert line.startswith(f"python -m mcar_tf.x: {file}: ")
        assert line.endswith(f"{said} (--help lists the options)\n")


def test_a_mistake_beside_a_file_that_is_right_is_told_without_it(tmp_path, capsys):
    (tmp_path / "x.yaml").write_text("learning_rate: 1e-3\nxla: yes\nband: [0, 1e-1]\nimage_size: null\n")
    words = ["--config", str(tmp_path / "x.yaml"), "--run", "x"]
    assert ask(words).band == [0.0, 0.1]
    with pytest.raises(SystemExit, match="2"):
        ask([*words, "--image-size", "5x"])
    assert ": `--image-size` must be a whole number. Received: '5x'." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "word", "meant"),
    [
        (["run", "images"], "runs/photos", "--run runs/photos"),
        (["run", "images"], "runs/lr0.5", "--run runs/lr0.5"),
        (["run", "images"], "cat.jpg", "--images cat.jpg"),
        (["dataset", "source"], "sets/photos", "--dataset photos"),
        (["dataset", "source"], "photos.csv", "--source photos.csv"),
    ],
)
def test_a_word_without_an_option_gets_the_one_that_it_is_for(names, word, meant):
    said = explain(f"unrecognized arguments: {word}", dict.fromkeys(names, Path), [word])
    assert said == f"{word!r} is no option: options begin with --. Did you mean `{meant}`?"


@pytest.mark.parametrize(
    ("name", "meant"),
    [("--wd", "weight-decay"), ("--bs", "batch-size"), ("--model", "backbone"), ("--epoch=3", "epochs")],
)
def test_names_of_other_programs_are_understood(name, meant):
    hints = dict.fromkeys(["weight_decay", "batch_size", "backbone", "epochs"], int)
    assert nearest_option(name, hints) == f" Did you mean `--{meant}`?"


def test_help_shows_defaults_in_words_and_those_of_the_recipe(capsys):
    def describe(given: Mapping[str, Any]) -> str:
        return f"Recipe of {given['run']}."

    with pytest.raises(SystemExit, match="0"):
        parse_options(
            Options,
            ["--run", "r", "--help"],
            module="mcar_tf.x",
            description=describe,
            defaults_of=lambda given: {"learning_rate": 0.005, "optimizer": "sgd", "fusion": "mean"},
        )
    lines = " ".join(capsys.readouterr().out.split())
    assert lines.startswith("usage: python -m mcar_tf.x --run PATH [options] Recipe of r.")
    assert (
        "what: --run PATH The run folder. (required) --image-size N Side in px (default: the run's)." in lines
    )
    assert "--learning-rate X How fast. (default: 0.005, by the recipe)" in lines
    assert "--optimizer {sgd,adamw} Which. (default: sgd)" in lines
    assert "--fusion {max,mean} How. (default: mean, by the recipe)" in lines
    assert "--band X [X ...] Two. --drops N [N ...] When. (default: 30) --out PATH Where. --xla" in lines
    assert "--xla, --no-xla Compile. (default: no)" in lines


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_no_help_speaks_of_pythons_types(command, capsys):
    import importlib

    with pytest.raises(SystemExit, match="0"):
        importlib.import_module(command).main(["--help"])
    text = capsys.readouterr().out
    for noise in ("typing.", "Optional[", "Literal[", "<class", "null:", "type:", "None"):
        assert noise not in text
