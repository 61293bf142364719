"""The `sglr` command. Libraries are imported inside the commands, so that `sglr --help` answers at once."""

import sys

import click

import sglr


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(sglr.__version__)
def main() -> None:
    """Self-guided label refinement for adversarial training. The pipeline itself runs with `dvc repro`."""


@main.command()
@click.argument("path", default="params.yaml", type=click.Path())
def check(path: str) -> None:
    """Say whether a params file is valid."""
    from sglr import config

    try:
        settings = config.load(path)
    except config.ConfigError as error:
        raise click.ClickException(str(error)) from None
    methods, seeds = settings.experiment.methods, settings.experiment.seeds
    click.echo(f"{path} is valid: {len(methods)} methods ({', '.join(methods)}), {len(seeds)} seeds.")


@main.command()
def results() -> None:
    """Print the tables of the last report."""
    from pathlib import Path

    path = Path("artifacts/report/results.md")
    if not path.is_file():
        raise click.ClickException(f"there is no {path} here; run `dvc repro` in the project's folder first.")
    click.echo(path.read_text(encoding="utf-8"))


@main.command()
def sync() -> None:
    """Send to MLflow what could not be sent while runs went on."""
    from pathlib import Path

    from sglr import tracking

    click.echo(str(tracking.sync(Path())))


@main.command()
@click.argument("name", required=False)
@click.option("--dry-run", is_flag=True, help="Show the difference, write nothing.")
@click.option("--force", is_flag=True, help="Write without asking.")
def preset(name: str | None, dry_run: bool, force: bool) -> None:
    """List the presets, or make params.yaml the preset NAME after showing the difference."""
    from pathlib import Path

    from sglr import files, presets

    try:
        if name is None:
            click.echo(presets.listing())
            return
        change = presets.Change.to(name, Path("params.yaml"))
        if change.is_none:
            click.echo(f"params.yaml is the preset {name} already.")
            return
        for line in change.diff():
            click.secho(line, fg={"+": "green", "-": "red"}.get(line[:1]))
        if dry_run:
            return
        if change.objection and not force:
            if not sys.stdin.isatty():
                raise click.ClickException(f"{change.objection} Say --force to write it all the same.")
            click.confirm(f"{change.objection} Write it all the same?", abort=True)
        change.write()
    except (presets.PresetError, files.FileError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"params.yaml is now the preset {name}; `dvc repro` runs it.")


if __name__ == "__main__":
    main()
