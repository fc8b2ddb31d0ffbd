"""Read small text files that somebody else may have written, with limits on their size: JSON, YAML, lines.

Whatever is wrong with such a file, the error is one sentence that names the file.
"""

import collections
import json
from pathlib import Path
from typing import Any

from pipelines.files import naming

MOST_BYTES = 64 * 2**20  # of JSON; a run's largest file, its history, takes some hundred bytes per epoch
MOST_YAML_BYTES = 64 * 2**10  # of options; some forms of numbers in YAML take long to read


def read_text(path: Path, most_bytes: int = MOST_BYTES) -> str:
    """A file's text, UTF-8, its line ends as they are.

    Raises:
        ValueError: it is larger than `most_bytes`, or not UTF-8.
    """
    with path.open("rb") as file, naming(path):
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"{path} is damaged: it is larger than {most_bytes:,} bytes.")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: it is not UTF-8 ({error}).") from None


def read_lines(path: Path) -> tuple[str, ...]:
    r"""The lines of a text file, split at "\n" alone: a line may hold U+2028, U+0085, "\r" or a vertical tab."""
    lines = read_text(path).split("\n")
    return tuple(lines[:-1] if lines[-1] == "" else lines)


def read_json(path: Path, most_bytes: int = MOST_BYTES) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: it is not JSON, too large or nested too deeply, or gives a name two values.
    """
    text = read_text(path, most_bytes)
    try:
        return json.loads(text, object_pairs_hook=without_twins)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: it is not JSON ({error}).") from None
    except RecursionError:
        raise ValueError(f"{path} is damaged: it is nested too deeply.") from None


def without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON: the `object_pairs_hook` that refuses a name with two values, of which json keeps the last.

    Raises:
        ValueError: names it.
    """
    content = dict(pairs)
    if len(content) < len(pairs):
        (name, _), *_ = collections.Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"it holds `{name}` twice")
    return content


def read_json_object(path: Path) -> dict[str, Any]:
    """The content of a JSON file that holds an object: names and values.

    Raises:
        ValueError: see `read_json`; it holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} is damaged: it must hold an object, {{...}}. It holds {str(content)[:40]!r}."
        )
    return content


def read_yaml(path: Path) -> Any:
    """The content of a YAML file of plain values, lists and mappings.

    Raises:
        ValueError: it is not YAML, is too large or nested too deeply, gives a name two values, or repeats a value by
            an alias (`*name`); a few lines of aliases can make billions of values.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("it holds an alias, `*...`, where values stand by themselves")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names: set[str] = set()
            for name, _ in node.value:
                if str(name.value) in names:
                    raise yaml.YAMLError(f"it holds `{name.value}` twice")
                names.add(str(name.value))
            return super().construct_mapping(node, deep)

    text = read_text(path, MOST_YAML_BYTES)
    try:
        return yaml.load(text, Loader)
    except RecursionError:
        raise ValueError(f"{path} is damaged: it is nested too deeply.") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{path} is not YAML: {where}{error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())[:300]}") from None
