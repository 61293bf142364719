"""Commands that use trained models."""

from pathlib import Path
from typing import Any

import click

from sglr.terminal import examples


@click.command(
    epilog=examples(
        "sglr predict seven.png --model artifacts/train/sglr-0/last",
        "sglr predict *.png --model artifacts/train/at-0/best --attack --eps 8 --output broken",
    ),
)
@click.argument("images", nargs=-1, required=True, type=click.Path())
@click.option("--model", "trained", required=True, type=click.Path(), help="Such as artifacts/train/<method>-<seed>.")
@click.option("--attack", is_flag=True, help="Attack each image too, in params.yaml's norm; saved in --output.")
@click.option(
    "--eps",
    type=click.FloatRange(min=0, min_open=True),
    help="Radius in 255ths, in params.yaml's norm, 1 or more; default: params.yaml's.",
)
@click.option("--steps", default=20, show_default=True, type=click.IntRange(min=1), help="PGD steps.")
@click.option("--output", default="adversarial", show_default=True, type=click.Path(), help="Folder of the PNG files.")
@click.pass_context
def predict(
    context: click.Context, images: tuple[str, ...], trained: str, attack: bool, eps: float | None, steps: int,
    output: str,
) -> None:  # fmt: skip
    """Classify IMAGES (files) with a trained model, with its confidence; on request, attack them.

    Classes are named if the data that the model was trained on is in artifacts/data, else numbered.
    The model is a folder with model.safetensors and model.json, a .safetensors file with its .json next to it, or the
    folder of a training, whose best model is used, or the last where there is no best.
    The prediction under attack is that of the saved PNG file: its pixels are whole numbers, and within the ball,
    whose radius under linf is therefore rounded down to a whole number of 255ths.
    """
    from tqdm import tqdm

    from sglr import image_files, predicting
    from sglr.config import load

    idle = [] if attack else [f"--{name}" for name in ("eps", "steps", "output") if _was_given(context, name)]
    if idle:
        raise click.UsageError(f"{' and '.join(idle)} without --attack: nothing is attacked or saved.")
    classifier = predicting.Classifier.load(Path(trained))
    attacking = None
    if attack:
        ball = load().threat
        radius = predicting.radius(ball.norm, ball.eps_255 if eps is None else eps)
        attacking = predicting.Attacking(ball.norm, radius, steps, image_files.targets(images, Path(output)))
    said = predicting.lines(map(Path, images), classifier, attacking)
    with tqdm(said, total=len(images), desc="predict", unit="image", disable=None, leave=False) as bar:
        for line in bar:
            with bar.external_write_mode():
                click.echo(line)


@click.command(
    epilog=examples(
        "sglr evaluate --weights theirs.pt --model resnet18",
        "sglr evaluate --weights theirs.pt --model wrn --option depth=28 --option width=10 --n-examples 1000",
        "sglr evaluate --weights theirs.pt --model preact_resnet18 --norm l2 --eps 127.5",
    ),
)
@click.option("--weights", required=True, type=click.Path(), help="safetensors or torch.save file; no code is run.")
@click.option("--model", "name", help="Architecture, as in params.yaml; not needed for a model of this project.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="Architecture option: --option depth=28.")
@click.option("--num-classes", type=click.IntRange(min=2), help="Classes of the test set; default: as in the data.")
@click.option(
    "--normalization", metavar="MEAN/STD", help="Per channel: 0.49,0.48,0.45/0.25,0.24,0.26; default: the file's."
)
@click.option("--key", help="Key of the state dict in the file, if it holds several.")
@click.option("--data", "folder", default="artifacts/data", show_default=True, type=click.Path(), help="Prepared data.")
@click.option("--npz", type=click.Path(), help="Test images from elsewhere instead: x_test and y_test.")
@click.option("--params", default="params.yaml", show_default=True, type=click.Path(), help="Threat model and suite.")
@click.option("--norm", type=click.Choice(["linf", "l2"]), help="Of the threat model; default: the params'.")
@click.option("--eps", type=float, help="Radius in 255ths, fractions too; default: the params'.")
@click.option("--n-examples", type=click.IntRange(min=1), help="Test examples, from the first; default: the params'.")
@click.option("--output", type=click.Path(), help="Folder of the results; default: in artifacts/foreign, by name.")
@click.option("--device", default="auto", envvar="SGLR_DEVICE", show_default=True, help="auto, cpu, cuda or cuda:1.")
@click.option("--nproc", default="auto", envvar="SGLR_NPROC", show_default=True, help="Processes that share the work.")
@click.pass_context
def evaluate(
    context: click.Context, weights: str, name: str | None, output: str | None, params: str, norm: str | None,
    eps: float | None, n_examples: int | None, **options: Any,
) -> None:  # fmt: skip
    """Evaluate the robustness of a model from elsewhere with the suite in params.yaml.

    The results go to artifacts/foreign/<file name>, those of a checkpoint's folder to <training>-<checkpoint> there,
    such as at-0-last; --norm and --eps are added to the name. A folder that holds results of other weights is refused.
    """
    from sglr import files, processes

    processes.let_threads_sleep()
    from sglr.exchange import evaluating
    from sglr.exchange.options import doubts, run, suite

    if options["npz"] is not None and _was_given(context, "folder"):
        raise click.UsageError("--data and --npz: use only one of them for the test images.")
    config = suite(params, norm=norm, eps=eps, n_examples=n_examples)
    for doubt in doubts(config):
        click.secho(f"warning: {doubt}", fg="yellow", err=True)
    ball = config.threat
    within = "" if norm is None and eps is None else f"-{ball.norm}-{ball.eps_255:g}"
    target = Path(output) if output else evaluating.default_folder(Path(weights), within)

    def say(checkpoint: str, accuracy: float, examples: int) -> None:
        click.echo(f"natural accuracy {accuracy:.2%} ({examples:,} test examples); the attacks follow", err=True)

    metrics = run(Path(weights), name, target, config, **options, on_natural=say)
    for note in files.read_json(target / "source.json")["notes"]:
        click.echo(f"weights: {note}", err=True)
    click.echo(f"{evaluating.table(metrics, ball)}\nwritten to {target}")


@click.command(
    epilog=examples(
        "sglr export artifacts/train/sglr-0 --output to-share",
        "sglr export artifacts/train/sglr-0 --checkpoint last --name Mine2026Robust --output to-share",
    ),
)
@click.argument("path", type=click.Path())
@click.option("--output", required=True, type=click.Path(), help="Folder to write into.")
@click.option("--name", help="Of the model and its files; default: from the folder and the checkpoint.")
@click.option("--checkpoint", type=click.Choice(["best", "last"]), help="Default: best if there is one, else last.")
def export(path: str, output: str, name: str | None, checkpoint: str | None) -> None:
    """Write a model for others to use: RobustBench, torch alone, this project, with a model card.

    PATH is a training folder (artifacts/train/<method>-<seed>), a checkpoint in it, or a folder of `sglr evaluate`.
    """
    from sglr.exchange import export

    written = export.export(path, output, name=name, checkpoint=checkpoint)
    click.echo("\n".join(map(str, written)))


def _was_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
