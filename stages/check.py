"""Refuse a bad params.yaml before any earlier result is touched."""

import click

from sglr import config, files
from stages.runtime import ARTIFACTS, stage


@click.command()
def main() -> None:
    """Check params.yaml; the output never changes, so that nothing runs again because of it."""
    with stage("check", track=False) as run:
        for doubt in config.doubts(run.config):
            click.echo(f"params.yaml: {doubt}", err=True)
        files.write_text(ARTIFACTS / "check.txt", "params.yaml is valid\n")


if __name__ == "__main__":
    main()
