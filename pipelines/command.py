"""What every command shares: options from a dataclass, one line for an error, exit codes, the list of commands."""

import ast
import contextlib
import dataclasses
import errno
import importlib
import io
import logging
import os
import signal
import sys
import tempfile
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from jsonargparse import ActionYesNo, ArgumentError, ArgumentParser

from pipelines.allocator import keep_freed_memory
from pipelines.files import file_of_full_disk, is_full_disk
from pipelines.option_words import (
    PlainFormatter,
    expected,
    expected_words,
    explain,
    metavar,
    nearest_option,
    single_kind,
    usage,
)
from pipelines.reading import read_yaml
from pipelines.words import spell, typed

Options = TypeVar("Options")

# What a user can put right: a wrong value, a missing, existing or unreadable file.
USER_ERRORS = (
    ValueError,
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
)
# What LiteRT says of each model that it loads.
NOISE = ("Created TensorFlow Lite XNNPACK delegate", "Initialized TensorFlow Lite runtime")
# TensorFlow's switch for cuDNN's channels-last kernels of BatchNorm in half precision on a GPU. Without it each such
# layer transposes its data to channels first and back (`fast_nhwc_batch_norm`, TensorFlow's fused_batch_norm_op.cc).
PERSISTENT = "TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT"
EXIT_OK, EXIT_INTERNAL, EXIT_USER, EXIT_SIGINT, EXIT_SIGTERM = 0, 1, 2, 130, 143


def option(default: Any, help: str, *, group: str = "options", **more: Any) -> Any:
    """A dataclass field that is also a command-line option: `image_size: int = option(256, "Side in px.")`.

    `was="side"` in `more` is a former name of the option, which is still accepted; a message then tells the new name.
    """
    metadata = {"help": help, "group": group, **more}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def parse_options(
    cls: type[Options],
    argv: Sequence[str] | None,
    *,
    module: str,
    description: str | Callable[[Mapping[str, Any]], str],
    defaults_of: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> Options:
    """Read the options of dataclass `cls`: from a command line, else from `--config FILE`, else its defaults.

    A field `image_size` is `--image-size` on the command line and `image_size:` in a YAML file. A `bool` is a pair
    `--flag` / `--no-flag`, a `list[...]` takes one or more values. `--print_config` prints the result as YAML.

    Args:
        cls: a dataclass whose fields are made by `option`.
        argv: the words of the command line, or None for this process's.
        module: what the user typed after `python -m`.
        description: what the command does, for `--help`; it may depend on the given values.
        defaults_of: the given values -> defaults that depend on them and replace the dataclass's.
    """
    parser = _make_parser(cls, module, description if isinstance(description, str) else "")
    words = _with_new_names(cls, sys.argv[1:] if argv is None else list(argv))
    _check_config_files(cls, words)
    if defaults_of:
        # Options that print and exit are left to the second parse, which knows these defaults.
        first = [
            word for word in words if not word.startswith("--print_config") and word not in ("-h", "--help")
        ]
        given = vars(parser.parse_args(first))
        _replace_defaults(parser, dict(defaults_of(given)))
        if callable(description):
            parser.description = description(given)
    values = vars(parser.parse_args(words))
    return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})  # type: ignore[arg-type]


def _replace_defaults(parser: "_Parser", defaults: dict[str, Any]) -> None:
    for action in parser._actions:
        if action.dest in defaults and action.dest != "recipe" and defaults[action.dest] != action.default:
            action.origin = ", by the recipe"  # type: ignore[attr-defined]
    parser.set_defaults(defaults)


def _with_new_names(cls: type[Any], words: list[str]) -> list[str]:
    """Replace former names of options in a command line by the present ones, and say so on standard error."""
    new_names = {
        f"--{spell(field.metadata['was'])}": f"--{spell(field.name)}"
        for field in dataclasses.fields(cls)
        if "was" in field.metadata
    }
    renamed = []
    for word in words:
        name, equals, value = word.partition("=")
        if name in new_names:
            print(f"`{name}` is now `{new_names[name]}`", file=sys.stderr)
        renamed.append(new_names.get(name, name) + equals + value)
    return renamed


def _check_config_files(cls: type[Any], words: Sequence[str]) -> None:
    """Refuse a file of options that jsonargparse, which names no file and knows no limits, would stumble over."""
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        path = Path(value if equals else "".join(words[place + 1 : place + 2]))
        if name == "--config" and path.is_file():
            options = read_yaml(path)
            if not isinstance(options, dict):
                raise ValueError(f"{path} holds no options: there must be one a line, such as `seed: 1`.")
            _refuse_empty(cls, options, str(path))


def _refuse_empty(cls: type[Any], values: Mapping[str, Any], where: str) -> None:
    """Refuse an option without a value, None to jsonargparse; `--print_config` writes what must be given so."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        may_be_none = field.default is None or type(None) in typing.get_args(hint) or _is_required(field)
        if field.name in values and values[field.name] is None and not may_be_none:
            raise ValueError(f"{where}: `{field.name}` is empty: it must be {expected_words(hint)}.")


def options_from(cls: type[Options], values: Mapping[str, Any], where: str) -> Options:
    """Turn options from a file into the dataclass, each with its declared type: a path becomes a `Path`.

    Args:
        cls: a dataclass whose fields are made by `option`. What `values` lacks keeps its default.
        values: name -> value, as YAML or JSON gives them.
        where: the file, for errors.

    Raises:
        ValueError: an option is not one of `cls`, or not of its type; names the file and the option.
    """
    _refuse_empty(cls, values, where)
    parser = _make_parser(cls, "", "", exit_on_error=False)
    try:
        parsed = vars(parser.parse_object(dict(values)))
    except (ArgumentError, TypeError, KeyError):
        # One by one, which takes twenty times as long, to find the one that is wrong.
        parsed = {name: _typed_option(parser, name, value, where) for name, value in values.items()}
    return cls(**{name: parsed[name] for name in values})


def _typed_option(parser: "_Parser", name: str, value: Any, where: str) -> Any:
    try:
        return parser.parse_object({name: value})[name]
    except (ArgumentError, TypeError, KeyError):
        hint = parser.hints.get(name)
        reason = (
            f"it must be {expected(hint, str(value))}"
            if hint
            else f"there is no such option.{nearest_option(name, parser.hints)}"
        )
        raise ValueError(f"{where}: `{name}: {value!r:.60}`: {reason}") from None


def _make_parser(cls: type[Any], module: str, description: str, **more: Any) -> "_Parser":
    hints = typing.get_type_hints(cls)
    needed = [field for field in dataclasses.fields(cls) if _is_required(field)]
    parser = _Parser(
        prog=typed(module),
        usage=usage(typed(module), needed, hints),
        description=description,
        formatter_class=PlainFormatter,
        **more,
    )
    parser.hints = hints
    parser._optionals.title = "help, and options from a file"
    parser.add_argument(
        "--config",
        action="config",
        metavar="PATH",
        help="YAML file of options, named as here but with underscores; null keeps the default. Options on the"
        " command line override the file.",
    )
    for action in parser._actions:
        if "--print_config" in action.option_strings:
            action.help, action.metavar = "Print all options and their values as such a file, and exit.", ""
    groups: dict[str, Any] = {}
    # What must be given comes first; the sort keeps the order otherwise.
    for field in sorted(dataclasses.fields(cls), key=lambda field: not _is_required(field)):
        title = field.metadata["group"]
        group = groups.get(title) or groups.setdefault(title, parser.add_argument_group(title))
        default = field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        required = _is_required(field)
        name = "--" + spell(field.name)
        kwargs: dict[str, Any] = {"help": field.metadata["help"], "default": None if required else default}
        hint = hints[field.name]
        item = next((a for a in typing.get_args(hint) if typing.get_origin(a) is list), hint)
        if single_kind(hint) is bool:
            kwargs["action"] = ActionYesNo(no_prefix="no-")
        elif typing.get_origin(item) is list:
            kwargs |= {"nargs": "+", "type": typing.get_args(item)[0], "metavar": metavar(hint)}
        else:
            kwargs |= {"type": hint, "metavar": metavar(hint)}
        if required:
            kwargs["required"] = True
        group.add_argument(name, **kwargs)
    return parser


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


class _Parser(ArgumentParser):
    """jsonargparse's parser, whose errors are one line in our words."""

    hints: dict[str, Any]
    words: Sequence[str] = ()

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, *more: Any, **named: Any
    ) -> Any:
        """Parse, and remember the words for errors about them."""
        self.words = args or ()
        return super().parse_args(args, *more, **named)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:
            super().error(message, ex)
        _fail(
            EXIT_USER,
            f"{self.prog}: {explain(_one_line(message), self.hints, self.words)} (--help lists the options)",
        )


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` and exit: with 0, 2 for the user's mistake, 1 for ours, 130 or 143 after a signal.

    Whatever goes wrong ends in one line on standard error. `MCAR_TF_TRACEBACK=1` shows the traceback too.
    """
    signal.signal(signal.SIGTERM, _raise_terminated)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal can't show must not be an error
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = main() or EXIT_OK
        sys.stdout.flush()
    except SystemExit:
        raise
    except KeyboardInterrupt:
        _fail(EXIT_SIGINT, "interrupted")
    except Terminated:
        _fail(EXIT_SIGTERM, "terminated")
    except BrokenPipeError:  # `... | head` closed our output: nobody's error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_OK
    except Exception as error:
        if os.environ.get("MCAR_TF_TRACEBACK") == "1":
            import traceback

            traceback.print_exc()
        _fail(*describe_error(error))
    sys.exit(code)


def list_commands(package: str) -> None:
    """Print the commands of a package, each with the first sentence of its file; nothing is imported."""
    (folder,) = importlib.import_module(package).__path__
    for path in sorted(Path(folder).glob("*.py")):
        module = ast.parse(path.read_text())
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in module.body):
            sentence = (ast.get_docstring(module) or "").partition("\n\n")[0]
            print(f"python -m {package}.{path.stem}\n    {_one_line(sentence)}")
    print("Each of them tells its options with --help.")


def _is_no_retracing(record: logging.LogRecord) -> bool:
    """Commands that load one model after another trace a function for each, and mean to."""
    return "tf.function retracing" not in record.getMessage()


def load_tensorflow() -> None:
    """Import TensorFlow, and hide what its C++ code then prints on standard error, which no log level stops.

    This takes seconds, so commands call it once their options are known to be right. GPU memory is taken only as it
    is needed, so that a second process finds room; main memory that was freed is kept for the next batch.
    """
    keep_freed_memory()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors are raised as Python exceptions anyway
    os.environ.setdefault(PERSISTENT, "1")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # overrides ~/.keras/keras.json, which is for other programs
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as swallowed:
        os.dup2(swallowed.fileno(), 2)
        try:
            fresh = "tensorflow" not in sys.modules
            import tensorflow

            tensorflow.get_logger().addFilter(_is_no_retracing)
            for gpu in tensorflow.config.list_physical_devices("GPU") if fresh else []:
                tensorflow.config.experimental.set_memory_growth(gpu, True)
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextlib.contextmanager
def without_noise() -> Iterator[None]:
    """Inside a `with` block, lines that other libraries print on standard error although all is well are left out.

    All other lines are printed at the end of the block.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            lines = held.read().decode(errors="replace").splitlines(keepends=True)
            sys.stderr.write("".join(line for line in lines if not any(noise in line for noise in NOISE)))


def describe_error(error: BaseException) -> tuple[int, str]:
    """The exit code and the one line that a user gets for an exception."""
    if is_full_disk(error):
        file = file_of_full_disk(error)
        where = f" while writing {file}" if file else ""
        return (
            EXIT_INTERNAL,
            f"error: the disk is full{where}. Free some space and run the same command again.",
        )
    if isinstance(error, OSError) and error.filename and error.strerror:
        theirs = isinstance(error, USER_ERRORS) or error.errno == errno.EROFS
        return EXIT_USER if theirs else EXIT_INTERNAL, f"error: {error.filename}: {error.strerror}"
    if isinstance(error, USER_ERRORS):
        return EXIT_USER, f"error: {_one_line(str(error))}"
    if is_out_of_memory(error):
        return EXIT_INTERNAL, (
            "error: out of memory. Lower --batch-size, --image-size or --top-n, or train with --low-memory."
            f" [{_one_line(str(error))[:200]}]"
        )
    if type(error).__name__ == "DataLossError":  # TensorFlow names neither the file nor what to do
        return EXIT_INTERNAL, (
            f"error: a shard of the prepared set is not what was written. `{typed('pipelines.build')} --verify` with"
            " its --dataset and --data-dir names it; --overwrite builds it anew; a --cache-dir can be deleted."
            f" [{_one_line(str(error))[-80:]}]"
        )
    return EXIT_INTERNAL, (
        f"internal error: {type(error).__name__}: {_one_line(str(error))[:400]}"
        " (MCAR_TF_TRACEBACK=1 shows where; please report it)"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the host or on a GPU, for which TensorFlow has several errors."""
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return True
    words = ("CUDA_ERROR_OUT_OF_MEMORY", "RESOURCE_EXHAUSTED", "_STATUS_ALLOC_FAILED")
    return type(error).__name__ in ("InternalError", "UnknownError") and any(w in str(error) for w in words)


class Terminated(BaseException):
    """SIGTERM arrived. Not an `Exception`, so that no `except Exception` catches it before the command ends."""


def _raise_terminated(signum: int, frame: types.FrameType | None) -> None:
    raise Terminated


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _fail(code: int, line: str) -> NoReturn:
    sys.stdout.flush()
    print(line, file=sys.stderr)
    sys.exit(code)
