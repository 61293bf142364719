"""Robustness evaluation of one trained method and seed."""

import click

from sglr import data, evaluation
from stages.runtime import ARTIFACTS, stage


@click.command()
@click.argument("method")
@click.argument("seed", type=int)
def main(method: str, seed: int) -> None:
    """Evaluate METHOD trained with SEED: best and last model, all attacks of the suite."""
    with stage("evaluate", method=method, seed=seed, parent="train") as run:
        folder = ARTIFACTS / "evaluate" / f"{method}-{seed}"
        trained = ARTIFACTS / "train" / f"{method}-{seed}"
        prepared = data.open_folder(ARTIFACTS / "data")
        result = evaluation.evaluate(
            run.config, prepared, trained, device=run.device, pieces=run.pieces(), nproc=run.evaluation_processes(),
            on_resume=run.say_continued, on_natural=run.say_natural,
        )  # fmt: skip
        evaluation.write(result, folder)
        run.finish(folder, headline="test")


if __name__ == "__main__":
    main()
