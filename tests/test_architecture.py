"""The house rules, read off the code's own import statements. This table is the only one; docs/architecture.md is
checked against it.
"""

import re
import tomllib
from pathlib import Path

import pytest
from house import find_circle, functions_of, imports_of, modules_of
from loading import loads

ROOT = Path(__file__).parent.parent

# Commands: options and `main`. They may import everything but each other, and nothing imports them.
COMMANDS = {
    *(
        f"mcar_tf.{name}"
        for name in (
            "fit",
            "evaluate",
            "predict",
            "calibrate",
            "export",
            "report",
            "compare",
            "serve",
            "audit",
        )
    ),
    *(
        f"mcar_tf.{name}"
        for name in ("sweep", "tradeoff", "benchmark", "benchmark_gpu", "benchmark_metrics", "import_run")
    ),
    "mcar_tf.predict_beam",
    *(f"pipelines.{name}" for name in ("build", "beam", "benchmark")),
}

# Module or package -> what of ours it may import beside itself; the longest name that fits a module counts.
# fmt: off
ALLOWED = {
    # What both sides need, and neither owns.
    "pipelines.allocator": set(),
    "pipelines.command": {"pipelines.allocator", "pipelines.option_words", "pipelines.words"},
    "pipelines.option_words": {"pipelines.words"},
    "pipelines.files": set(),
    "pipelines.typed": set(),
    "pipelines.reading": set(),
    "pipelines.words": set(),

    # Data.
    "pipelines": set(),
    "pipelines.__main__": {"pipelines.command"},
    "pipelines.augment": {"pipelines.policies"},
    "pipelines.benchmarking": {"pipelines"},
    "pipelines.building": {"pipelines.command", "pipelines.manifest", "pipelines.pictures", "pipelines.records",
                           "pipelines.samples"},
    "pipelines.building.outcome": {"pipelines.building", "pipelines.command", "pipelines.manifest",
                                   "pipelines.pictures", "pipelines.readers.registry", "pipelines.samples"},
    "pipelines.cache": {"pipelines.decode", "pipelines.manifest", "pipelines.pictures", "pipelines.records"},
    "pipelines.decode": {"pipelines.headers"},
    "pipelines.headers": set(),
    "pipelines.input_pipeline": {"pipelines.augment", "pipelines.decode", "pipelines.manifest", "pipelines.records",
                                 "pipelines.samples"},
    "pipelines.manifest": {"pipelines.readers.registry", "pipelines.samples"},
    "pipelines.pictures": {"pipelines.decode", "pipelines.headers", "pipelines.scans"},
    "pipelines.policies": set(),
    "pipelines.readers": {"pipelines.pictures", "pipelines.records", "pipelines.samples"},
    "pipelines.readers.registry": {"pipelines.command", "pipelines.readers", "pipelines.samples"},
    "pipelines.records": {"pipelines.manifest", "pipelines.pictures", "pipelines.samples"},
    "pipelines.samples": set(),
    "pipelines.scans": set(),
    "pipelines.stats": {"pipelines.input_pipeline", "pipelines.manifest"},
    "pipelines.variants": {"pipelines.decode", "pipelines.input_pipeline", "pipelines.manifest", "pipelines.records"},
    "pipelines.verify": {"pipelines.manifest", "pipelines.records"},

    # Model.
    "mcar_tf": {"pipelines"},
    "mcar_tf.__main__": {"mcar_tf", "pipelines.command"},
    "mcar_tf.answer_options": {"mcar_tf.evaluating.answer_files", "pipelines.command"},
    "mcar_tf.model_options": {"pipelines.command"},
    "mcar_tf.config": {"mcar_tf.model_options", "mcar_tf.models.backbone_table", "mcar_tf.models.band",
                       "mcar_tf.option_rules", "mcar_tf.training.recipes", "pipelines.command", "pipelines.samples"},
    "mcar_tf.auditing": {"mcar_tf.config", "mcar_tf.evaluating", "mcar_tf.models.mcar", "mcar_tf.option_rules",
                         "mcar_tf.reporting.drawing", "mcar_tf.reporting.page", "mcar_tf.runs", "pipelines"},
    "mcar_tf.auditing.cases": {"mcar_tf.evaluating.predictions"},
    "mcar_tf.metrics": set(),
    "mcar_tf.models": set(),
    "mcar_tf.option_rules": {"pipelines.samples"},
    "mcar_tf.training": {"mcar_tf.config", "mcar_tf.evaluating", "mcar_tf.metrics", "mcar_tf.models",
                         "mcar_tf.option_rules", "mcar_tf.reporting.drawing", "mcar_tf.reporting.examples",
                         "mcar_tf.runs", "pipelines"},
    "mcar_tf.training.losses": set(),
    "mcar_tf.training.optimizers": set(),
    "mcar_tf.training.recipes": set(),
    "mcar_tf.training.checkpoints": {"mcar_tf.runs.weights"},
    "mcar_tf.runs": {"mcar_tf", "mcar_tf.config", "mcar_tf.models", "pipelines.manifest", "pipelines.samples"},
    "mcar_tf.runs.loading": {"mcar_tf.config", "mcar_tf.evaluating", "mcar_tf.models", "mcar_tf.runs",
                             "pipelines.manifest"},
    "mcar_tf.runs.importing": {"mcar_tf.config", "mcar_tf.models", "mcar_tf.runs", "mcar_tf.training.checkpoints"},
    "mcar_tf.evaluating": {"mcar_tf.metrics", "pipelines"},
    "mcar_tf.evaluating.columns": {"mcar_tf.metrics"},
    "mcar_tf.bulk": {"mcar_tf.evaluating", "mcar_tf.serving.served_model", "pipelines"},
    "mcar_tf.reporting": {"mcar_tf.config", "mcar_tf.evaluating", "mcar_tf.metrics", "mcar_tf.runs", "pipelines"},
    "mcar_tf.reporting.drawing": {"mcar_tf.reporting.regions"},
    "mcar_tf.reporting.regions": set(),
    "mcar_tf.reporting.figures": {"mcar_tf.evaluating.columns", "mcar_tf.metrics"},
    "mcar_tf.reporting.page": set(),
    "mcar_tf.exporting": {"mcar_tf.config", "mcar_tf.model_options", "mcar_tf.evaluating.columns",
                          "mcar_tf.evaluating.looks", "mcar_tf.metrics",
                          "mcar_tf.models",
                          "mcar_tf.runs", "pipelines"},
    "mcar_tf.exporting.folder": set(),
    "mcar_tf.exporting.forms": {"mcar_tf.exporting", "mcar_tf.models"},
    "mcar_tf.exporting.litert_js": set(),
    "mcar_tf.exporting.pages": set(),
    "mcar_tf.serving": {"mcar_tf.exporting.folder", "mcar_tf.exporting.pages", "mcar_tf.runs.thresholds",
                        "pipelines.pictures"},
    "mcar_tf.serving.batching": set(),
    "mcar_tf.serving.guard": {"mcar_tf.serving.rest"},
    "mcar_tf.serving.rest": {"mcar_tf.serving.batching"},
    "mcar_tf.benchmarking.tradeoff": {"mcar_tf.benchmarking", "mcar_tf.evaluating", "mcar_tf.exporting",
                                      "mcar_tf.metrics", "mcar_tf.models", "mcar_tf.runs", "pipelines"},
    "mcar_tf.reporting.tradeoffs": {"mcar_tf.benchmarking.tradeoff", "mcar_tf.reporting.figures"},
    "mcar_tf.benchmarking": {"mcar_tf.exporting", "mcar_tf.models", "mcar_tf.training"},
    "mcar_tf.benchmarking.gpu_report": {"pipelines.command"},
    "mcar_tf.benchmarking.one_measurement": {"mcar_tf.benchmarking", "mcar_tf.models", "mcar_tf.runs.device"},
    "mcar_tf.benchmarking.torch_peer": set(),
}
# fmt: on


MODULES = modules_of(ROOT)
GRAPH = {name: imports_of(file, MODULES) for name, file in MODULES.items()}


# Every module may import these; that is what they are for.
EVERYBODYS = {"pipelines.files", "pipelines.reading", "pipelines.typed", "pipelines.words"}


def table() -> str:
    """The rules as the table of docs/architecture.md."""
    lines = ["| module | of ours, it imports |", "|---|---|"]
    for rule, allowed in ALLOWED.items():
        lines.append(f"| `{rule}` | {', '.join(f'`{name}`' for name in sorted(allowed)) or 'nothing'} |")
    return "\n".join(lines) + "\n"


def is_inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def rule_of(name: str) -> str | None:
    """The longest entry of the table that a module lies in; the two sides themselves speak for their `__init__`."""
    fitting = [rule for rule in ALLOWED if is_inside(name, rule) and (rule == name or "." in rule)]
    return max(fitting, key=len, default=None)


@pytest.mark.parametrize("name", [name for name in MODULES if name not in COMMANDS])
def test_imports_follow_the_table(name):
    rule = rule_of(name)
    assert rule, f"{name} has no rule: say in ALLOWED what it may import"
    permitted = ALLOWED[rule] | {rule} | EVERYBODYS
    wrong = {
        other
        for other in GRAPH[name]
        if not any(other == one if one == "mcar_tf" else is_inside(other, one) for one in permitted)
    }
    assert not wrong, f"{name} imports {sorted(wrong)}"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_nothing_imports_a_command(name):
    assert name in MODULES
    assert [other for other in MODULES if name in GRAPH[other]] == []


def test_nothing_is_unpickled():
    """A pickle runs the code of whoever wrote it. `pickletools` only reads what one says."""
    unpickling = re.compile(
        r"^\s*(import|from) (pickle|cloudpickle|dill|joblib|shelve)\b|allow_pickle=True", re.M
    )
    assert [
        name for name, file in MODULES.items() if unpickling.search(file.read_text(encoding="utf-8"))
    ] == []


def test_data_never_imports_the_model():
    for name in MODULES:
        if is_inside(name, "pipelines"):
            assert not [other for other in GRAPH[name] if is_inside(other, "mcar_tf")], name


def test_imports_make_no_circle():
    assert find_circle({name: others - {name} for name, others in GRAPH.items()}) == []


def test_no_function_is_too_long_to_read():
    long = {f"{name}.{function}": lines for name, f in MODULES.items() for function, lines in functions_of(f)}
    assert {name: lines for name, lines in long.items() if lines >= 80} == {}


def test_no_module_is_longer_than_400_lines():
    lengths = {name: len(file.read_text().splitlines()) for name, file in MODULES.items()}
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


def test_the_page_holds_the_table():
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert table() in page, f"docs/architecture.md lacks the table as it is now:\n{table()}"


def test_every_rule_is_of_something():
    missing = {rule for rule in ALLOWED if rule not in MODULES}
    missing |= {other for allowed in ALLOWED.values() for other in allowed if other not in MODULES}
    assert not missing


def test_importing_the_config_loads_no_tensorflow():
    assert loads("mcar_tf.config") == loads("pipelines.command") == []


def test_extras_that_are_named_exist():
    """Pip only warns of one that doesn't, and the tests that need it would be skipped."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {
        name
        for needed in extras.values()
        for own in needed
        if own.startswith("mcar-tf[")
        for name in own.removeprefix("mcar-tf[").rstrip("]").split(",")
    }
    assert named >= {"weights", "serve", "test"}
    assert named <= set(extras)


if __name__ == "__main__":  # renews the table in docs/architecture.md
    file = ROOT / "docs" / "architecture.md"
    old = re.search(r"^\| module \| of ours.*?\n(?!\|)", file.read_text(), re.M | re.S)
    assert old, f"{file} holds no table of imports"
    file.write_text(file.read_text().replace(old.group(), table()))
