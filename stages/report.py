"""The comparison of all methods and seeds: tables, figures, the page."""

import click

from sglr import report
from stages.runtime import ARTIFACTS, stage


@click.command()
def main() -> None:
    """Write artifacts/report from the outputs of the other stages."""
    with stage("report") as run:
        folder = ARTIFACTS / "report"
        summary = report.write(run.config, ARTIFACTS, folder)
        run.tracker.artifact(folder)
    click.echo(summary)
    click.echo(f"The report: {folder / 'index.html'}    The runs: make ui    Their cost: sglr results --cost")


if __name__ == "__main__":
    main()
