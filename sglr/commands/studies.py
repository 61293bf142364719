"""Commands that run a study and follow it."""

import json
from pathlib import Path

import click

from sglr.terminal import as_json, examples


@click.command(epilog=examples("sglr run", "sglr run --jobs 4", "sglr run evaluate@sglr-0 evaluate@at-0"))
@click.argument("items", nargs=-1)
@click.option(
    "-j", "--jobs", type=click.IntRange(min=1),
    help="Items at a time; default: one for each GPU, on a CPU one for each experiment.threads cores.",
)  # fmt: skip
def run(items: tuple[str, ...], jobs: int | None) -> None:
    """Run ITEMS and what they depend on (default: the whole study), several at a time.

    The results are those of `dvc repro`. What an item prints goes to .sglr/logs; `sglr status` says how far those at
    work are. Where one fails, all that do not depend on it still run.
    """
    from sglr import config
    from sglr.config.wording import counted
    from sglr.project import side_by_side
    from sglr.project.running import in_words

    def started(item: str, device: str | None) -> None:
        click.echo(f"{item:<{width}}  started" + (f" on {device}" if device else ""))

    def ended(one: side_by_side.Ended) -> None:
        how = {"ran": "done", "cached": "from DVC's cache", "failed": "FAILED"}.get(one.outcome, one.outcome)
        click.echo(f"{one.item:<{width}}  {how} after {in_words(one.seconds)}")
        if one.outcome == "failed":
            click.echo(side_by_side.tail(Path(one.log)), err=True)

    threads = config.load("params.yaml").experiment.threads
    to_run = side_by_side.to_run(Path(), items)
    if not to_run:
        click.echo("Everything is up to date.")
        return
    places = side_by_side.places(jobs, threads)
    width = max(len(item.name) for item in to_run)
    click.echo(f"{counted(len(to_run), 'item')}, {len(places)} at a time.")
    failed = side_by_side.run(Path(), to_run, places, side_by_side.Told(started, ended))
    if failed:
        raise click.ClickException(
            f"failed or left out: {', '.join(failed)}; what each said is in {side_by_side.LOGS}."
        )
    click.echo("All done; `sglr results` prints the tables.")


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
