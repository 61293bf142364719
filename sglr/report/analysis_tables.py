"""Tables of the analyses."""

from sglr.config.wording import counted
from sglr.report.table import Row, Table, deviations
from sglr.report.wording import ABSENT, interval, joined, number, number_spread

CALIBRATION = {
    "ece": "calibration error", "ece_scaled": "calibration error, scaled", "nll": "cross-entropy, nats",
    "nll_scaled": "cross-entropy, scaled", "brier": "Brier score",
}  # fmt: skip


def calibration(results: Row) -> Table:
    """Calibration of predictions on test images."""
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
    tempered = (
        ", before and after one temperature fitted on natural validation images (scaled; under attack it need not help)"
        if scaled
        else ""
    )
    return Table(
        "calibration",
        "Expected calibration error, cross-entropy and Brier score of test"
        f" predictions{tempered}{deviations(results)}.",
        ("model, input", "measure", *methods), tuple(rows), records, labels=2, grouped=True,
    )  # fmt: skip


def analysis(results: Row) -> Table:
    """All quantities by checkpoint, over seeds."""
    methods = results["experiment"]["methods"]
    rows = tuple((*key, *_by_method(entry, methods)) for key, entry in _by_quantity(results).items())
    return Table(
        "analysis", f"Results of the analyses, per checkpoint (run: the whole run){deviations(results)}.",
        ("checkpoint", "quantity", *methods),
        rows, [{key: row[key] for key in row if key != "runs"} for row in results["analysis"]], labels=2, grouped=True,
    )  # fmt: skip


def analysis_seeds(results: Row) -> Table:
    """All quantities in every run."""
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


def _by_method(entry: Row, methods: list[str]) -> list[str]:
    most = max(row["seeds"] for row in entry.values())

    def cell(row: Row) -> str:
        few = f"({counted(row['seeds'], 'seed')})" if row["seeds"] < most else ""
        return joined(number_spread(row["mean"], row["deviation"]), few)

    return [cell(entry[method]) if method in entry else ABSENT for method in methods]


def _measured(run: Row | None) -> str:
    if run is None:
        return ABSENT
    return joined(number(run["value"]), interval(run["low"], run["high"], number))
