"""The list of the commands: python -m pipelines."""

from pipelines.command import list_commands, run_command

run_command(lambda: list_commands("pipelines"))
