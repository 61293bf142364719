"""Commands that follow a study."""

import json
from pathlib import Path

import click

from sglr.terminal import as_json, examples


@click.command(epilog=examples("sglr status", "watch -n 5 sglr status", "sglr status --json"))
@as_json
def status(as_json: bool) -> None:
    """List which items are done, running (epoch, time left), orphaned, interrupted, out of date and why, waiting, or
    not run."""
    from dataclasses import asdict

    from sglr.project import status as state

    colours = {"done": "green", "running": "cyan", "orphaned": "red", "not run": None}
    found = state.status(Path())
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    for name, line in state.lines(found):
        click.secho(line, fg=colours.get(name, "yellow"))
    done = sum(one.state == "done" for one in found)
    rest = "; `dvc repro` runs the rest." if done < len(found) else "."
    if not state.can_go_on(Path(), found):
        rest = "; fix params.yaml first: `sglr check` lists the errors."
    click.echo(f"{done} of {len(found)} items are done{rest}")
    if gone := state.restorable(Path(), found):
        back = "`dvc checkout` brings them back (`git checkout` each metrics.json)"
        click.echo(f"The last results of {', '.join(gone)} are in DVC's cache: {back}.")


@click.command(epilog=examples("sglr results", "sglr results --cost", "sglr results --json > results.json"))
@click.option("--cost", is_flag=True, help="Time and memory of every item instead, as last run on this machine.")
@as_json
def results(cost: bool, as_json: bool) -> None:
    """Print the tables of the last report, or what the runs cost."""
    from sglr.config.errors import UserError
    from sglr.project import status

    if cost:
        from sglr.tracking import costs

        found = costs.read(Path(), status.names(Path()))
        if not found:
            others = len(costs.read(Path()))
            raise click.ClickException(
                f"nothing of this study was run on this machine: {costs.RECORDS} has records of {others} other items."
                if others
                else f"there are no records in {costs.RECORDS} here: nothing was run on this machine."
            )
        click.echo(json.dumps(found, indent=2) if as_json else costs.table(found))
        return
    path = Path("artifacts/report", "results.json" if as_json else "results.md")
    if not path.is_file():
        raise click.ClickException(f"there is no {path} here; run `dvc repro` in the project's folder first.")
    click.echo(path.read_text(encoding="utf-8"))
    try:
        if status.is_outdated(Path(), "report"):
            click.echo("This report is out of date: `sglr status` says what has changed.", err=True)
    except UserError as error:
        click.echo(f"Cannot tell whether this report is up to date: {error}", err=True)
