"""Figures of the analyses: information over the kept epochs, reliability diagrams, the loss along a direction."""

from typing import TYPE_CHECKING, Any

import numpy as np

from sglr.report.curves import Curve, from_rows
from sglr.report.drawing import GRID, INK, Picture, canvas, colour, dashes, svg
from sglr.report.study import Item, Study
from sglr.report.wording import quoted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# name: (table, quantity, title, unit)
OVER_EPOCHS = {
    "label-information": ("memorization", "label_information", "Label information in the weights, bound", "nats"),
    "information": ("quantities", "adversarial/information", "I(T; Y), adversarial, probe bound", "nats"),
    "index-information": (
        "quantities", "adversarial/index_information/upper", "I(index; T), adversarial, upper bound", "nats",
    ),
    "weights-information": ("quantities", "weights/information", "Information in the weights", "nats"),
    "gradient-share": (
        "quantities", "full_gradient/adversarial/noisy_share", "Share of the gradient norm, noisy", "share",
    ),
    "sharpness": ("quantities", "sharpness/adversarial", "Largest Hessian eigenvalue, adversarial", "nats"),
}  # fmt: skip
INPUTS = ("natural", "adversarial")


def draw_analyses(study: Study) -> list[Picture]:
    """Those figures that have something to show."""
    pictures = [
        picture
        for name, (table, quantity, title, unit) in OVER_EPOCHS.items()
        for picture in _over_epochs(study, name, table, quantity, title, unit)
    ]
    for kind in INPUTS:
        pictures += _reliability(study, kind)
        pictures += _landscape(study, kind)
    return pictures


def _over_epochs(study: Study, name: str, table: str, quantity: str, title: str, unit: str) -> list[Picture]:
    """One quantity by epoch, all methods; a seed's values are joined where it was measured."""
    found = {}
    for method in study.methods:
        line = from_rows([_by_epoch(item, table) for item in study.of(method)], quantity)
        if line and len(line.epochs) > 1:
            found[method] = line
    if not found:
        return []
    with canvas(title) as (figure, axes):
        for position, method in enumerate(study.methods):
            if method in found:
                _line(axes, found[method], method, position, marked=table == "quantities")
        axes.set_xlabel("epoch")
        axes.set_ylabel(unit)
        figure.legend(loc="outside lower center", ncols=2)
        return [Picture(name, title, " ".join(_path(*pair, unit) for pair in found.items()), svg(figure))]


def _by_epoch(item: Item, table: str) -> list[dict[str, Any]]:
    """Rows with an epoch and a column per quantity."""
    rows = item.tables.get(table, [])
    if table != "quantities":
        return rows
    wide: dict[int, dict[str, Any]] = {}
    for row in rows:
        wide.setdefault(row["epoch"], {"epoch": row["epoch"]})[row["quantity"]] = row["value"]
    return list(wide.values())


def _line(axes: "Axes", line: Curve, label: str, position: int, *, marked: bool) -> None:
    mine = colour(position)
    if len(line.values) > 1:
        for values in line.values:
            known = ~np.isnan(values)
            axes.plot(line.epochs[known], values[known], linewidth=0.7, alpha=0.45, color=mine)
    # Best epochs differ between seeds: a mean over those measured there would jump from one seed's level to another's.
    everywhere = ~np.isnan(line.values).any(0)
    axes.plot(
        line.epochs[everywhere], line.mean[everywhere], label=label, color=mine, linestyle=dashes(position),
        marker="o" if marked else "", markersize=3.5,
    )  # fmt: skip


def _path(method: str, line: Curve, unit: str) -> str:
    known = np.flatnonzero(~np.isnan(line.mean))
    first, last = known[0], known[-1]
    return (
        f"{quoted(method)} goes from {line.mean[first]:.3g} {unit} at epoch {line.epochs[first]} to"
        f" {line.mean[last]:.3g} at epoch {line.epochs[last]}."
    )


def _reliability(study: Study, kind: str) -> list[Picture]:
    """Accuracy against confidence of the last model, seeds pooled, before and after temperature scaling."""
    found = {}
    for position, method in enumerate(study.methods):
        for scaled in (0, 1):
            points = _pooled(study, method, kind, scaled)
            if len(points):
                found[method, scaled] = (position, points)
    if not found:
        return []
    title = f"Reliability, {kind}, last model"
    with canvas(title) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=GRID, label="calibrated")
        for (method, scaled), (position, points) in found.items():
            label = f"{method}, scaled" if scaled else method
            line = (0, (1, 1.2)) if scaled else "-"
            axes.plot(*points.T, color=colour(position), linestyle=line, marker="o", markersize=3, label=label)
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
        figure.legend(loc="outside lower center", ncols=2)
        words = (
            f"{quoted(method)}{', scaled' if scaled else ''}: mean confidence minus accuracy over the bins"
            f" {float((points[:, 0] - points[:, 1]).mean()):+.2f}."
            for (method, scaled), (_, points) in found.items()
        )
        return [Picture(f"reliability-{kind}", title, " ".join(words), svg(figure))]


def _pooled(study: Study, method: str, kind: str, scaled: int) -> np.ndarray:
    """(confidence, accuracy) per bin with at least one example, weighted by the seeds' counts."""
    sums: dict[int, np.ndarray] = {}
    for item in study.of(method):
        for row in item.tables.get("calibration", []):
            if (row["checkpoint"], row["input"], row.get("scaled")) == ("last", kind, scaled) and row["count"]:
                weighed = row["count"] * np.array([row["confidence"], row["accuracy"], 1.0])
                sums[row["bin"]] = sums.get(row["bin"], np.zeros(3)) + weighed
    return np.array([sums[bin_][:2] / sums[bin_][2] for bin_ in sorted(sums)])


def _landscape(study: Study, kind: str) -> list[Picture]:
    """The last model's training loss along one filter-normalised random direction, mean over seeds."""
    found = {}
    for position, method in enumerate(study.methods):
        losses: dict[float, list[float]] = {}
        for item in study.of(method):
            for row in item.tables.get("landscape", []):
                if (row["checkpoint"], row["input"]) == ("last", kind) and row["loss"] is not None:
                    losses.setdefault(row["radius"], []).append(row["loss"])
        if losses:
            found[method] = (position, sorted((radius, float(np.mean(some))) for radius, some in losses.items()))
    if not found:
        return []
    title = f"Loss along a random direction, {kind}"
    with canvas(title) as (figure, axes):
        for method, (position, points) in found.items():
            axes.plot(*zip(*points, strict=True), color=colour(position), linestyle=dashes(position), label=method)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_xlabel("distance, in units of the filters' norms")
        axes.set_ylabel("nats")
        figure.legend(loc="outside lower center", ncols=2)
        words = (
            f"{quoted(method)}: {dict(points).get(0.0, float('nan')):.3g} nats in the middle, {points[0][1]:.3g} and"
            f" {points[-1][1]:.3g} at the ends."
            for method, (_, points) in found.items()
        )
        return [Picture(f"landscape-{kind}", title, " ".join(words), svg(figure))]
