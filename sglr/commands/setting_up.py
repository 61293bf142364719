"""Commands that set a study up."""

import json
import sys
from pathlib import Path

import click

from sglr.terminal import as_json, examples


@click.command(epilog=examples("sglr preset", "sglr preset cifar10-resnet18-sglr --dry-run", "sglr preset smoke"))
@click.argument("name", required=False)
@click.option("--dry-run", is_flag=True, help="Show the difference, write nothing.")
@click.option("--force", is_flag=True, help="Write without asking.")
def preset(name: str | None, dry_run: bool, force: bool) -> None:
    """List the named experiments, or write the one called NAME to params.yaml after showing the difference."""
    from sglr import presets

    if name is None:
        click.echo(presets.listing())
        return
    change = presets.Change.to(name, Path("params.yaml"))
    if change.is_none:
        click.echo(f"params.yaml already is the preset {name}.")
        return
    for line in change.diff():
        click.secho(line, fg={"+": "green", "-": "red"}.get(line[:1]))
    if dry_run:
        return
    if change.objection and not force:
        if not sys.stdin.isatty():
            raise click.ClickException(f"{change.objection} Use --force to write it anyway.")
        click.confirm(f"{change.objection} Write it anyway?", abort=True)
    change.write()
    click.echo(f"params.yaml is now the preset {name}; `dvc repro` runs it.")


@click.command(epilog=examples("sglr check", "sglr check other/params.yaml"))
@click.argument("path", default="params.yaml", type=click.Path())
def check(path: str) -> None:
    """Validate a params file and warn about values that are probably mistakes."""
    from sglr.config import doubts, load
    from sglr.config.wording import counted

    config = load(path)
    for doubt in doubts(config):
        click.secho(f"warning: {doubt}", fg="yellow", err=True)
    methods, seeds = config.experiment.methods, config.experiment.seeds
    click.echo(
        f"{path} is valid: {counted(len(methods), 'method')} ({', '.join(methods)}), {counted(len(seeds), 'seed')}."
    )


@click.command(epilog=examples("sglr doctor", "sglr doctor --json"))
@as_json
def doctor(as_json: bool) -> None:
    """Check versions, params, device, data, disk and tracking, and say what to do.

    Exit status 1 if something prevents a run.
    """
    from dataclasses import asdict

    from sglr import processes

    # What it times is a stage's work, which is done so.
    processes.let_threads_sleep()
    processes.keep_freed_memory()
    from sglr.doctor import examining

    colours = {"ok": "green", "warning": "yellow", "problem": "red"}
    found = examining.examine(Path())
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in found], indent=2))
    for finding in () if as_json else found:
        click.echo(f"{click.style(f'{finding.level:<8}', fg=colours[finding.level])} {finding.about:<9} {finding.text}")
    if examining.worst(found) == "problem":
        raise SystemExit(1)
