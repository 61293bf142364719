"""Refuse a bad params.yaml before any earlier result is touched."""

import click

from sglr import files
from stages.runtime import ARTIFACTS, stage


@click.command()
def main() -> None:
    """Check params.yaml; the output never changes, so that nothing runs again because of it."""
    with stage("check", track=False):
        files.write_text(ARTIFACTS / "check.txt", "params.yaml is valid\n")


if __name__ == "__main__":
    main()
