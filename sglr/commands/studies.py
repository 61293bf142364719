"""Commands that run a study and follow it."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import click

from sglr.terminal import as_json, examples

if TYPE_CHECKING:
    from sglr.project.side_by_side import Ended

# Seconds: between two looks at how far items are, and until a stage that starts has a journal.
_LOOKS, _STARTING = 2, 10


@click.command(epilog=examples("sglr run", "sglr run --jobs 4", "sglr run evaluate@sglr-0 evaluate@at-0"))
@click.argument("items", nargs=-1)
@click.option(
    "-j", "--jobs", type=click.IntRange(min=1),
    help="Items at a time; default: one for each GPU, on a CPU one for each experiment.threads cores.",
)  # fmt: skip
def run(items: tuple[str, ...], jobs: int | None) -> None:
    """Run ITEMS and what they depend on (default: the whole study), several at a time.

    The results are those of `dvc repro`. What an item prints goes to .sglr/logs. Where one fails, all that do not
    depend on it still run.
    """
    from sglr import config
    from sglr.config.wording import counted, some
    from sglr.project import side_by_side

    study = side_by_side.to_run(Path(), items)
    if not study.items:
        click.echo("Everything is up to date.")
        return
    places = side_by_side.places(jobs, config.load("params.yaml").experiment.threads)[: len(study.items)]
    are = "is" if len(study.items) == 1 else "are"
    click.echo(f"{counted(len(study.items), 'item')} {are} not done; {len(places)} at a time.")
    with _Shown([item.name for item in study.items]) as shown:
        told = side_by_side.Told(shown.start, shown.end, shown.meanwhile, shown.stopping)
        failed, left_out = side_by_side.run(Path(), study, places, told)
    if failed:
        because = f"; left out: {some(left_out)}" if left_out else ""
        raise click.ClickException(f"failed: {some(failed)} (what each said is in {side_by_side.LOGS}){because}.")
    if anew := side_by_side.to_run(Path(), items).items:
        raise click.ClickException(
            f"params, code or data were edited meanwhile: {counted(len(anew), 'item')} must run again; `sglr status`"
            " says why."
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


class _Shown:
    """A line when an item starts or ends; on a terminal, below them one that says how far those at work are."""

    def __init__(self, items: list[str]) -> None:
        from tqdm import tqdm

        self._width = max(map(len, items))
        form = "{n_fmt} of {total_fmt} ended, {elapsed}: {desc}"
        self._bar = tqdm(total=len(items), bar_format=form, disable=None, leave=False, dynamic_ncols=True)
        self._looked = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def start(self, item: str, device: str | None) -> None:
        self._say(item, "started" + (f" on {device}" if device else ""))

    def end(self, ended: "Ended") -> None:
        from sglr.project.running import in_words
        from sglr.project.side_by_side import tail

        how = {"ran": "done", "cached": "from DVC's cache", "failed": "FAILED"}.get(ended.outcome, ended.outcome)
        busy = "another process is at work on it"
        self._say(ended.item, busy if how == "busy" else f"{how} after {in_words(ended.seconds)}")
        if ended.outcome == "failed":
            with self._bar.external_write_mode():
                click.echo(tail(ended.log), err=True)
        self._bar.update()

    def meanwhile(self, at_work: dict[str, float]) -> None:
        if not self._bar.disable and time.monotonic() - self._looked >= _LOOKS:
            self._looked = time.monotonic()
            self._bar.set_description_str("; ".join(f"{item} {_how_far(item, old)}" for item, old in at_work.items()))

    def stopping(self, items: list[str]) -> None:
        from sglr.config.wording import some

        with self._bar.external_write_mode():
            click.echo(f"stopping {some(items)}: they write their snapshots", err=True)

    def _say(self, item: str, text: str) -> None:
        with self._bar.external_write_mode():
            click.echo(f"{item:<{self._width}}  {text}")
        self._looked = 0.0


def _how_far(item: str, seconds: float) -> str:
    """The epoch of a tracked training, else since when an item is at work."""
    from sglr.project.running import in_words, progress

    # A new journal is not there at once, and an earlier one of that item may be.
    found = progress(Path(), item, None) if seconds > _STARTING else None
    return str(found) if found is not None and found.epoch is not None else f"for {in_words(seconds)}"
