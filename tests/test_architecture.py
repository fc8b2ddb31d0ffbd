"""The house rules of docs/architecture.md, read off the code's own import statements."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMANDS = {
    *("fit", "evaluate", "predict", "calibrate", "export", "report", "compare", "sweep"),
    *("benchmark", "benchmark_metrics"),
}

# module -> what of ours it may import. Commands may import everything but each other.
ALLOWED = {
    "pipelines": {"pipelines"},
    "mcar_tf.models": {"mcar_tf.models"},
    "mcar_tf.losses": set(),
    "mcar_tf.metrics": set(),
    "mcar_tf.keras_metrics": {"mcar_tf.metrics"},
    "mcar_tf.optimizers": set(),
    "mcar_tf.visualize": set(),
    "mcar_tf.submission": set(),
    "mcar_tf.splits": {"mcar_tf.config", "pipelines"},
    "mcar_tf.timing": set(),
    "mcar_tf.figures": {"mcar_tf.metrics"},
    "mcar_tf.report_page": set(),
    "mcar_tf.config": {"mcar_tf.models.backbone_table", "pipelines.command"},
    "mcar_tf.callbacks": {"mcar_tf.metrics", "mcar_tf.keras_metrics", "mcar_tf.visualize"},
    "mcar_tf.checkpoints": {"pipelines.records"},
    "mcar_tf.multi_worker": {"mcar_tf.signals"},
    "mcar_tf.evaluation": {"mcar_tf.metrics", "mcar_tf.models", "mcar_tf.visualize", "pipelines"},
    "mcar_tf.exporting": {
        "mcar_tf.config",
        "mcar_tf.exporting",
        "mcar_tf.metrics",
        "mcar_tf.models",
        "pipelines",
    },
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import; write the whole name"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("mcar_tf", "pipelines")}


def is_inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


FILES = sorted([*ROOT.glob("mcar_tf/**/*.py"), *ROOT.glob("pipelines/**/*.py")])


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_follow_the_table(path):
    name = module_name(path)
    if name.removeprefix("mcar_tf.") in COMMANDS:
        others = {f"mcar_tf.{c}" for c in COMMANDS} - {name}
        wrong = {i for i in imports_of(path) if any(is_inside(i, o) for o in others)}
    else:
        rule = next((rule for rule in ALLOWED if is_inside(name, rule)), None)
        if rule is None:
            return
        wrong = {i for i in imports_of(path) if not any(is_inside(i, a) for a in ALLOWED[rule])}
    assert not wrong, f"{name} imports {sorted(wrong)}"


def test_importing_the_config_loads_no_tensorflow():
    code = (
        "import sys, mcar_tf.config, pipelines.command;"
        "sys.exit(not {'tensorflow', 'keras'}.isdisjoint(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
