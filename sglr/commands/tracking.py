"""Commands for the runs in MLflow."""

from pathlib import Path

import click

from sglr.terminal import examples


@click.command(epilog=examples("sglr ui", "sglr ui --port 5001"))
@click.option(
    "--port", default=5000, envvar="PORT", show_default=True, type=click.IntRange(1, 65535), help="On 127.0.0.1."
)
def ui(port: int) -> None:
    """Say where the runs and their curves are in MLflow's UI, and serve it.

    A tracking server (MLFLOW_TRACKING_URI) serves it itself.
    """
    from sglr import config, tracking

    tracking.serve_ui(Path(), config.load().experiment.name, port, click.echo)


@click.command(epilog=examples("sglr register sglr-0", "sglr register sglr-0 --checkpoint last --name robust-digits"))
@click.argument("item", metavar="METHOD-SEED")
@click.option("--checkpoint", type=click.Choice(["best", "last"]), help="Default: best if there is one, else last.")
@click.option("--name", help="Of the registered model; default: <experiment>-<method>.")
def register(item: str, checkpoint: str | None, name: str | None) -> None:
    """Put a trained model into MLflow's model registry, with signature and input example, loadable without pickle.

    METHOD-SEED is an item of this project, such as sglr-0, or its folder (artifacts/train/sglr-0).
    """
    from sglr import config, tracking

    click.echo(tracking.register(Path(), config.load().experiment.name, item, checkpoint, name))


@click.command(epilog=examples("sglr sync", "sglr sync --end-interrupted"))
@click.option(
    "--end-interrupted", is_flag=True, help="Mark runs whose process was killed as KILLED; resuming reopens them."
)
def sync(end_interrupted: bool) -> None:
    """Send to MLflow what could not be sent during the runs.

    Exit status 1 if something is still missing.
    """
    from sglr import tracking

    report = tracking.sync(Path(), end_interrupted=end_interrupted)
    click.echo(str(report))
    if report.failed:
        raise SystemExit(1)
