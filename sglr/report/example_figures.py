"""Figures that look closer: accuracy over the radius, class by class, single images, single refined labels."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from sglr.report.drawing import INK, Plot, canvas, colour, dashes, hatch, legend, marker, panels, plot, seed_lines
from sglr.report.study import Study
from sglr.report.wording import percent, quoted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A matrix of more classes cannot be read.
_CLASSES = 20
_CHANCE = 1e-6


def draw_examples(study: Study) -> dict[str, list[Plot]]:
    """By group those that have something to show: radii, classes, examples, labels."""
    return {
        "radii": [plot for checkpoint in study.checkpoints for plot in _radii(study, checkpoint)],
        "classes": [*_by_class(study), *(plot for method in study.methods for plot in _confusion(study, method))],
        "examples": _examples(study),
        "labels": [plot for method in study.methods for plot in _labels(study, method)],
    }


def _radii(study: Study, checkpoint: str) -> list[Plot]:
    """Accuracy over eps, mean over seeds, all methods."""
    prefix = f"sweep/{checkpoint}/"
    found = {}
    for method in study.methods:
        curves = [
            {
                float(name.removeprefix(prefix)): values.mean()
                for name, values in item.outcomes.items()
                if name.startswith(prefix)
            }
            for item in study.of(method)
        ]
        if all(curves):
            radii = sorted(set.intersection(*(set(curve) for curve in curves)))
            found[method] = radii, np.array([[curve[radius] for radius in radii] for curve in curves])
    if not found:
        return []
    title = f"Accuracy under PGD over eps, {checkpoint} epoch"
    with canvas(title) as (figure, axes):
        for position, method in enumerate(study.methods):
            if method not in found:
                continue
            radii, values = found[method]
            for seed in seed_lines(values, len(found)):
                axes.plot(radii, 100 * seed, linewidth=0.7, alpha=0.45, color=colour(position))
            axes.plot(
                radii, 100 * values.mean(0), marker(position), ms=4, color=colour(position),
                linestyle=dashes(position), label=method,
            )  # fmt: skip
        axes.axvline(study.config.threat.eps_255, color=INK, linewidth=1, linestyle=":", label="the threat model's eps")
        axes.set_ylim(0, 100)
        axes.set_xlabel("eps in 255ths")
        axes.set_ylabel("percent")
        legend(figure)
        described = (
            f"{quoted(method)}: "
            + ", ".join(f"{percent(value)}% at {radius:g}" for radius, value in zip(radii, values.mean(0), strict=True))
            for method, (radii, values) in found.items()
        )
        return [plot(f"radii-{checkpoint}", title, "; ".join(described) + ".", figure)]


def _classes(study: Study, method: str, kind: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """True and predicted classes (n,) of each seed's last model."""
    for item in study.of(method):
        predicted = study.looked_at.get(f"classes/{item.method}-{item.seed}/last/{kind}")
        if predicted is not None:
            yield study.looked_at["classes/true"][: len(predicted)], predicted


def _names(study: Study) -> list[str]:
    return list(map(str, study.meta.get("classes") or range(study.meta["num_classes"])))


def _by_class(study: Study) -> list[Plot]:
    """Natural and worst-case accuracy of each class, last models, mean over seeds."""
    names = _names(study)
    if len(names) > _CLASSES:
        return []
    found = {}
    for method in study.methods:
        for kind in ("natural", "worst"):
            per_seed = [
                [
                    (predicted[true == number] == number).mean() if (true == number).any() else np.nan
                    for number in range(len(names))
                ]
                for true, predicted in _classes(study, method, kind)
            ]
            if per_seed:
                found[method, kind] = np.array(per_seed).mean(axis=0)
    if not found:
        return []
    title = "Accuracy by class, last epoch"
    with canvas(title) as (figure, axes):
        width = 0.8 / len(study.methods)
        for position, method in enumerate(study.methods):
            if (method, "worst") not in found:
                continue
            left = np.arange(len(names)) + (position + 0.5) * width - 0.4
            axes.bar(
                left, 100 * found[method, "worst"], width, color=colour(position), hatch=hatch(position),
                label=f"{method}, worst case",
            )  # fmt: skip
            axes.plot(left, 100 * found[method, "natural"], "_", ms=8, color=INK, label=None if position else "natural")
        axes.set_xticks(range(len(names)), names, rotation=45 if max(map(len, names)) > 2 else 0)
        axes.set_ylim(0, 100)
        axes.set_ylabel("percent")
        legend(figure)
        described = (f"{quoted(method)}, {kind}: " + _shares(names, values) for (method, kind), values in found.items())
        return [plot("by-class", title, "; ".join(described) + ".", figure)]


def _shares(names: list[str], values: np.ndarray) -> str:
    """The share of each class in words, but for those that no test image is of (NaN)."""
    return ", ".join(
        f"{name} {percent(float(value))}%" for name, value in zip(names, values, strict=True) if not np.isnan(value)
    )


def _confusion(study: Study, method: str) -> list[Plot]:
    """Shares of predictions on worst-case images by true class, all seeds together."""
    names, pairs = _names(study), list(_classes(study, method, "worst"))
    if len(names) > _CLASSES or not pairs:
        return []
    counts = np.zeros((len(names), len(names)))
    for true, predicted in pairs:
        np.add.at(counts, (true, predicted), 1)
    per_class = counts.sum(1)
    shares = counts / np.maximum(per_class, 1)[:, None]
    title = f"{quoted(method)}: taken for, worst case"
    with panels(title, 1, 1, 4.4, 4.4) as (figure, axes):
        (axis,) = axes.flat
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="none")
        for (row, column), share in np.ndenumerate(shares):
            if round(100 * share):
                # On a coloured field, so not the colours that follow the page.
                dark = "#fdfdfd" if share > 0.5 else "#10151b"
                axis.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color=dark)
        rotation = 90 if max(map(len, names)) > 2 else 0
        axis.set_xticks(range(len(names)), names, rotation=rotation)
        axis.set_yticks(range(len(names)), names)
        axis.set_xlabel("predicted, percent of the true class")
        axis.set_ylabel("true")
        wrong = shares - np.diag(np.diag(shares))
        row, column = np.unravel_index(wrong.argmax(), wrong.shape)
        most = f"Most often {names[row]} is taken for {names[column]} ({percent(wrong[row, column])}%)."
        described = (
            f"{most if wrong[row, column] > 0 else 'No class is taken for another.'} On the diagonal: "
            + _shares(names, np.where(per_class > 0, np.diag(shares), np.nan))
        )
        return [plot(f"confusion-{method}", title, described + ".", figure)]


def _examples(study: Study) -> list[Plot]:
    """Natural images, and for each method their worst case and the change, last model of the first seed."""
    natural, seed = study.looked_at.get("shown/natural"), study.config.experiment.seeds[0]
    rows = [method for method in study.methods if f"shown/{method}-{seed}/last" in study.looked_at]
    if natural is None or not rows or not len(natural):
        return []
    names, true = _names(study), study.looked_at["classes/true"]
    title, columns = "Worst-case images", len(natural)
    threat = study.config.threat
    with panels(title, 1 + 2 * len(rows), columns, 9.2, 1.25 * (1 + 2 * len(rows)) + 0.5) as (figure, axes):
        for column, image in enumerate(natural):
            _show(axes[0, column], image, names[true[column]])
        axes[0, 0].set_ylabel("natural")
        described = []
        for place, method in enumerate(rows):
            worst, item = study.looked_at[f"shown/{method}-{seed}/last"], f"{method}-{seed}"
            taken = study.looked_at[f"classes/{item}/last/worst"]
            largest = max(np.abs(worst - natural).max(), _CHANCE)
            for column, image in enumerate(worst):
                right = taken[column] == true[column]
                _show(axes[1 + 2 * place, column], image, f"{names[taken[column]]} {'✓' if right else '✗'}")
                change = 0.5 + (image - natural[column]) / (2 * largest)
                _show(axes[2 + 2 * place, column], change, "")
            axes[1 + 2 * place, 0].set_ylabel(method)
            axes[2 + 2 * place, 0].set_ylabel(f"change ×{1 / (2 * largest):.2g}")
            wrong = sum(taken[column] != true[column] for column in range(columns))
            described.append(f"{quoted(method)} misclassifies {wrong} of {columns}")
        size = f"{threat.eps_255:g}/255 in {threat.norm.capitalize()}"
        text = f"{columns} test images, changed by at most {size}: {'; '.join(described)}."
        return [plot("worst-case-images", title, text, figure, wide=True)]


def _show(axes: "Axes", image: np.ndarray, title: str) -> None:
    """One image (C, H, W) in [0, 1]."""
    shown = np.clip(image, 0, 1).transpose(1, 2, 0)
    axes.imshow(shown if shown.shape[2] == 3 else shown[:, :, 0], cmap="gray", vmin=0, vmax=1, interpolation="none")
    axes.set_title(title, fontsize=9, fontweight="normal", loc="center")


def _labels(study: Study, method: str) -> list[Plot]:
    """Refined labels of traced examples whose given label is wrong, epoch by epoch, first seed."""
    item = study.of(method)[0]
    p, index = item.trace["p"], item.trace["index"]
    given, true = item.labels["given"][index], item.labels["true"][index]
    noisy = np.flatnonzero(given != true)
    if not len(noisy) or len(p) < 2 or np.ptp(p[:, noisy], axis=0).max() < _CHANCE:
        return []
    title = f"{quoted(method)}: labels of noisy examples"
    epochs = item.trace["epochs"]
    with canvas(title) as (figure, axes):
        for position, (kind, classes) in enumerate((("given (wrong)", given), ("true", true))):
            lines = p[:, noisy, classes[noisy]]
            axes.plot(epochs, 100 * lines, linewidth=0.6, alpha=0.35, color=colour(position))
            axes.plot(
                epochs, 100 * lines.mean(1), color=colour(position), linestyle=dashes(position), label=f"{kind} class"
            )
        axes.set_ylim(0, 100)
        axes.set_xlabel("epoch")
        axes.set_ylabel("probability, percent")
        legend(figure)
        ends = (p[-1, noisy, classes[noisy]].mean() for classes in (given, true))
        wrong, right = (percent(float(end)) for end in ends)
        described = (
            f"{len(noisy)} examples of seed {item.seed}, their mean thick. After the last epoch the given class has"
            f" {wrong}% and the true one {right}%."
        )
        return [plot(f"label-course-{method}", title, described, figure)]
