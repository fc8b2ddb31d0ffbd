"""Print which of the slow packages are loaded by importing modules, or by asking a command for its help.

what_loads.py MODULE [MODULE ...]     what_loads.py COMMAND --help
"""

import importlib
import runpy
import sys

SLOW = ("tensorflow", "keras", "apache_beam")

words = sys.argv[1:]
code: object = 0
if words[-1] == "--help":
    sys.argv = words
    try:
        runpy.run_module(words[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
else:
    for module in words:
        importlib.import_module(module)
print("loaded:", *(name for name in SLOW if name in sys.modules))
sys.exit(code)  # type: ignore[arg-type]
