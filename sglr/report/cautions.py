"""Cautions about the results, made from the facts of this study."""

from collections.abc import Iterator
from typing import Any

from sglr.config import doubts
from sglr.config.sections import Method
from sglr.config.wording import counted
from sglr.data import seen_before
from sglr.report.accuracy_tables import DIFFERENCES
from sglr.report.curves import label_starts
from sglr.report.headline import headline_attack
from sglr.report.outline import chosen_under
from sglr.report.study import Study
from sglr.report.wording import percent, quoted

FEW_SEEDS = 10
# A difference from the baseline that a stronger attack finds smaller by so much is said to be overstated.
_OVERSTATED = 0.01


def cautions(study: Study, results: dict[str, Any]) -> list[str]:
    """The cautions that apply, most important first."""
    return [*_sampling(study, results), *_attacks(study, results), *_setting(study, results), *_sources(study)]


def _sampling(study: Study, results: dict[str, Any]) -> Iterator[str]:
    seeds, config = len(study.config.experiment.seeds), study.config
    if seeds == 1:
        yield "One seed: no deviation can be given, and another training run may differ by more than any interval here."
    elif seeds < FEW_SEEDS:
        yield (
            f"Only {counted(seeds, 'seed')}: the variance between seeds is poorly estimated. Intervals are"
            " therefore wide, and assume normally distributed seed effects."
        )
    if len({row["method"] for row in results["comparisons"]}) > 1:
        yield "Several methods are compared with the baseline; the intervals are not corrected for that."
    shared = []
    if config.data.validation_size:
        shared.append("the split into training and validation")
    elif config.data.train_size is not None:
        shared.append("the choice of training examples")
    drawn = config.data.noise.kind != "none"
    if study.wrong_labels and not (drawn and config.data.noise_per_seed):
        shared.append("the label noise" if drawn else "the wrong labels")
    if seeds > 1 and shared:
        yield f"All seeds share {' and '.join(shared)}: the intervals do not count what another draw would change."
    yield from seen_before(study.meta)
    yield from doubts(config)
    if study.has_best:
        yield from _early_best(study)
        yield from _late_best(study)
        examples = counted(config.data.validation_size, "validation example")
        yield (
            f"Best epochs were chosen on {examples} {chosen_under(study)}, never on the test set;"
            " with few of them the choice is noisy and makes the gap look smaller."
        )
        if study.wrong_labels and config.data.noisy_validation:
            yield (
                "Best epochs were chosen by validation labels that are as wrong as those of training: accuracies on"
                " validation data are lower than on the true labels of test data."
            )
        elif study.wrong_labels:
            yield (
                "Validation labels are clean: best epochs, including the early-stopped baseline's, rely on"
                " labels that may not exist in practice (data.noisy_validation)."
            )


def _early_best(study: Study) -> Iterator[str]:
    """For methods whose best epoch comes before their label policy acts."""
    for method, start in label_starts(study).items():
        items = study.of(method)
        early = [item for item in items if item.training["best_epoch"] < start]
        if early:
            yield (
                f"The best epoch of {quoted(method)} comes before its label policy acts (epoch {start}) with"
                f" {len(early)} of {counted(len(items), 'seed')}: it is an epoch of training with the given labels."
            )


def _late_best(study: Study) -> Iterator[str]:
    """For methods whose best epoch is the last, as where training is too short to overfit."""
    for method in study.methods:
        items = study.of(method)
        late = [item for item in items if item.training["best_epoch"] == item.training["epochs"]]
        if late:
            yield (
                f"The best epoch of {quoted(method)} is its last with {len(late)} of {counted(len(items), 'seed')}:"
                " its gap there is 0 by construction."
            )


def _attacks(study: Study, results: dict[str, Any]) -> Iterator[str]:
    main = headline_attack(study)
    examples = {row["attack"]: row["examples"] for row in results["accuracy"]}
    auto = [name for name, options in study.config.evaluate.attacks.items() if options.name == "autoattack"]
    if len(study.attacks) == 1:
        yield "No attack was run: nothing here says anything about robustness."
        return
    for name in auto:
        if examples[name] < examples[main]:
            yield (
                f"{name} was run on {examples[name]:,} of the {examples[main]:,} test examples only: its numbers are"
                f" coarse, one example is {percent(1 / examples[name])} points."
            )
    if not auto:
        yield f"AutoAttack was not run: accuracy under {main} may overstate robustness."
    elif main not in auto:
        yield f"The headline is about {main}, one attack with one loss: compare it with {' and '.join(auto)}."
    yield from _overstated(results, main)


def _overstated(results: dict[str, Any], main: str) -> Iterator[str]:
    """For methods of which other attacks on as many examples break more, where these leave less of a difference."""
    left = {(row["attack"], row["method"]): row["last"]["mean"] for row in results["accuracy"]}
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in results["comparisons"]:
        attack, method = row["attack"], row["method"]
        as_many = row["examples"] == results["examples"][main] and attack != "worst"
        if attack == main or (as_many and left[attack, method] < left[main, method]):
            found.setdefault((method, row["quantity"]), {})[attack] = row["estimate"]
    said: dict[str, list[str]] = {}
    for (method, quantity), points in found.items():
        lowest = min(points, key=points.__getitem__)
        if points[main] - points[lowest] >= _OVERSTATED:
            named = DIFFERENCES[quantity].format(baseline=quoted(results["experiment"]["baseline"]))
            shown = f"{named} is {percent(points[lowest])} points under {lowest}, not {percent(points[main])}"
            said.setdefault(method, []).append(shown)
    for method, differences in said.items():
        yield f"{main} overstates {quoted(method)}: {'; '.join(differences)}."


def _setting(study: Study, results: dict[str, Any]) -> Iterator[str]:
    config = study.config
    if config.data.noise.kind != "none":
        # The same for every method.
        wrong = percent(results["labels"][0]["wrong_before"]["mean"])
        yield (
            f"{percent(config.data.noise.rate)}% {config.data.noise.kind} label noise was injected into the training"
            f" labels, of which {wrong}% are wrong: gains may partly reflect robustness to that noise."
        )
    elif study.wrong_labels:
        share = percent(study.wrong_labels / study.meta["sizes"]["train"])
        yield (
            f"{share}% of the training labels are wrong, as the data gives them: gains may partly reflect"
            " robustness to that."
        )
    for row in results["labels"]:
        share = row["corrupted_share"]["mean"]
        if share:
            yield f"{quoted(row['method'])} refines {percent(share)}% of the correct training labels into wrong ones."
    alone = [name for name in study.methods if config.methods[name].start == "initial"]
    if config.warmup.objective == "standard" and config.warmup.epochs and 0 < len(alone) < len(study.methods):
        yield (
            f"{', '.join(map(quoted, alone))} began from the initial weights, the others after"
            f" {counted(config.warmup.epochs, 'epoch')} of natural training, which no cost here counts."
        )
    others = [name for name in study.methods if not config.methods[name].weights.trains_saved_weights]
    if others:
        yield (
            f"Training accuracies under PGD are not shown for {', '.join(map(quoted, others))}: the weights that are"
            " saved are not those of the training steps in which they are measured."
        )
    augment = config.data.augment
    if not (augment.crop_padding or augment.flip or augment.more):
        yield "There is no data augmentation, which makes overfitting easier to see than in the usual setting."
    shape = study.meta.get("shape")
    if isinstance(shape, list) and len(shape) == 3 and max(shape[1:]) < 32:
        yield f"Images of {shape[1]}x{shape[2]} pixels show the mechanism, not what happens on natural images."


def _sources(study: Study) -> Iterator[str]:
    batch_norm = study.config.model.has_batch_norm(study.meta["num_classes"], tuple(study.meta["shape"]))
    for method in study.methods:
        chosen = study.config.methods[method].for_seed(study.config.experiment.seeds[0])
        labels = chosen.labels
        ratio = getattr(labels, "refinement_ratio", 1.0)
        rises = getattr(labels, "ratio_schedule", "constant") == "linear"
        if ratio < 1 or rises:
            yield (
                f"{quoted(method)} mixes refined and given labels with {'a ratio that rises to' if rises else 'ratio'}"
                f" {ratio}: a reconstruction of the paper's formula; the authors' published code has no such ratio."
            )
        if batch_norm and _feeds_batch_norm(chosen):
            published = ", as the published code does," if labels.name == "refinement" else ""
            yield (
                f"{quoted(method)} forwards natural images in train mode{published} so they enter"
                " the batch-norm statistics: part of its effect may come from that and not from the labels."
            )
    yield "The analyses of information are reconstructions: the paper's estimators are not published."


def _feeds_batch_norm(method: Method) -> bool:
    """Whether natural images are in batch norm's statistics because of a method's labels.

    Not where the objective forwards them anyway, with hard labels too; nor of the control, whose labels are hard and
    which is there to show that effect.
    """
    natural = method.labels.natural_forward()
    if natural is None or method.labels.name == "hard":
        return False
    return natural.bn == "train" and bool(natural.is_added_to(method.objective.build()))
