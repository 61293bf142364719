"""Warm-up of one seed: natural training, or the shared first epochs of adversarial training."""

import click

from sglr import data, training
from stages.runtime import ARTIFACTS, stage


@click.command()
@click.argument("seed", type=int)
def main(seed: int) -> None:
    """Warm up SEED."""
    with stage("warmup", seed=seed, shared=True) as run:
        folder = ARTIFACTS / "warmup" / str(seed)
        prepared = data.open_folder(ARTIFACTS / "data")
        hooks, nproc = run.hooks(), run.training_processes()
        training.warm_up(run.config, seed, prepared, folder, device=run.device, nproc=nproc, hooks=hooks)
        run.finish(folder)


if __name__ == "__main__":
    main()
