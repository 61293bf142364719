"""A second look at the evaluated models of all methods and seeds together."""

import click

from sglr import data, evaluation
from stages.runtime import ARTIFACTS, remove_unlisted_items, stage


@click.command()
def main() -> None:
    """Score the kept adversarial images again, in this new process and on the other methods' models."""
    with stage("audit") as run:
        remove_unlisted_items(run.config)
        folder = ARTIFACTS / "audit"
        prepared = data.open_folder(ARTIFACTS / "data")
        result = evaluation.audit(run.config, prepared, ARTIFACTS, device=run.device)
        evaluation.write_audit(result, folder)
        run.finish(folder)


if __name__ == "__main__":
    main()
