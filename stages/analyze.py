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
        result = information.analyze(run.config, prepared, trained, seed, device=run.device)
        information.write(result, folder)
        run.finish(folder, headline="information")


if __name__ == "__main__":
    main()
