"""Warnings about valid settings that are probably mistakes; never errors."""

import math
from collections.abc import Iterator

from sglr.config.study import Config

# With fewer validations than these, choosing a best epoch is unreliable.
_CHOICES = 5
# An L2 radius, in 255ths: 0.05, shorter than any that is in use.
_SHORT = 12.75
# Attacks of so few steps may take longer ones: fast adversarial training does.
_FEW_STEPS = 2


def doubts(config: Config) -> list[str]:
    """Warnings about params that do less than they seem to, each beginning with its key."""
    return [
        *_radius(config), *_steps(config), *_sweep(config), *_examples(config), *_schedule(config),
        *_selection(config), *_validation(config), *_baseline(config),
    ]  # fmt: skip


def _radius(config: Config) -> list[str]:
    eps = config.threat.eps_255
    if config.threat.norm == "linf" and not 1 <= eps <= 255:
        return [
            f"threat.eps_255 {eps:g} is {eps:g}/255, {'less than one step of a byte' if eps < 1 else 'all images'}:"
            " radii are given in 255ths (8 for 8/255; from Python Linf(8 / 255))."
        ]
    if config.threat.norm == "l2" and eps < _SHORT:
        return [
            f"threat.eps_255 {eps:g} is an L2 radius of {eps / 255:.2g}: radii are given in 255ths (127.5 for 0.5; from"
            " Python L2(0.5))."
        ]
    return []


def _baseline(config: Config) -> list[str]:
    baseline, methods = config.report.baseline, config.experiment.methods
    if len(methods) == 1 or baseline in methods:
        return []
    return [
        f"report.baseline {baseline} is not among experiment.methods ({', '.join(methods)}): the report will compare"
        " nothing."
    ]


def _steps(config: Config) -> Iterator[str]:
    """Whether attacks' steps are long or short beside the radius, as when only the radius was changed."""
    eps = config.threat.eps_255
    attacks = {"train.attack": config.train.attack, "analyze.attack": config.analyze.attack}
    attacks |= {f"evaluate.attacks.{name}": options for name, options in config.evaluate.attacks.items()}
    for key, attack in attacks.items():
        steps, size = getattr(attack, "steps", 1), getattr(attack, "step_size_255", None)
        if size is None or steps <= _FEW_STEPS:
            continue
        advice = f"threat.eps_255 is {eps:g}; null takes a quarter of it."
        if size > eps / 2:
            yield f"{key}.step_size_255 {size:g} is more than half of the radius: {advice}"
        elif steps * size < eps:
            yield f"{key}.step_size_255 {size:g} times {steps} steps is less than the radius: {advice}"


def _sweep(config: Config) -> Iterator[str]:
    eps, sweep = config.threat.eps_255, config.evaluate.sweep
    if sweep is not None and not any(math.isclose(radius, eps) for radius in sweep.eps_255):
        radii = ", ".join(f"{radius:g}" for radius in sweep.eps_255)
        yield f"evaluate.sweep.eps_255 {radii} does not include the radius trained for, threat.eps_255 {eps:g}."


def _examples(config: Config) -> Iterator[str]:
    most = config.evaluate.n_examples
    for name, options in config.evaluate.attacks.items():
        if most is not None and options.n_examples is not None and options.n_examples > most:
            yield (
                f"evaluate.attacks.{name}.n_examples {options.n_examples} is more than evaluate.n_examples {most},"
                " which bounds it."
            )


def _schedule(config: Config) -> list[str]:
    schedule, epochs = config.train.schedule, config.train.epochs
    if schedule.name != "step":
        return []
    late = [milestone for milestone in schedule.milestones if milestone > epochs]
    if not late:
        return []
    left = "drops less often than that" if len(late) < len(schedule.milestones) else "never drops"
    return [
        f"train.schedule.milestones {', '.join(map(str, late))} come after the last of {epochs} epochs: the learning"
        f" rate {left}."
    ]


def _selection(config: Config) -> list[str]:
    every, epochs = config.train.selection.every, config.train.epochs
    measured = -(-epochs // every)
    if every == 1 or measured >= _CHOICES or not config.data.validation_size:
        return []
    return [
        f"train.selection.every {every} measures {measured} of {epochs} epochs: so few candidates make"
        " the best epoch, and the gap, unreliable."
    ]


def _validation(config: Config) -> list[str]:
    data = config.data
    if not data.noisy_validation:
        return []
    if not data.validation_size:
        return ["data.noisy_validation does nothing: data.validation_size is 0."]
    # Others may bring wrong labels of their own.
    if data.noise.kind == "none" and data.source.name in ("digits", "folders"):
        return [f"data.noisy_validation does nothing: the labels of {data.source.name} are not known to be wrong."]
    return []
