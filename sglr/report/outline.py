"""What was done, in a few lines: data, network, perturbations, training, methods and attacks."""

import json
from typing import Any

import numpy as np

from sglr.config import Config, Options, Section
from sglr.config.wording import counted
from sglr.objectives import Objective, ObjectiveOptions
from sglr.report.study import Study
from sglr.report.wording import percent, quoted

_NOISY = " with labels as wrong as those of training,"


def outline(study: Study) -> dict[str, str]:
    """By heading; options that are null are left out."""
    config = study.config
    lines = {
        "data": _data(study),
        "network": _options(config.model),
        "perturbations": within(config),
        "training": _training(config),
    }
    if any(_attacks(study, method) for method in study.methods):
        lines["attack in training"] = _attack(config)
    if study.has_best:
        examples = counted(config.data.validation_size, "validation example")
        labelled = "" if not _wrong(study) else _NOISY if config.data.noisy_validation else " with true labels"
        lines["best epoch"] = f"chosen on {examples}{labelled} {chosen_under(study)}"
    for method in study.methods:
        chosen = config.methods[method]
        parts = (("labels", chosen.labels), ("weights", chosen.weights))
        lines[f"method {quoted(method)}"] = "; ".join(
            [
                f"objective {_options(chosen.objective)}{_own_attack(study, method)}",
                *(f"{part} {_options(options)}" for part, options in parts),
            ]
            + (["from the initial weights"] if chosen.start == "initial" else [])
        )
    lines |= {f"attack {name}": _options(options) for name, options in config.evaluate.attacks.items()}
    return lines


def within(config: Config) -> str:
    """'within 8/255 in Linf'."""
    return f"within {config.threat.eps_255:g}/255 in {config.threat.norm.capitalize()}"


def chosen_under(study: Study) -> str:
    """The attack under which best epochs were chosen; those of methods that train without one are chosen without."""
    pgd = f"under PGD-{study.config.train.selection.steps}"
    natural = [method for method in study.methods if not _attacks(study, method)]
    if not natural:
        return pgd
    if len(natural) == len(study.methods):
        return "by natural accuracy"
    return f"{pgd} ({', '.join(map(quoted, natural))}: by natural accuracy)"


def _objective(study: Study, method: str) -> Objective:
    config = study.config
    options: ObjectiveOptions = config.methods[method].for_seed(config.experiment.seeds[0]).objective
    return options.build()


def _attacks(study: Study, method: str) -> bool:
    return _objective(study, method).attacks


def _own_attack(study: Study, method: str) -> str:
    return ", which attacks in a way of its own" if _objective(study, method).own_attack else ""


def _wrong(study: Study) -> float:
    """The share of training labels that are wrong."""
    return float(np.mean([(item.labels["given"] != item.labels["true"]).mean() for item in study.items]))


def _data(study: Study) -> str:
    meta, data = study.meta, study.config.data
    parts = {"train": "training", "validation": "validation", "test": "test"}
    sizes = ", ".join(f"{meta['sizes'][part]:,} {called}" for part, called in parts.items())
    shape = "x".join(map(str, meta["shape"]))
    wrong = _wrong(study)
    drawn = f"{data.noise.kind} noise, rate {data.noise.rate:g}"
    origin = drawn if data.noise.kind != "none" else "as the data has them"
    labels = (
        f"{percent(wrong)}% of the training labels wrong ({origin})" if wrong else "no training label known as wrong"
    )
    return f"{_options(data.source)}: {sizes} images of {shape}, {meta['num_classes']} classes; {labels}"


def _training(config: Config) -> str:
    train, warmup, augment = config.train, config.warmup, config.data.augment
    epochs = f"{counted(train.epochs, 'epoch')} in batches of {train.batch_size}"
    begun = any(config.methods[name].start == "warmup" for name in config.experiment.methods)
    if warmup.epochs and begun:
        kind = f"of natural training before, rate {warmup.lr:g}" if warmup.objective == "standard" else "of them shared"
        epochs += f" ({counted(warmup.epochs, 'epoch')} {kind})"
    crops = [f"crops after padding by {augment.crop_padding}"] if augment.crop_padding else []
    changed = [*crops, *(["flips"] if augment.flip else []), *map(_options, augment.more)]
    return "; ".join([
        epochs,
        f"SGD ({_values(train.optimizer)})",
        f"schedule {_options(train.schedule)}",
        f"augmentation {' and '.join(changed) or 'none'}",
        train.precision,
    ])  # fmt: skip


def _attack(config: Config) -> str:
    attack, eps = config.train.attack, config.threat.eps_255 / 255
    start = "a random start" if attack.random_start else "no random start"
    size = f"{255 * attack.step_size(eps):g}/255"
    return f"PGD-{attack.steps}, steps of {size}, {start}, batch norm in {config.train.attack_bn} mode"


def _options(options: Options) -> str:
    """'refinement (self-guided label refinement; start_epoch 6, alpha 0.9)'."""
    said = [part for part in (options.title, _values(options)) if part]
    return f"{options.name} ({'; '.join(said)})" if said else str(options.name)


def _values(section: Section) -> str:
    given = section.model_dump(mode="json", exclude={"name"}, exclude_none=True)
    return ", ".join(f"{key} {_value(getattr(section, key), value)}" for key, value in given.items())


def _value(typed: Any, plain: Any) -> str:
    """A value in words, given as it is and as JSON has it."""
    if isinstance(typed, tuple) and typed and all(isinstance(part, Options) for part in typed):
        return " and ".join(map(_options, typed))
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
