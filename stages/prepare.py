"""Read the data, cut validation, inject label noise, write arrays that can be memory-mapped."""

import click

from sglr import data
from stages.runtime import ARTIFACTS, stage


@click.command()
def main() -> None:
    """Prepare artifacts/data from params.yaml's data section."""
    with stage("prepare") as run:
        meta = data.prepare(run.config.data, ARTIFACTS / "data")
        for sentence in data.seen_before(meta):
            click.echo(f"data: {sentence}", err=True)
        run.tracker.artifact(ARTIFACTS / "data" / "meta.json")


if __name__ == "__main__":
    main()
