"""How the ``sglr`` command behaves on a terminal: commands in the order of use, errors in one message, a clean exit."""

import os
from collections.abc import Callable
from typing import Any

import click

INTERRUPTED = 130


class Group(click.Group):
    """Commands listed by section in the order they were defined.

    An error that a user can cause ends in one message and status 1, Ctrl-C in one line and status 130; anything else
    keeps its traceback. NO_COLOR also turns colours off on a terminal.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections: dict[str, list[str]] = {}

    def of(self, section: str, **options: Any) -> Callable[[Callable[..., Any]], click.Command]:
        """Decorator: a command under a heading of the help."""

        def register(function: Callable[..., Any]) -> click.Command:
            command = click.command(**options)(function)
            self.add_command(command)
            self.sections.setdefault(section, []).append(str(command.name))
            return command

        return register

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
