"""The `sglr` command. Libraries are imported inside the commands, so that `sglr --help` answers at once."""

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


if __name__ == "__main__":
    main()
