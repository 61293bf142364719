"""What the row ``worst`` covers, and its name where people read it: attacks on fewer examples are no part of it."""

from collections.abc import Mapping

from sglr.config.names import WORST

# With more attacks than these a name that lists them would make a table too wide.
_LISTED = 2


def covered(examples: Mapping[str, int]) -> list[str]:
    """The attacks that were run on as many examples as the suite, from how many each was run on; "natural" among them
    is the suite's, and neither it nor "worst" is an attack."""
    return [name for name in _attacks(examples) if examples[name] == examples["natural"]]


def row_title(attack: str, examples: Mapping[str, int]) -> str:
    """The name of an attack's row: "worst of fgsm, pgd20" for "worst", every other as it is."""
    names = covered(examples)
    if attack != WORST:
        return attack
    return f"worst of {', '.join(names) if len(names) <= _LISTED else f'{len(names)} attacks'}"


def explained(examples: Mapping[str, int]) -> str:
    """A sentence on the row "worst" that says what it leaves out; '' where there is no such row."""
    if WORST not in examples:
        return ""
    names = covered(examples)
    others = [name for name in _attacks(examples) if name not in names]
    without = f"; without {', '.join(others)}, run on fewer examples" if others else ""
    return f"Worst: correct under every one of {', '.join(names)}{without}."


def _attacks(examples: Mapping[str, int]) -> list[str]:
    return [name for name in examples if name not in ("natural", WORST)]
