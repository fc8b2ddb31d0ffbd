"""The bytes of a TFLite file in, its tables as objects out; and back."""

import flatbuffers
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools.flatbuffer_utils import read_model_from_bytearray

OP_NAMES = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}


def unpack(content: bytes) -> schema.ModelT:
    """A file's tables. Constants that lie behind them, as some programs write them, come inside."""
    return read_model_from_bytearray(bytearray(content))


def pack(model: schema.ModelT) -> bytes:
    """The bytes of a file."""
    builder = flatbuffers.Builder(2**20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def op_name(model: schema.ModelT, operator: schema.OperatorT) -> str:
    """An operator's name in TFLite's list, `CONV_2D`; what is not built in is `CUSTOM name`."""
    code = model.operatorCodes[operator.opcodeIndex]
    name = OP_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]
    return f"{name} {code.customCode.decode()}" if name == "CUSTOM" else name
