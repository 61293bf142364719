"""Tables of accuracies: methods and seeds, their differences, published ones, images made for another model."""

from collections.abc import Iterator

from sglr.evaluation.worst import explained, row_title
from sglr.report.table import Row, Table, deviations, flat
from sglr.report.wording import ABSENT, bounds, interval, joined, percent, percent_spread, quoted

DIFFERENCES = {
    "gap_reduction": "gap of {baseline} − gap",
    "last_gain": "last − last of {baseline}",
    "last_over_best": "last − best of {baseline}",
    "best_gain": "best − best of {baseline}",
}


def accuracy(results: Row) -> Table:
    """Accuracies by attack and method, at best and last epoch, with the gap."""
    has_best = any(row["best"] for row in results["accuracy"])
    rows, records = [], []
    for row in _like_for_like(results):
        shown = [percent_spread(**row[key]) for key in ("best", "last") if row[key]]
        if has_best:
            gap = row["gap"]
            shown += [percent_spread(gap["mean"], gap["deviation"]), bounds(gap) if "low" in gap else ABSENT]
        rows.append((row_title(row["attack"], results["examples"]), row["method"], *shown, *_counts(row)))
        records.append(flat(row))
    measured = ("best", "last", "gap", "95% of gap") if has_best else ("last",)
    definition = "; gap = best − last, in points" if has_best else "; no best epoch without a validation split"
    notes = (
        " “Same N”: on those N examples alone that the attack in the row below was run on."
        if results["same_examples"]
        else ""
    )
    if worst := explained(results["examples"]):
        notes += f" {worst}"
    return Table(
        "comparison", f"Test accuracy in percent{deviations(results)}{definition}.{notes}",
        ("attack", "method", *measured, "seeds", "examples"), tuple(rows), records, labels=2, grouped=True,
    )  # fmt: skip


def _like_for_like(results: Row) -> Iterator[Row]:
    """Accuracies by attack; before an attack on fewer examples, the headline's attack on those."""
    for attack in results["attacks"]:
        for row in results["same_examples"]:
            if row["attack"] == attack:
                name = f"{row['reference']}, same {row['examples']:,}"
                yield {**{key: value for key, value in row.items() if key != "reference"}, "attack": name}
        yield from (row for row in results["accuracy"] if row["attack"] == attack)


def differences(results: Row) -> Table:
    """What each method gains over the baseline, by attack."""
    baseline = results["experiment"]["baseline"]
    kept = [key for key in DIFFERENCES if any(row["quantity"] == key for row in results["comparisons"])]
    found: dict[tuple[str, str], Row] = {}
    for row in results["comparisons"]:
        found.setdefault((row["attack"], row["method"]), {})[row["quantity"]] = row
    rows = tuple(
        (
            row_title(attack, results["examples"]),
            method,
            *(_estimate(entry[key]) for key in kept),
            *_counts(entry[kept[0]]),
        )
        for (attack, method), entry in found.items()
    )
    baseline = quoted(baseline)
    over = "seeds and test examples" if len(results["experiment"]["seeds"]) > 1 else "test examples"
    return Table(
        "differences", f"Differences from {baseline} in points, with 95% intervals over {over}.",
        ("attack", "method", *(DIFFERENCES[key].format(baseline=baseline) for key in kept), "seeds", "examples"),
        rows, results["comparisons"], labels=2, grouped=True,
    )  # fmt: skip


def paired(results: Row) -> Table:
    """Each model against the baseline's of its seed, by McNemar's exact test."""
    baseline = quoted(results["experiment"]["baseline"])
    rows = tuple(
        (row_title(row["attack"], results["examples"]), row["method"], str(row["seed"]), row["checkpoint"],
         str(row["only_method"]), str(row["only_baseline"]), f"{row['p']:.2g}" if row["p"] else "< 1e-300")
        for row in results["paired"]
    )  # fmt: skip
    return Table(
        "paired",
        f"Each model against {baseline} of the same seed, on the same test examples: how many only one of them"
        " classifies correctly, and p of McNemar's exact test (two-sided, not corrected for the number of rows).",
        ("attack", "method", "seed", "checkpoint", "only this", f"only {baseline}", "p"), rows, results["paired"],
        labels=4, grouped=True,
    )  # fmt: skip


def published(results: Row) -> Table:
    """Published figures beside ours."""
    rows = tuple(
        (row["method"], row["checkpoint"] or ABSENT, row["metric"], row["source"], row["mismatch"] or ABSENT,
         percent(row["published"]), percent_spread(**row["ours"]) if row["ours"] else ABSENT)
        for row in results["published"]
    )  # fmt: skip
    return Table(
        "published",
        "Published accuracies of this data set, model and norm next to ours, in percent; training seeds and splits"
        " differ in any case. What differs: settings the sources state, ours (theirs).",
        ("method", "checkpoint", "metric", "source", "what differs", "published", "ours"),
        rows, [flat({**row, "ours": row["ours"] or {}}) for row in results["published"]], labels=5, grouped=True,
    )  # fmt: skip


def transfer(results: Row) -> Table:
    """Accuracy on images made for another method's model."""
    methods = results["experiment"]["methods"]
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in results["transfer"]:
        found.setdefault((row["checkpoint"], row["model"]), {})[row["images_of"]] = row
    rows = tuple(
        (*key, *(percent_spread(**entry[source]["accuracy"]) if source in entry else ABSENT for source in methods))
        for key, entry in found.items()
    )
    examples = min((row["examples"] for row in results["transfer"]), default=0)
    return Table(
        "transfer",
        f"Accuracy in percent on the worst-case images of the first {examples:,} test examples, by the model they are"
        f" shown to (rows) and the one of the same seed they were made for (columns){deviations(results)}.",
        ("checkpoint", "model", *(f"made for {quoted(method)}" for method in methods)),
        rows if len(methods) > 1 else (), [flat(row) for row in results["transfer"]], labels=2, grouped=True,
    )  # fmt: skip


def seeds(results: Row) -> Table:
    """Accuracies of every run."""
    has_best = any(row["best"] is not None for row in results["items"])
    kept = ("best", "last") if has_best else ("last",)
    rows = tuple(
        (
            row_title(row["attack"], results["examples"]), row["method"], str(row["seed"]),
            *((ABSENT if row["best_epoch"] is None else str(row["best_epoch"]),) if has_best else ()),
            *(joined(percent(row[key]), interval(row[f"{key}_low"], row[f"{key}_high"])) for key in kept),
            *((percent(row["gap"]),) if has_best else ()), f"{row['examples']:,}",
        )
        for row in results["items"]
    )  # fmt: skip
    return Table(
        "seeds", "Every seed: test accuracy in percent, with 95% intervals over test examples.",
        ("attack", "method", "seed", *(("best epoch", *kept, "gap") if has_best else kept), "examples"),
        rows, results["items"], labels=3, grouped=True,
    )  # fmt: skip


def _counts(row: Row) -> tuple[str, str]:
    return str(row["seeds"]), f"{row['examples']:,}"


def _estimate(row: Row) -> str:
    return f"{percent(row['estimate'])} {bounds(row)}"
