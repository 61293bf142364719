"""How the ``sglr`` command behaves on a terminal: commands in the order of use, errors in one message, a clean exit."""

import os
from typing import Any

import click

INTERRUPTED = 130
as_json = click.option("--json", "as_json", is_flag=True, help="For scripts: JSON instead of text.")


class Group(click.Group):
    """Commands listed by section in the order they were added.

    An error that a user can cause ends in one message and status 1, Ctrl-C in one line and status 130; anything else
    keeps its traceback. NO_COLOR also turns colours off on a terminal.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections: dict[str, list[str]] = {}

    def section(self, heading: str, *commands: click.Command) -> None:
        """Add commands under a heading of the help."""
        for command in commands:
            self.add_command(command)
            self.sections.setdefault(heading, []).append(str(command.name))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in self.sections.values() for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, names in self.sections.items():
            with formatter.section(section):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(200)) for name in names])

    def invoke(self, ctx: click.Context) -> Any:
        from sglr import processes

        processes.print_anything()
        if os.environ.get("NO_COLOR"):
            ctx.color = False
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\nstopped by Ctrl-C", err=True)
            ctx.exit(INTERRUPTED)
        except Exception as error:
            from sglr.config.errors import for_users  # here, so that `sglr --help` answers at once

            text = for_users(error)
            if text is None:
                raise
            raise click.ClickException(text) from error


def examples(*lines: str) -> str:
    """Commands to copy, as an epilog that click leaves unchanged."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
