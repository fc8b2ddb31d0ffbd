"""The list of the commands: python -m mcar_tf."""

from pipelines.command import list_commands, run_command

run_command(lambda: list_commands("mcar_tf"))
