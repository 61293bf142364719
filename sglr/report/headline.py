"""The answer in words: does a method close the baseline's robust overfitting gap, by how much, how certainly."""

from typing import Any

from sglr.config.wording import counted
from sglr.report.outline import within
from sglr.report.study import Study
from sglr.report.table import Row
from sglr.report.wording import bounds, percent, quoted

# With more methods than these beside the baseline one sentence for each is no answer: it is summed up.
_FEW = 5
CLAIMS = {
    "narrows": "{method} narrows the {gap} of {baseline} {under}",
    "unchanged": "{method} does not significantly change the {gap} of {baseline} {under}",
    "widens": "{method} widens the {gap} of {baseline} {under}",
    "no_gap": "{baseline} shows no significant {gap} {under}; with {method} it {changes}",
}


def headline(study: Study, results: Row) -> Row:
    """The attack it is about, one verdict per method (a sentence on the gap, one on accuracy), and what qualifies them.

    Of more than five beside the baseline ``summary`` is a verdict on all, else None, ``each`` holds their sentences.

    Verdicts: narrows, unchanged, widens, no_gap (the baseline does not overfit), no_best (no validation split, so no
    best epoch). A closed gap is not a verdict: the remainder is given with its interval, and where that contains 0,
    too few seeds or examples may be the reason.
    """
    attack = headline_attack(study)
    baseline = study.config.report.baseline
    others = [method for method in study.methods if method != baseline] if baseline in study.methods else []
    verdicts = [_verdict(results, attack, method, baseline) for method in others]
    also = [name for name in headline_attacks(study) if name != attack]
    details = [] if others else [_alone(study, results, attack, method) for method in study.methods]
    details += [_gap_of_baseline(results, attack, baseline)] if others and study.has_best else []
    more = [_more(results, name, method, baseline) for name in also for method in others]
    many = len(others) > _FEW
    details += [] if many else more
    details += [_how_counted(study, results, attack)]
    if not study.has_best:
        details.append("There is no validation split, so no best epoch and no gap: only the last epoch is reported.")
    return {
        "attack": attack,
        "verdicts": verdicts,
        "details": details,
        "summary": _summary(results, attack, verdicts, baseline) if many else None,
        "each": [*(f"{row['sentence']} {row['accuracy']}".strip() for row in verdicts), *more] if many else [],
    }


def headline_attack(study: Study) -> str:
    """The attack run on most test examples; among equals AutoAttack, then most gradients, then the last listed."""
    names = list(study.config.evaluate.attacks)
    if not names:
        return "natural"

    def strength(name: str) -> tuple[float, ...]:
        passes = study.config.evaluate.attacks[name].passes(study.meta["num_classes"])
        examples = min(len(item.index[name]) for item in study.items)
        return examples, _is_autoattack(study, name), passes[1] if passes else -1, names.index(name)

    return max(names, key=strength)


def headline_attacks(study: Study) -> list[str]:
    """The headline's attack, any AutoAttack, and any attack with another loss than the headline's on as many examples,
    in the order of params.yaml."""
    main = headline_attack(study)
    return [
        name for name in study.attacks
        if name == main or _is_autoattack(study, name) or _has_another_loss(study, name, main)
    ]  # fmt: skip


def gap_name(attack: str) -> str:
    """The name of best minus last under an attack: without one it has nothing to do with robustness."""
    return "overfitting gap" if attack == "natural" else "robust overfitting gap"


def _has_another_loss(study: Study, name: str, main: str) -> bool:
    """An attack whose loss the headline's does not ascend: one alone can flatter a method."""
    attacks = study.config.evaluate.attacks
    loss, other = (getattr(attacks.get(attack), "loss", None) for attack in (name, main))
    as_many = all(len(item.index[name]) == len(item.index[main]) for item in study.items)
    return None not in (loss, other) and loss != other and as_many


def _is_autoattack(study: Study, name: str) -> bool:
    options = study.config.evaluate.attacks.get(name)
    return options is not None and options.name == "autoattack"


def _verdict(results: Row, attack: str, method: str, baseline: str) -> Row:
    ours, theirs = (_accuracy(results, attack, name)["gap"] for name in (method, baseline))
    last = _comparison(results, attack, method, "last_gain")
    if ours is None:
        sentence = f"{_capital(_under(attack))}, {quoted(method)} ends {_against(last, quoted(baseline))}."
        return {"method": method, "verdict": "no_best", "sentence": sentence, "accuracy": ""}
    change = _comparison(results, attack, method, "gap_reduction")
    verdict = _judge(theirs, change)
    changes = "does not change significantly" if change["low"] <= 0 <= change["high"] else "changes"
    claim = CLAIMS[verdict].format(
        method=quoted(method), baseline=quoted(baseline), gap=gap_name(attack), under=_under(attack), changes=changes
    )
    sentence = f"{claim}: from {percent(theirs['mean'])} to {percent(ours['mean'])} points, {_change(change)}"
    best = _comparison(results, attack, method, "best_gain")
    if best["high"] < 0:
        link = "but" if verdict == "narrows" else "and"
        sentence += f", {link} its best epoch is {_against(best, f'that of {quoted(baseline)}')}"
    sentence += "."
    stopped = _comparison(results, attack, method, "last_over_best")
    return {
        "method": method,
        "verdict": verdict,
        "sentence": f"{sentence} {_left(ours)}" if verdict == "narrows" else sentence,
        "accuracy": (
            f"At the last epoch {quoted(method)} is {_against(last, quoted(baseline))}; compared with"
            f" {quoted(baseline)} with early stopping, which takes no further training, it is"
            f" {_against(stopped, 'that')}."
        ),
    }


def _summary(results: Row, attack: str, verdicts: list[Row], baseline: str) -> Row:
    """As a verdict, of all: which methods do what to the gap, and how they end beside the baseline and its best
    epoch."""
    kinds, methods = {row["verdict"] for row in verdicts}, [row["method"] for row in verdicts]
    gap = f"The {gap_name(attack)} of {quoted(baseline)} {_under(attack)} is"
    if "no_gap" in kinds:
        gap = f"{quoted(baseline)} shows no significant {gap_name(attack)} {_under(attack)}; it is"
    better = ("better:", "not significantly different:", "worse:")
    told = [
        f"{place} {groups}."
        for place, quantity, words in (
            (gap, "gap_reduction", ("narrowed by", "not changed significantly by", "widened by")),
            (f"At the last epoch, beside {quoted(baseline)},", "last_gain", better),
            (f"Beside {quoted(baseline)} with early stopping,", "last_over_best", better),
        )
        if (groups := _grouped(results, attack, methods, quantity, words))
    ]
    return {"sentence": told[0], "accuracy": " ".join(told[1:])}


def _grouped(results: Row, attack: str, methods: list[str], quantity: str, words: tuple[str, str, str]) -> str:
    """'narrowed by 2 (‘a’, ‘b’), widened by 1 (‘c’)': where a difference is above, around and below 0; '' where it is
    not known of all."""
    rows = [(name, _comparison(results, attack, name, quantity)) for name in methods]
    if not all(row for _, row in rows):
        return ""
    groups = (
        [name for name, row in rows if row["low"] > 0],
        [name for name, row in rows if row["low"] <= 0 <= row["high"]],
        [name for name, row in rows if row["high"] < 0],
    )
    named = ((word, names) for word, names in zip(words, groups, strict=True) if names)
    return ", ".join(f"{word} {len(names)} ({', '.join(map(quoted, names))})" for word, names in named)


def _judge(theirs: Row, change: Row) -> str:
    if theirs["low"] <= 0:
        return "no_gap"
    if change["low"] <= 0:
        return "widens" if change["high"] < 0 else "unchanged"
    return "narrows"


def _left(ours: Row) -> str:
    """The remainder of a narrowed gap."""
    if ours["high"] < 0:
        above = f"{percent(-ours['mean'])} points above its best {bounds(_turned(ours))}"
        return f"No gap is left: its last epoch is {above}."
    told = "" if ours["low"] > 0 else "not "
    return f"The remaining gap, {percent(ours['mean'])} {bounds(ours)}, is {told}significantly different from 0."


def _change(row: Row) -> str:
    """'17.5 less [14.2, 20.6]'."""
    if row["estimate"] >= 0:
        return f"{percent(row['estimate'])} less {bounds(row)}"
    return f"{percent(-row['estimate'])} more {bounds(_turned(row))}"


def _against(row: Row, reference: str) -> str:
    """'20.4 points above at [17.3, 23.6]', in words that respect an interval around 0."""
    if row["low"] <= 0 <= row["high"]:
        return f"not significantly different from {reference} ({percent(row['estimate'])} points {bounds(row)})"
    if row["estimate"] > 0:
        return f"{percent(row['estimate'])} points above {reference} {bounds(row)}"
    return f"{percent(-row['estimate'])} points below {reference} {bounds(_turned(row))}"


def _turned(row: Row) -> Row:
    """The interval of the opposite difference."""
    return {"low": -row["high"], "high": -row["low"]}


def _gap_of_baseline(results: Row, attack: str, baseline: str) -> str:
    row = _accuracy(results, attack, baseline)
    return (
        f"{quoted(baseline)} has {percent(row['best']['mean'])}% {_kind(attack)} accuracy at its best epoch and"
        f" {percent(row['last']['mean'])}% at its last: a gap of {percent(row['gap']['mean'])} points"
        f" {bounds(row['gap'])}."
    )


def _alone(study: Study, results: Row, attack: str, method: str) -> str:
    row = _accuracy(results, attack, method)
    text = f"{quoted(method)} ends with {percent(row['last']['mean'])}% {_kind(attack)} accuracy {_under(attack)}"
    gap = row["gap"]
    if gap is not None and gap["low"] <= 0 <= gap["high"]:
        text += f", not significantly different from its best epoch: the {gap_name(attack)} is"
        text += f" {percent(gap['mean'])} points {bounds(gap)}"
    elif gap is not None and gap["mean"] < 0:
        text += f", {percent(-gap['mean'])} points {bounds(_turned(gap))} above its best epoch: no {gap_name(attack)}"
    elif gap is not None:
        text += f", {percent(gap['mean'])} points {bounds(gap)} below its best epoch: the {gap_name(attack)}"
    baseline = study.config.report.baseline
    missing = "" if baseline in study.methods else f" The baseline {quoted(baseline)} is not among the methods listed."
    return f"{text}. There is nothing to compare it with.{missing}"


def _more(results: Row, attack: str, method: str, baseline: str) -> str:
    """The same differences under a further attack, usually on fewer examples."""
    parts = []
    for quantity, name in (
        ("gap_reduction", "gap smaller by"),
        ("last_gain", f"last against last of {quoted(baseline)}"),
        ("last_over_best", f"last against best of {quoted(baseline)}"),
    ):
        row = _comparison(results, attack, method, quantity)
        if row is not None and quantity == "gap_reduction" and row["estimate"] < 0:
            name, row = "gap larger by", {**_turned(row), "estimate": -row["estimate"]}
        if row is not None:
            doubt = ", not significant" if row["low"] <= 0 <= row["high"] else ""
            parts.append(f"{name} {percent(row['estimate'])} {bounds(row)}{doubt}")
    examples = counted(_accuracy(results, attack, method)["examples"], "test example")
    return f"Under {attack} ({examples}), {quoted(method)}, in points: {'; '.join(parts)}."


def _how_counted(study: Study, results: Row, attack: str) -> str:
    seeds = len(study.config.experiment.seeds)
    examples = min(row["examples"] for row in results["accuracy"] if row["attack"] == attack)
    allowed = "" if attack == "natural" else f"Perturbations {within(study.config)}. "
    if seeds == 1:
        return (
            f"{allowed}One seed, {counted(examples, 'test example')}: the 95% intervals count test examples only, not"
            " how much one training run differs from the next."
        )
    return (
        f"{allowed}{counted(seeds, 'seed')} × {counted(examples, 'test example')}; in brackets 95% intervals of a"
        " hierarchical bootstrap over both, with Student's t for the number of each."
    )


def _accuracy(results: Row, attack: str, method: str) -> Row:
    return next(row for row in results["accuracy"] if (row["attack"], row["method"]) == (attack, method))


def _comparison(results: Row, attack: str, method: str, quantity: str) -> Any:
    keys, wanted = ("attack", "method", "quantity"), (attack, method, quantity)
    return next((row for row in results["comparisons"] if tuple(row[key] for key in keys) == wanted), None)


def _under(attack: str) -> str:
    return "without an attack" if attack == "natural" else f"under {attack}"


def _kind(attack: str) -> str:
    return "natural" if attack == "natural" else "robust"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
