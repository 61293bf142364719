"""The `sglr` command. Libraries are imported inside the commands, so that `sglr --help` answers at once."""

import json
import sys
from typing import Any

import click

import sglr
from sglr.terminal import Group, examples

SET_UP, FOLLOW, USE, TRACK = "Set up", "Follow a study", "Use the models", "Tracking"
as_json = click.option("--json", "as_json", is_flag=True, help="For scripts: JSON instead of text.")


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples("sglr preset smoke && dvc repro", "sglr status", "sglr results"),
)
@click.version_option(sglr.__version__)
def main() -> None:
    """Self-guided label refinement for adversarial training.

    The pipeline itself runs with `dvc repro`. Exit status: 0 done, 1 an error or a problem found, 2 an
    invalid command, 130 stopped by Ctrl-C.
    """


@main.of(SET_UP, epilog=examples("sglr preset", "sglr preset cifar10-resnet18-sglr --dry-run", "sglr preset smoke"))
@click.argument("name", required=False)
@click.option("--dry-run", is_flag=True, help="Show the difference, write nothing.")
@click.option("--force", is_flag=True, help="Write without asking.")
def preset(name: str | None, dry_run: bool, force: bool) -> None:
    """List the named experiments, or write the one called NAME to params.yaml after showing the difference."""
    from pathlib import Path

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


@main.of(SET_UP, epilog=examples("sglr check", "sglr check other/params.yaml"))
@click.argument("path", default="params.yaml", type=click.Path())
def check(path: str) -> None:
    """Validate a params file and warn about values that are probably mistakes."""
    from sglr import config
    from sglr.config.wording import counted

    settings = config.load(path)
    for doubt in config.doubts(settings):
        click.secho(f"warning: {doubt}", fg="yellow", err=True)
    methods, seeds = settings.experiment.methods, settings.experiment.seeds
    click.echo(
        f"{path} is valid: {counted(len(methods), 'method')} ({', '.join(methods)}), {counted(len(seeds), 'seed')}."
    )


@main.of(SET_UP, epilog=examples("sglr doctor", "sglr doctor --json"))
@as_json
def doctor(as_json: bool) -> None:
    """Check versions, params, device, data, disk and tracking, and say what to do.

    Exit status 1 if something prevents a run.
    """
    from dataclasses import asdict
    from pathlib import Path

    from sglr import processes

    # What it times is a stage's work, which is done so.
    processes.let_threads_sleep()
    processes.keep_freed_memory()
    from sglr.doctor import examining as examination

    colours = {"ok": "green", "warning": "yellow", "problem": "red"}
    found = examination.examine(Path())
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in found], indent=2))
    for finding in () if as_json else found:
        click.echo(f"{click.style(f'{finding.level:<8}', fg=colours[finding.level])} {finding.about:<9} {finding.text}")
    if examination.worst(found) == "problem":
        raise SystemExit(1)


@main.of(FOLLOW, epilog=examples("sglr status", "watch -n 5 sglr status", "sglr status --json"))
@as_json
def status(as_json: bool) -> None:
    """List which items are done, running (epoch, time left), orphaned, interrupted, out of date and why, waiting, or
    not run."""
    from dataclasses import asdict
    from pathlib import Path

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


@main.of(FOLLOW, epilog=examples("sglr results", "sglr results --cost", "sglr results --json > results.json"))
@click.option("--cost", is_flag=True, help="Time and memory of every item instead, as last run on this machine.")
@as_json
def results(cost: bool, as_json: bool) -> None:
    """Print the tables of the last report, or what the runs cost."""
    from pathlib import Path

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


@main.of(
    USE,
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
    from pathlib import Path

    from tqdm import tqdm

    from sglr import config, image_files, predicting

    idle = [] if attack else [f"--{name}" for name in ("eps", "steps", "output") if _was_given(context, name)]
    if idle:
        raise click.UsageError(f"{' and '.join(idle)} without --attack: nothing is attacked or saved.")
    chosen = predicting.checkpoint(Path(trained))
    model, shape, number = predicting.load(chosen)
    names = predicting.class_names(chosen, number)
    threat = config.load().threat if attack else None
    radius = predicting.radius(threat.norm, threat.eps_255 if eps is None else eps) if threat is not None else 0.0
    targets = image_files.targets(images, Path(output)) if attack else {}
    with tqdm(list(map(Path, images)), desc="predict", unit="image", disable=None, leave=False) as bar:
        for path in bar:
            x, done = image_files.read_image(path, shape)
            lines = [f"{path}{f' ({done})' if done else ''}: {_shown(predicting.predict(model, x), names)}"]
            if threat is not None:
                x_adv = predicting.attacked(model, x, norm=threat.norm, eps_255=radius, steps=steps)
                image_files.save_image(x_adv, targets[path])
                shown = _shown(predicting.predict(model, x_adv), names)
                moved = predicting.changed_by(x, x_adv, threat.norm)
                change = f"changed by {moved:.4g}/255" if moved else "unchanged in whole 255ths"
                lines.append(f"  under PGD-{steps}, {threat.norm} {radius:g}/255, {change}: {shown} -> {targets[path]}")
            with bar.external_write_mode():
                click.echo("\n".join(lines))


def _was_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT


def _shown(found: Any, names: list[str]) -> str:
    return ", ".join(f"{names[c]} {p:.1%}" for c, p in zip(found.classes, found.probabilities, strict=True))


@main.of(
    USE,
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
@click.option("--normalization", metavar="MEAN/STD", help="Per channel: 0.49,0.48,0.45/0.25,0.24,0.26; default: none.")
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
    from pathlib import Path

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


@main.of(
    USE,
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


@main.of(TRACK, epilog=examples("sglr ui", "sglr ui --port 5001"))
@click.option(
    "--port", default=5000, envvar="PORT", show_default=True, type=click.IntRange(1, 65535), help="On 127.0.0.1."
)
def ui(port: int) -> None:
    """Say where the runs and their curves are in MLflow's UI, and serve it.

    A tracking server (MLFLOW_TRACKING_URI) serves it itself.
    """
    from pathlib import Path

    from sglr import config, tracking

    tracking.serve_ui(Path(), config.load().experiment.name, port, click.echo)


@main.of(TRACK, epilog=examples("sglr register sglr-0", "sglr register sglr-0 --checkpoint last --name robust-digits"))
@click.argument("item", metavar="METHOD-SEED")
@click.option("--checkpoint", type=click.Choice(["best", "last"]), help="Default: best if there is one, else last.")
@click.option("--name", help="Of the registered model; default: <experiment>-<method>.")
def register(item: str, checkpoint: str | None, name: str | None) -> None:
    """Put a trained model into MLflow's model registry, with signature and input example, loadable without pickle.

    METHOD-SEED is an item of this project, such as sglr-0, or its folder (artifacts/train/sglr-0).
    """
    from pathlib import Path

    from sglr import config, tracking

    click.echo(tracking.register(Path(), config.load().experiment.name, item, checkpoint, name))


@main.of(TRACK, epilog=examples("sglr sync", "sglr sync --end-interrupted"))
@click.option(
    "--end-interrupted", is_flag=True, help="Mark runs whose process was killed as KILLED; resuming reopens them."
)
def sync(end_interrupted: bool) -> None:
    """Send to MLflow what could not be sent during the runs.

    Exit status 1 if something is still missing.
    """
    from pathlib import Path

    from sglr import tracking

    report = tracking.sync(Path(), end_interrupted=end_interrupted)
    click.echo(str(report))
    if report.failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
