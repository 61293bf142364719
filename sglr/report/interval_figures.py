"""Figures of estimates with their intervals: the robust overfitting gap, and the differences between methods."""

from sglr.evaluation.worst import row_title
from sglr.report.accuracy_tables import DIFFERENCES
from sglr.report.drawing import INK, Plot, canvas, colour, legend, marker, plot
from sglr.report.headline import gap_name, headline_attack, headline_attacks
from sglr.report.study import Study
from sglr.report.table import Row
from sglr.report.wording import bounds, percent, quoted


def draw_gaps(study: Study, results: Row) -> list[Plot]:
    """Best minus last of every method under every attack."""
    rows = [
        {
            "method": row["method"],
            "lane": row_title(row["attack"], results["examples"]),
            "estimate": row["gap"]["mean"],
            **_ends(row["gap"]),
        }
        for row in results["accuracy"]
        if row["gap"]
    ]
    title = f"{gap_name(headline_attack(study)).capitalize()}: best − last"
    return _draw(study, "gap", title, rows)


def draw_differences(study: Study, results: Row) -> list[Plot]:
    """Every difference from the baseline under the attacks in the headline."""
    baseline = quoted(study.config.report.baseline)
    rows = [
        {
            "method": row["method"],
            "lane": f"{row['attack']}: {DIFFERENCES[row['quantity']].format(baseline=baseline)}",
            "estimate": row["estimate"],
            **_ends(row),
        }
        for row in results["comparisons"]
        if row["attack"] in headline_attacks(study)
    ]
    return _draw(study, "differences", f"Differences from {baseline}", rows)


def _ends(row: Row) -> Row:
    return {"low": row["low"], "high": row["high"]}


def _draw(study: Study, name: str, title: str, rows: list[Row]) -> list[Plot]:
    """A lane per thing measured, in it a point with its interval per method; fractions are shown as points."""
    if not rows:
        return []
    lanes = list(dict.fromkeys(row["lane"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    with canvas(title, 1.4 + max(0.3, 0.15 * len(methods)) * len(lanes)) as (figure, axes):
        for row in rows:
            lane, position = lanes.index(row["lane"]), study.methods.index(row["method"])
            height = lane + 0.7 * ((methods.index(row["method"]) + 0.5) / len(methods) - 0.5)
            axes.plot([100 * row["low"], 100 * row["high"]], [height, height], color=colour(position))
            axes.plot(
                100 * row["estimate"], height, marker(position), ls="none", ms=5, color=colour(position),
                label=None if lane else row["method"],
            )  # fmt: skip
        axes.axvline(0, color=INK, linewidth=1)
        axes.set_yticks(range(len(lanes)), lanes)
        axes.invert_yaxis()
        axes.set_xlabel("points, with 95% intervals")
        legend(figure, 3)
        described = (
            f"{quoted(row['method'])}, {row['lane']}: {percent(row['estimate'])} {bounds(row)}" for row in rows
        )
        return [plot(name, title, "; ".join(described) + ".", figure)]
