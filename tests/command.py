"""The ``sglr`` command, called within the test's process."""

from click.testing import CliRunner, Result

from sglr.cli import main


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))
