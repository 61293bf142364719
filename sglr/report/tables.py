"""The tables, made from results.json's structure: text for people in ``rows``, exact values in ``records``."""

from collections.abc import Callable, Iterator
from typing import Any

from sglr.config.errors import counted
from sglr.evaluation.worst import explained, row_title
from sglr.report.table import Table
from sglr.report.wording import (
    ABSENT,
    bounds,
    count,
    interval,
    joined,
    number,
    number_spread,
    percent,
    quoted,
    spread,
)

Row = dict[str, Any]
DIFFERENCES = {
    "gap_reduction": "gap of {baseline} − gap",
    "last_gain": "last − last of {baseline}",
    "last_over_best": "last − best of {baseline}",
    "best_gain": "best − best of {baseline}",
}


def tables(results: Row) -> dict[str, Table]:
    """All tables that have something to show, by name."""
    makers = (
        _accuracy,
        _differences,
        _published,
        _paired,
        _transfer,
        _seeds,
        _labels,
        _memorisation,
        _calibration,
        _analysis,
        _analysis_seeds,
        _cost,
    )
    made = (make(results) for make in makers)
    return {table.name: table for table in made if table.rows}


def _accuracy(results: Row) -> Table:
    has_best = any(row["best"] for row in results["accuracy"])
    rows, records = [], []
    for row in _like_for_like(results):
        shown = [spread(**row[key]) for key in ("best", "last") if row[key]]
        if has_best:
            gap = row["gap"]
            shown += [spread(gap["mean"], gap["deviation"]), bounds(gap) if "low" in gap else ABSENT]
        rows.append((row_title(row["attack"], results["examples"]), row["method"], *shown, *_counts(row)))
        records.append(_flat(row))
    measured = ("best", "last", "gap", "95% of gap") if has_best else ("last",)
    definition = "; gap = best − last, in points" if has_best else "; no best epoch without a validation split"
    notes = " Same N: only on the examples that the attack below it saw." if results["same_examples"] else ""
    if worst := explained(results["examples"]):
        notes += f" {worst}"
    return Table(
        "comparison", f"Test accuracy in percent{_deviations(results)}{definition}.{notes}",
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


def _deviations(results: Row) -> str:
    return ", mean ± standard deviation over seeds" if len(results["experiment"]["seeds"]) > 1 else ""


def _differences(results: Row) -> Table:
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


def _paired(results: Row) -> Table:
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


def _published(results: Row) -> Table:
    rows = tuple(
        (row["method"], row["checkpoint"] or ABSENT, row["metric"], row["source"], row["mismatch"] or ABSENT,
         percent(row["published"]), spread(**row["ours"]) if row["ours"] else ABSENT)
        for row in results["published"]
    )  # fmt: skip
    return Table(
        "published",
        "Published accuracies of this data set, model and norm next to ours, in percent; training seeds and splits"
        " differ in any case. What differs: settings the sources state, ours (theirs).",
        ("method", "checkpoint", "metric", "source", "what differs", "published", "ours"),
        rows, [_flat({**row, "ours": row["ours"] or {}}) for row in results["published"]], labels=5, grouped=True,
    )  # fmt: skip


def _transfer(results: Row) -> Table:
    methods = results["experiment"]["methods"]
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in results["transfer"]:
        found.setdefault((row["checkpoint"], row["model"]), {})[row["images_of"]] = row
    rows = tuple(
        (*key, *(spread(**entry[source]["accuracy"]) if source in entry else ABSENT for source in methods))
        for key, entry in found.items()
    )
    examples = min((row["examples"] for row in results["transfer"]), default=0)
    return Table(
        "transfer",
        f"Accuracy in percent on the worst-case images of the first {examples:,} test examples, by the model they are"
        f" shown to (rows) and the one of the same seed they were made for (columns){_deviations(results)}.",
        ("checkpoint", "model", *(f"made for {quoted(method)}" for method in methods)),
        rows if len(methods) > 1 else (), [_flat(row) for row in results["transfer"]], labels=2, grouped=True,
    )  # fmt: skip


def _counts(row: Row) -> tuple[str, str]:
    return str(row["seeds"]), f"{row['examples']:,}"


def _estimate(row: Row) -> str:
    return f"{percent(row['estimate'])} {bounds(row)}"


def _labels(results: Row) -> Table:
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
        rows, [_flat(row) for row in results["labels"]],
    )  # fmt: skip


def _memorisation(results: Row) -> Table:
    found = results["memorisation"]
    kept = [key for key in found[0] if key != "method" and any(row[key]["seeds"] for row in found)]
    rows = tuple(
        (row["method"], *(_spread(row[key], number_spread if key == "refined/entropy" else spread) for key in kept))
        for row in found
    )
    return Table(
        "memorisation",
        "Training examples at the last epoch: accuracy in percent of those with a wrong given label (noisy), against"
        " the given and the true one, and of the others (clean); mean entropy of the refined labels in nats. Under PGD"
        " images lead away from the given label: against the true one that is no robust accuracy.",
        ("method", *(key.replace("/", ", ").replace("_", " against ").replace("pgd", "PGD") for key in kept)),
        rows if kept else (), [_flat(row) for row in found],
    )  # fmt: skip


CALIBRATION = {
    "ece": "calibration error", "ece_scaled": "calibration error, scaled", "nll": "cross-entropy, nats",
    "nll_scaled": "cross-entropy, scaled", "brier": "Brier score",
}  # fmt: skip


def _calibration(results: Row) -> Table:
    methods = results["experiment"]["methods"]
    found = _by_quantity(results)
    rows, records = [], []
    for checkpoint in ("best", "last"):
        for kind in ("natural", "adversarial"):
            for key, name in CALIBRATION.items():
                if entry := found.get((checkpoint, f"{kind}/{key}")):
                    rows.append((f"{checkpoint}, {kind}", name, *_by_method(entry, methods)))
                    records += [{name: row[name] for name in row if name != "runs"} for row in entry.values()]
    scaled = any("scaled" in name for _, name, *_ in rows)
    tempered = ", before and after one temperature fitted on the validation split (scaled)" if scaled else ""
    return Table(
        "calibration",
        "Expected calibration error, cross-entropy and Brier score of test"
        f" predictions{tempered}{_deviations(results)}.",
        ("model, input", "measure", *methods), tuple(rows), records, labels=2, grouped=True,
    )  # fmt: skip


def _cost(results: Row) -> Table:
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
        rows, [_flat({**row, "passes": row["passes"] or {}}) for row in results["cost"]],
    )  # fmt: skip


def _passes(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _by_method(entry: Row, methods: list[str]) -> list[str]:
    most = max(row["seeds"] for row in entry.values())

    def cell(row: Row) -> str:
        few = f"({counted(row['seeds'], 'seed')})" if row["seeds"] < most else ""
        return joined(_spread(row, number_spread), few)

    return [cell(entry[method]) if method in entry else ABSENT for method in methods]


def _analysis(results: Row) -> Table:
    methods = results["experiment"]["methods"]
    rows = tuple((*key, *_by_method(entry, methods)) for key, entry in _by_quantity(results).items())
    return Table(
        "analysis", f"Results of the analyses, per checkpoint (run: the whole run){_deviations(results)}.",
        ("checkpoint", "quantity", *methods),
        rows, [{key: row[key] for key in row if key != "runs"} for row in results["analysis"]], labels=2, grouped=True,
    )  # fmt: skip


def _analysis_seeds(results: Row) -> Table:
    runs = [(method, seed) for method in results["experiment"]["methods"] for seed in results["experiment"]["seeds"]]
    rows = []
    for key, entry in _by_quantity(results).items():
        cells = {(method, run["seed"]): run for method, row in entry.items() for run in row["runs"]}
        rows.append((*key, *(_measured(cells.get(run)) for run in runs)))
    records = [
        {**{key: row[key] for key in ("checkpoint", "quantity", "method")}, **run}
        for row in results["analysis"] for run in row["runs"]
    ]  # fmt: skip
    return Table(
        "analysis-seeds", "Results of the analyses in every run, with 95% intervals over examples where known.",
        ("checkpoint", "quantity", *(f"{method}-{seed}" for method, seed in runs)), tuple(rows), records,
        labels=2, grouped=True,
    )  # fmt: skip


def _by_quantity(results: Row) -> dict[tuple[str, str], Row]:
    found: dict[tuple[str, str], Row] = {}
    for row in results["analysis"]:
        found.setdefault((row["checkpoint"], row["quantity"]), {})[row["method"]] = row
    return found


def _measured(run: Row | None) -> str:
    if run is None:
        return ABSENT
    return joined(number(run["value"]), interval(run["low"], run["high"], number))


def _seeds(results: Row) -> Table:
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


def _spread(found: Row, write: Callable[[float | None, float | None], str] = spread) -> str:
    return write(found["mean"], found["deviation"])


def _of(found: Row, share: Row) -> str:
    return ABSENT if share["mean"] is None else f"{count(found['mean'])} ({_spread(share)}%)"


def _flat(row: Row) -> Row:
    """Nested values under joined names: {'best': {'mean': 1}} -> {'best_mean': 1}."""
    flat: Row = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat.update({f"{key}_{inner}": number for inner, number in value.items()})
        else:
            flat[key] = value
    return flat
