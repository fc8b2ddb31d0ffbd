"""A command that prints what few terminals can show."""

from pipelines.command import run_command

run_command(lambda: print("caf\udce9, \u732b"))
