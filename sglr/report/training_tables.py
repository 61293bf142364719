"""Tables of what training did: to labels, to training examples, and at what cost."""

from collections.abc import Callable

from sglr.report.table import Row, Table, flat
from sglr.report.wording import ABSENT, count, number_spread, percent_spread, quoted


def labels(results: Row) -> Table:
    """How many labels refinement put right and wrong."""
    rows = tuple(
        (
            row["method"],
            count(row["noisy"]["mean"]), _of(row["recovered"], row["recovered_share"]),
            count(row["clean"]["mean"]), _of(row["corrupted"], row["corrupted_share"]),
            _spread(row["wrong_before"]), _spread(row["wrong_after"]),
        )
        for row in results["labels"]
    )  # fmt: skip
    return Table(
        "labels",
        "Refined labels after the last epoch, by their largest entry: counts (means over seeds) and percent.",
        ("method", "given label wrong", "of these recovered", "given label right", "of these corrupted", "wrong before",
         "wrong after"),
        rows, [flat(row) for row in results["labels"]],
    )  # fmt: skip


def memorisation(results: Row) -> Table:
    """Training examples with wrong and right given labels at the last epoch."""
    found = results["memorisation"]
    kept = [key for key in found[0] if key != "method" and any(row[key]["seeds"] for row in found)]
    rows = tuple(
        (
            row["method"],
            *(_spread(row[key], number_spread if key == "refined/entropy" else percent_spread) for key in kept),
        )
        for row in found
    )
    return Table(
        "memorisation",
        "Training examples at the last epoch: accuracy in percent of those with a wrong given label (noisy), against"
        " the given and the true one, and of the others (clean); mean entropy of the refined labels in nats. Under PGD"
        " images lead away from the given label: against the true one that is no robust accuracy.",
        ("method", *(key.replace("/", ", ").replace("_", " against ").replace("pgd", "PGD") for key in kept)),
        rows if kept else (), [flat(row) for row in found],
    )  # fmt: skip


def cost(results: Row) -> Table:
    """Passes through the network, as the report counts them."""
    columns = ("attack_forward", "attack_backward", "forward", "backward", "forwards", "backwards")
    rows = tuple(
        (
            row["method"],
            *(_passes(row["passes"][key]) if row["passes"] else ABSENT for key in columns),
            ABSENT if row["relative"] is None else f"{row['relative']:.2f} ×",
        )
        for row in results["cost"]
    )
    return Table(
        "cost",
        "Passes of one training example through the network per epoch of training, mean over the epochs; relative: all"
        f" passes, against those of {quoted(results['experiment']['baseline'])}.",
        ("method", "attack, forward", "attack, backward", "learning, forward", "learning, backward", "all forward",
         "all backward", "relative"),
        rows, [flat({**row, "passes": row["passes"] or {}}) for row in results["cost"]],
    )  # fmt: skip


def _passes(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _spread(found: Row, write: Callable[[float | None, float | None], str] = percent_spread) -> str:
    return write(found["mean"], found["deviation"])


def _of(found: Row, share: Row) -> str:
    return ABSENT if share["mean"] is None else f"{count(found['mean'])} ({_spread(share)}%)"
