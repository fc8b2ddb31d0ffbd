"""Read a pickle of tensors, dicts, lists and plain values safely: all else is refused, and none of its code is run.

A pickle is a program for a small virtual machine that can import and call anything it names. This module has its own
machine, for only those instructions that `torch.save` writes. Names refer to a table of functions that the caller
gives. Python's `Unpickler` would also reserve any amount of memory that a file of 20 bytes asks for.
"""

import io
import mmap
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, cast

# torch writes about 40 steps per tensor. Each step may take 100 bytes.
MOST_STEPS = 2_000_000
VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
STATED = {"BININT", "BININT1", "BININT2", "LONG1", "INT", "BINFLOAT", "FLOAT", "BINBYTES", "SHORT_BINBYTES"}
STATED |= {"BINUNICODE", "SHORT_BINUNICODE", "UNICODE", "BINSTRING", "SHORT_BINSTRING"}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class RefusedError(ValueError):
    """A pickle that asks for more than tensors and plain values."""


def read_pickle(
    file: io.BytesIO | mmap.mmap, names: Mapping[str, Any], load_storage: Callable[[tuple[Any, ...]], Any]
) -> Any:
    """Read one pickle, up to its end.

    Args:
        file: file in memory or mapped to memory, positioned at the beginning of the pickle.
        names: "module.name" -> its replacement here: a function of positional arguments, or a value.
        load_storage: returns the value for a persistent id, which torch writes for the memory of a tensor.

    Raises:
        RefusedError: the pickle uses any other name.
        ValueError: it is damaged, or not a pickle.
    """
    machine = _Machine(names, load_storage)
    try:
        for steps, (opcode, argument, _) in enumerate(pickletools.genops(cast(io.BytesIO, file))):
            if steps > MOST_STEPS:
                raise ValueError(f"it takes more than {MOST_STEPS:,} steps, which no file of weights needs")
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument)
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"it is damaged ({type(error).__name__} while reading it)") from error
    raise ValueError("it is cut off")


class _Machine:
    """The pickle machine: its stack, and the values stored for later use (the memo)."""

    def __init__(self, names: Mapping[str, Any], load_storage: Callable[[tuple[Any, ...]], Any]) -> None:
        self.names = names
        self.load_storage = load_storage
        self.stack: list[Any] = []
        self.aside: dict[int, Any] = {}

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("it is damaged")
        return value

    def pop_to_mark(self) -> list[Any]:
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def step(self, opcode: str, argument: Any) -> None:
        """Run one instruction, given by its name in `pickletools`."""
        stack = self.stack
        if opcode in STATED:
            stack.append(argument)
        elif opcode in VALUES:
            stack.append(VALUES[opcode])
        elif opcode in TUPLES:
            items = [self.pop() for _ in range(TUPLES[opcode])]
            stack.append(tuple(items[::-1]))
        elif opcode == "TUPLE":
            stack.append(tuple(self.pop_to_mark()))
        elif opcode == "EMPTY_DICT":
            stack.append({})
        elif opcode == "EMPTY_LIST":
            stack.append([])
        elif opcode == "MARK":
            stack.append(_MARK)
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.aside[argument] = stack[-1]
        elif opcode == "MEMOIZE":
            self.aside[len(self.aside)] = stack[-1]
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.aside[argument])
        elif opcode == "APPEND":
            self._append([self.pop()])
        elif opcode == "APPENDS":
            self._append(self.pop_to_mark())
        elif opcode == "SETITEM":
            value, key = self.pop(), self.pop()
            self._set([key, value])
        elif opcode == "SETITEMS":
            self._set(self.pop_to_mark())
        elif opcode in ("GLOBAL", "INST"):
            stack.append(self._find(argument.replace(" ", ".", 1)))
        elif opcode == "STACK_GLOBAL":
            name, module = self.pop(), self.pop()
            stack.append(self._find(f"{module}.{name}"))
        elif opcode == "BINPERSID":
            stack.append(self.load_storage(self.pop()))
        elif opcode == "REDUCE":
            arguments, function = self.pop(), self.pop()
            stack.append(function(*arguments))
        elif opcode == "BUILD":  # attributes, such as the version that torch notes on a state dict
            self.pop()
        elif opcode not in ("PROTO", "FRAME"):
            raise RefusedError(f"it wants the step {opcode}, which no tensor needs")

    def _append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise ValueError("it is damaged")
        target.extend(values)

    def _set(self, keys_and_values: list[Any]) -> None:
        target, keys = self.stack[-1], keys_and_values[::2]
        # No tuples as keys: hashing deeply nested ones that share parts can take for ever.
        if not isinstance(target, dict) or not all(isinstance(key, str | int) for key in keys):
            raise ValueError("it is damaged")
        target.update(zip(keys, keys_and_values[1::2], strict=True))

    def _find(self, name: str) -> Any:
        if name not in self.names:
            raise RefusedError(
                f"it wants {name[:200]}, which is neither a tensor nor a plain value. Nothing of it was run"
            )
        return self.names[name]
