"""Adversarial training of one method and seed, from the seed's warm-up."""

import click

from sglr import data, training
from sglr.config.names import WEIGHTS
from stages.runtime import ARTIFACTS, stage


@click.command()
@click.argument("method")
@click.argument("seed", type=int)
def main(method: str, seed: int) -> None:
    """Train METHOD with SEED."""
    with stage("train", method=method, seed=seed, shared=True) as run:
        folder = ARTIFACTS / "train" / f"{method}-{seed}"
        prepared = data.open_folder(ARTIFACTS / "data")
        warmup = ARTIFACTS / "warmup" / str(seed)
        hooks, nproc = run.hooks(), run.training_processes()
        training.train(run.config, method, seed, prepared, warmup, folder, device=run.device, nproc=nproc, hooks=hooks)
        run.finish(folder, weights=folder / "last" / WEIGHTS)


if __name__ == "__main__":
    main()
