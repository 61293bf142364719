"""Figures of the analyses: information over the kept epochs, reliability diagrams, the loss along a direction."""

from typing import TYPE_CHECKING

import numpy as np

from sglr.report.curves import Curve, from_rows
from sglr.report.drawing import INK, Plot, canvas, colour, dashes, legend, marker, plot, seed_lines
from sglr.report.study import Study
from sglr.report.wording import quoted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FULL = "full_gradient/objective"
# name: (group, table, quantity, title, unit)
OVER_EPOCHS = {
    "gradient-noisy": ("gradients", "quantities", f"{_FULL}/noisy", "Gradient norm, noisy examples", "mean norm"),
    "gradient-clean": ("gradients", "quantities", f"{_FULL}/clean", "Gradient norm, clean examples", "mean norm"),
    "gradient-share": ("gradients", "quantities", f"{_FULL}/noisy_share", "Share of the norm, noisy examples", "share"),
    "label-information": (
        "information", "memorization", "label_information", "Label information in the weights, bound", "nats",
    ),
    "information": (
        "information", "quantities", "adversarial/information", "I(T; Y), adversarial, probe bound", "nats",
    ),
    "index-information": (
        "information", "quantities", "adversarial/index_information/upper", "I(index; T), adversarial, upper bound",
        "nats",
    ),
    "weights-information": ("information", "quantities", "weights/information", "Information in the weights", "nats"),
    "sharpness": (
        "sharpness", "quantities", "sharpness/adversarial", "Largest Hessian eigenvalue, adversarial", "nats",
    ),
}  # fmt: skip
INPUTS = ("natural", "adversarial")
_SCALED = (0, (1, 1.2))
_RELIABILITY = {
    "natural": "Reliability, natural, last model", "adversarial": "Reliability, adversarial, last model",
    "refined": "Reliability, refined labels, last epoch",
}  # fmt: skip
Points = dict[str, list[tuple[int, float]]]


def draw_analyses(study: Study) -> dict[str, list[Plot]]:
    """Those figures that have something to show, by group: gradients, information, calibration, sharpness."""
    groups: dict[str, list[Plot]] = {}
    for name, (group, table, quantity, title, unit) in OVER_EPOCHS.items():
        drawn = _every_epoch if table == "memorization" else _every_checkpoint
        groups.setdefault(group, []).extend(drawn(study, name, quantity, title, unit))
    groups["calibration"] = [plot for kind in _RELIABILITY for plot in _reliability(study, kind)]
    groups["sharpness"] += [plot for kind in INPUTS for plot in _landscape(study, kind)]
    return groups


def _every_epoch(study: Study, name: str, quantity: str, title: str, unit: str) -> list[Plot]:
    """One quantity that is known for every epoch, all methods: thin lines for the seeds, a thick one for their mean."""
    found = {}
    for method in study.methods:
        line = from_rows([item.tables.get("memorization", []) for item in study.of(method)], quantity)
        if line and len(line.epochs) > 1:
            found[method] = line
    if not found:
        return []
    with canvas(title) as (figure, axes):
        for position, method in enumerate(study.methods):
            if method in found:
                line = found[method]
                for values in seed_lines(line.values, len(found)):
                    axes.plot(line.epochs, values, linewidth=0.7, alpha=0.45, color=colour(position))
                axes.plot(line.epochs, line.mean, label=method, color=colour(position), linestyle=dashes(position))
        _label(figure, axes, unit)
        return [plot(name, title, " ".join(_path(*pair, unit) for pair in found.items()), figure)]


def _every_checkpoint(study: Study, name: str, quantity: str, title: str, unit: str) -> list[Plot]:
    """One quantity of the checkpoints, all methods. Best epochs differ between seeds: the mean over seeds of a
    checkpoint is at the mean of its epochs."""
    found = {method: points for method in study.methods if len(points := _points(study, method, quantity)) > 1}
    if not found:
        return []
    described = []
    with canvas(title) as (figure, axes):
        for position, method in enumerate(study.methods):
            if method not in found:
                continue
            mine, points = colour(position), found[method]
            for seed in seed_lines(np.array(list(points.values())).swapaxes(0, 1), len(found)):
                axes.plot(*zip(*sorted(seed.tolist()), strict=True), linewidth=0.7, alpha=0.45, color=mine)
            means = {checkpoint: np.mean(seeds, axis=0) for checkpoint, seeds in points.items()}
            # A checkpoint that is best and kept at once has one place.
            ordered = sorted(means.items(), key=lambda pair: float(pair[1][0]))
            axes.plot(
                *np.array([mean for _, mean in ordered]).T, label=method, color=mine, linestyle=dashes(position),
                marker=marker(position), markersize=4,
            )  # fmt: skip
            told = ", ".join(
                f"{_written(mean[1])} {unit} at {_place(checkpoint, mean[0])}" for checkpoint, mean in ordered
            )
            described.append(f"{quoted(method)}: {told}.")
        _label(figure, axes, unit)
        return [plot(name, title, " ".join(described), figure)]


def _points(study: Study, method: str, quantity: str) -> Points:
    """(epoch, value) of every seed by checkpoint, for the checkpoints at which all seeds were measured."""
    found: Points = {}
    for item in study.of(method):
        for row in item.tables.get("quantities", []):
            if row["quantity"] == quantity and row["value"] is not None:
                found.setdefault(str(row["checkpoint"]), []).append((row["epoch"], row["value"]))
    return {checkpoint: points for checkpoint, points in found.items() if len(points) == len(study.of(method))}


def _place(checkpoint: str, epoch: float) -> str:
    return f"{checkpoint} (epoch {epoch:.3g})"


def _written(value: float, form: str = ".3g") -> str:
    """With a minus sign: a hyphen is left out by programs that read aloud."""
    return f"{value:{form}}".replace("-", "−")


def _label(figure: "Figure", axes: "Axes", unit: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(unit)
    legend(figure)


def _path(method: str, line: Curve, unit: str) -> str:
    known = np.flatnonzero(~np.isnan(line.mean))
    first, last = known[0], known[-1]
    return (
        f"{quoted(method)} goes from {_written(line.mean[first])} {unit} at epoch {line.epochs[first]} to"
        f" {_written(line.mean[last])} at epoch {line.epochs[last]}."
    )


def _reliability(study: Study, kind: str) -> list[Plot]:
    """Accuracy against confidence, seeds pooled: of the last model, before and after temperature scaling, or of the
    refined labels after the last epoch against the true ones."""
    found = {}
    for position, method in enumerate(study.methods):
        for scaled in (0, 1):
            points = _pooled(study, method, kind, scaled)
            if len(points):
                found[method, scaled] = (position, points)
    if not found:
        return []
    title = _RELIABILITY[kind]
    with canvas(title) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, label="calibrated")
        for (method, scaled), (position, points) in found.items():
            axes.plot(
                points[:, 0], points[:, 1], color=colour(position), linestyle=_SCALED if scaled else "-",
                marker=marker(position), markersize=3.5, label=None if scaled else method,
            )  # fmt: skip
        if any(scaled for _, scaled in found):
            axes.plot([], [], color=INK, linestyle=_SCALED, label="after temperature scaling")
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
        legend(figure)
        words = (
            f"{quoted(method)}{', scaled' if scaled else ''}: mean confidence minus accuracy"
            f" {_written(_excess(points), '+.2f')}."
            for (method, scaled), (_, points) in found.items()
        )
        return [plot(f"reliability-{kind}", title, " ".join(words), figure)]


def _pooled(study: Study, method: str, kind: str, scaled: int) -> np.ndarray:
    """(confidence, accuracy, number of examples) per bin with at least one, the seeds' examples together."""
    sums: dict[int, np.ndarray] = {}
    for item in study.of(method):
        for row in item.tables.get("calibration", []):
            if (row["checkpoint"], row["input"], row.get("scaled")) == ("last", kind, scaled) and row["count"]:
                weighed = row["count"] * np.array([row["confidence"], row["accuracy"], 1.0])
                sums[row["bin"]] = sums.get(row["bin"], np.zeros(3)) + weighed
    return np.array([[*sums[bin_][:2] / sums[bin_][2], sums[bin_][2]] for bin_ in sorted(sums)])


def _excess(points: np.ndarray) -> float:
    """Mean confidence minus accuracy over all examples."""
    confidence, accuracy, counts = points.T
    return float(np.average(confidence - accuracy, weights=counts))


def _landscape(study: Study, kind: str) -> list[Plot]:
    """The last model's cross-entropy with its targets along one filter-normalised random direction, mean over seeds."""
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
        legend(figure)
        words = (
            f"{quoted(method)}: {_written(points[len(points) // 2][1])} nats in the middle, {_written(points[0][1])}"
            f" and {_written(points[-1][1])} at the ends."
            for method, (_, points) in found.items()
        )
        return [plot(f"landscape-{kind}", title, " ".join(words), figure)]
