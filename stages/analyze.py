"""Information-theoretic analysis of one trained method and seed."""

import click

from sglr import data, information
from stages.runtime import ARTIFACTS, stage


@click.command()
@click.argument("method")
@click.argument("seed", type=int)
def main(method: str, seed: int) -> None:
    """Analyse METHOD trained with SEED."""
    with stage("analyze", method=method, seed=seed, parent="train") as run:
        folder = ARTIFACTS / "analyze" / f"{method}-{seed}"
        trained = ARTIFACTS / "train" / f"{method}-{seed}"
        prepared = data.open_folder(ARTIFACTS / "data")
        start = ARTIFACTS / "warmup" / str(seed) / "model"
        result = information.analyze(
            run.config, prepared, trained, method, seed, device=run.device, warmup=start, on_cost=run.cost
        )
        information.write(result, folder)
        run.finish(folder, headline="information")


if __name__ == "__main__":
    main()
