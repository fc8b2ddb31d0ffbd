"""Turn the bytes of a TFLite file into objects, and back."""

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools.flatbuffer_utils import read_model_from_bytearray

OP_NAMES = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}


def unpack(content: bytes) -> schema.ModelT:
    """A file's tables. Constants that some programs write after the tables are moved into them."""
    model = read_model_from_bytearray(bytearray(content))
    for buffer in model.buffers:
        if isinstance(buffer.data, bytes | bytearray):  # which `pack` would write byte by byte
            buffer.data = np.frombuffer(buffer.data, np.uint8)
    return model


def pack(model: schema.ModelT) -> bytes:
    """The bytes of the file."""
    builder = flatbuffers.Builder(2**20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def op_name(model: schema.ModelT, operator: schema.OperatorT) -> str:
    """An operator's name in TFLite's list, such as `CONV_2D`; `CUSTOM name` for one that is not built in."""
    code = model.operatorCodes[operator.opcodeIndex]
    name = OP_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]
    return f"{name} {code.customCode.decode()}" if name == "CUSTOM" else name
