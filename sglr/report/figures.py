"""Which figures there are, and those over epochs: learning curves, memorisation, refined labels."""

from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from sglr.report.analysis_figures import draw_analyses
from sglr.report.curves import Curve, curve, label_starts, warmup
from sglr.report.drawing import GRID, INK, Plot, canvas, colour, dashes, legend, plot, seed_lines
from sglr.report.example_figures import draw_examples
from sglr.report.interval_figures import draw_differences, draw_gaps
from sglr.report.study import Study
from sglr.report.wording import percent, quoted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# name: (group, history column, title)
OVERLAYS = {
    "validation-pgd": ("curves", "val/pgd", "Validation accuracy under PGD"),
    "train-pgd": ("curves", "train/pgd", "Training accuracy under PGD"),
    "validation-natural": ("curves", "val/natural", "Validation accuracy, natural"),
    "noisy-pgd-given": ("memorisation", "noisy/pgd_given", "Noisy examples, PGD: given label"),
    "noisy-pgd-true": ("memorisation", "noisy/pgd_true", "Noisy examples, PGD: true label"),
    "noisy-natural-given": ("memorisation", "noisy/natural_given", "Noisy examples, natural: given label"),
    "noisy-natural-true": ("memorisation", "noisy/natural_true", "Noisy examples, natural: true label"),
    "labels-recovered": ("labels", "refined/recovered", "Wrong labels recovered"),
    "labels-corrupted": ("labels", "refined/corrupted", "Right labels corrupted"),
    "labels-entropy": ("labels", "refined/entropy", "Mean entropy of the refined labels"),
}
IN_NATS = "refined/entropy"
METHOD_LINES = {"train/pgd": "training, PGD", "val/pgd": "validation, PGD", "val/natural": "validation, natural"}


def draw(study: Study, results: dict[str, Any]) -> dict[str, list[Plot]]:
    """The figures that have something to show, by group: gap, differences, curves, memorisation, labels, gradients,
    information, calibration, sharpness, radii, classes, examples.
    """
    groups: dict[str, list[Plot]] = {
        "gap": draw_gaps(study, results),
        "differences": draw_differences(study, results),
    }
    for name in tqdm(OVERLAYS, desc="report: figures", unit="figure", disable=None, leave=False):
        group, quantity, title = OVERLAYS[name]
        groups.setdefault(group, []).extend(_overlay(study, name, quantity, title))
    for method in study.methods:
        groups["curves"] += _method(study, method)
    for drawn in (draw_analyses(study), draw_examples(study)):
        for group, plots in drawn.items():
            groups.setdefault(group, []).extend(plots)
    return groups


def _overlay(study: Study, name: str, quantity: str, title: str) -> list[Plot]:
    """One quantity, all methods."""
    found = {method: line for method in study.methods if (line := curve(study, method, quantity))}
    if not found:
        return []
    with canvas(title) as (figure, axes):
        for position, method in enumerate(study.methods):
            if method in found:
                scale = 1 if quantity == IN_NATS else 100
                _lines(axes, found[method], method, position, means=len(found), scale=scale)
        _context(axes, study, study.methods)
        _finish(figure, axes, "nats" if quantity == IN_NATS else "percent")
        if not name.startswith(("validation", "train")):
            axes.set_ylim(bottom=0, top=100 if name.startswith("noisy") else None)
        parts = (f"{quoted(method)} {_path(line, quantity)}." for method, line in found.items())
        return [plot(name, title, " ".join(parts), figure)]


def _method(study: Study, method: str) -> list[Plot]:
    """Training against validation of one method: where the two part is robust overfitting."""
    found = {quantity: line for quantity in METHOD_LINES if (line := curve(study, method, quantity))}
    if not found:
        return []
    title = f"{quoted(method)}: training against validation"
    # A method's name may be long: alone there is space for it.
    with canvas(quoted(method)) as (figure, axes):
        for position, (quantity, line) in enumerate(found.items()):
            _lines(axes, line, METHOD_LINES[quantity], position, means=len(found))
        marked = _mark_epochs(axes, study, method, found.get("val/pgd"))
        _context(axes, study, (method,))
        _finish(figure, axes, "percent")
        parts = (f"{METHOD_LINES[quantity]} {_path(line, quantity)}." for quantity, line in found.items())
        return [plot(f"curves-{method}", title, " ".join(parts) + marked, figure)]


def _lines(axes: "Axes", line: Curve, label: str, position: int, *, means: int, scale: float = 100) -> None:
    """Thin lines for the seeds, a thick one for their mean; epochs in which nothing was measured are bridged."""
    mine = colour(position)
    for values in seed_lines(line.values, means):
        known = ~np.isnan(values)
        axes.plot(line.epochs[known], scale * values[known], linewidth=0.7, alpha=0.45, color=mine)
    known = ~np.isnan(line.mean)
    axes.plot(line.epochs[known], scale * line.mean[known], label=label, color=mine, linestyle=dashes(position))


def _mark_epochs(axes: "Axes", study: Study, method: str, line: Curve | None) -> str:
    """A dot on each seed's best epoch and a square on its last; returns the best epochs in words."""
    if line is None:
        return ""
    points: dict[str, list[tuple[int, float]]] = {"best": [], "last": []}
    for item, values in zip(study.of(method), line.values, strict=True):
        known = ~np.isnan(values)
        heights = dict(zip(line.epochs[known].tolist(), (100 * values[known]).tolist(), strict=True))
        for name, epoch in (("best", item.training.get("best_epoch")), ("last", max(heights, default=None))):
            if epoch is not None and epoch in heights:
                points[name].append((epoch, heights[epoch]))
    for name, marker, fill in (("best", "o", INK), ("last", "s", "none")):
        if points[name]:
            x, y = zip(*points[name], strict=True)
            axes.plot(x, y, marker, label=f"{name} epoch of a seed", ms=6, mfc=fill, mec=INK, ls="none", zorder=4)
    chosen = [item.training["best_epoch"] for item in study.of(method) if item.training.get("best_epoch") is not None]
    return f" Best epochs: {', '.join(map(str, chosen))}." if chosen else ""


def _context(axes: "Axes", study: Study, methods: tuple[str, ...]) -> None:
    """The methods' warm-up as a band, the epochs from which label policies act as lines."""
    span = warmup(study, methods)
    if span:
        axes.axvspan(span[0] - 0.5, span[1] + 0.5, color=GRID, zorder=0, linewidth=0, label="warm-up")
    policies: dict[int, set[str]] = {}
    for method, epoch in label_starts(study).items():
        if method in methods:
            policies.setdefault(epoch, set()).add(study.config.methods[method].labels.name.replace("_", "-"))
    for position, epoch in enumerate(sorted(policies)):
        label = f"{', '.join(sorted(policies[epoch]))} from epoch {epoch}"
        axes.axvline(epoch, color=INK, linestyle=dashes(3 - position), linewidth=1.2, label=label)


def _finish(figure: "Figure", axes: "Axes", unit: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.set_ylabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(figure)


def _path(line: Curve, quantity: str) -> str:
    """'goes from 20.1% to 52.3%, highest 69.0% at epoch 9', of the mean."""
    known = ~np.isnan(line.mean)
    epochs, mean = line.epochs[known], line.mean[known]
    top = int(mean.argmax())
    first, last, high = (
        f"{value:.2f} nats" if quantity == IN_NATS else f"{percent(value)}%" for value in (mean[0], mean[-1], mean[top])
    )
    return f"goes from {first} to {last}, highest {high} at epoch {epochs[top]}"
