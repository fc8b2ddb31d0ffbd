"""A checkout in, its structure in numbers out: `python tests/helpers/house.py [FOLDER]`.

A *room* is what one sees at a glance: a module or a package right below `mcar_tf/`, and `pipelines/` likewise.
"""

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

SIDES = ("mcar_tf", "pipelines")


def modules_of(root: Path) -> dict[str, Path]:
    """Name -> file of every module of ours."""
    files = sorted(file for side in SIDES for file in (root / side).rglob("*.py"))
    return {".".join(f.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def imports_of(file: Path, modules: dict[str, Path]) -> set[str]:
    """The modules of ours that a file imports; a name imported from a module counts as that module."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: relative import; write the whole name"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else node.module for name in names}
    return found & set(modules)


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """The names along a circle of imports, or nothing."""
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> list[str]:
        if name in above:
            return [*above[above.index(name) :], name]
        for other in sorted(graph[name] - done - {name}):
            if circle := visit(other, (*above, name)):
                return circle
        done.add(name)
        return []

    return next((circle for name in graph if (circle := visit(name, ()))), [])


def code_lines(text: str) -> set[int]:
    """Numbers of the lines that hold code: no blank lines, comments or docstrings."""
    docstrings = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                docstrings |= set(range(body[0].lineno, (body[0].end_lineno or 0) + 1))
    passed_over = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in passed_over and token.type != tokenize.ENDMARKER:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return lines - docstrings


def functions_of(file: Path) -> Iterator[tuple[str, int]]:
    """Each function's name and its code lines."""
    text = file.read_text()
    lines = code_lines(text)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            yield node.name, len(lines & set(range(node.lineno, (node.end_lineno or 0) + 1)))


def main(root: Path) -> None:
    modules = modules_of(root)
    graph = {name: imports_of(file, modules) - {name} for name, file in modules.items()}

    def room(name: str) -> str:
        return ".".join(name.split(".")[:2])

    rooms = {name: {room(m) for m in modules if room(m) == name} for name in map(room, modules)}
    rooms = {name for name in rooms if name not in SIDES}
    arrows = {(room(a), room(b)) for a in graph for b in graph[a] if room(a) != room(b)}
    arrows = {(a, b) for a, b in arrows if a not in SIDES and b not in SIDES}
    for side in SIDES:
        own = [a for a in rooms if a.startswith(f"{side}.")]
        inside = [1 for a, b in arrows if a in own and b in own]
        print(f"{side}: {len(own)} rooms, {len(inside)} imports between them")
    print(f"from mcar_tf to pipelines: {sum(a[0] != b[0] for a, b in arrows)} imports between rooms")
    print(f"{len(modules)} modules, {sum(map(len, graph.values()))} imports between them")
    print(f"a circle of imports: {' -> '.join(find_circle(graph)) or 'none'}")
    sizes = {name: len(file.read_text().splitlines()) for name, file in modules.items()}
    print(
        f"{sum(sizes.values()):,} lines, {sum(len(code_lines(f.read_text())) for f in modules.values()):,} of code"
    )
    longest = sorted(sizes.items(), key=lambda item: -item[1])[:3]
    print("longest modules: " + ", ".join(f"{name} {lines}" for name, lines in longest))
    functions = [
        (count, f"{name}.{function}") for name, f in modules.items() for function, count in functions_of(f)
    ]
    print(
        "longest functions, code lines: " + ", ".join(f"{name} {n}" for n, name in sorted(functions)[:-4:-1])
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
