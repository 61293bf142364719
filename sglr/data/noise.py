"""Injected label noise, in the three conventions of the literature.

They differ in the share of labels that end up wrong: at rate 0.4 with ten classes, *symmetric* makes about 36% wrong,
*symmetric-other* 40%, *asymmetric* 40% of the classes that have a partner.
"""

import math
from fractions import Fraction
from typing import Any

import numpy as np

from sglr.config import ConfigError
from sglr.config.sections import Noise
from sglr.data.arrays import Array
from sglr.data.registry import SourceOptions
from sglr.random import numpy_stream

CONVENTIONS = {
    "none": "no label was changed",
    "symmetric": "floor(rate * n) examples, drawn without replacement, get a label drawn uniformly from all classes,"
    " the true one included",
    "symmetric-other": "floor(rate * n) examples, drawn without replacement, get a label drawn uniformly from the"
    " wrong classes",
    "asymmetric": "floor(rate * n_c) of the n_c examples of each class c of the map, drawn without replacement, get the"
    " label that the map gives for c",
}


def describe(noise: Noise, source: SourceOptions, num_classes: int, *, per_seed: bool) -> dict[str, Any]:
    """The noise as recorded in meta.json, complete enough to draw it again. Raises ConfigError for a bad class map."""
    described: dict[str, Any] = {
        "kind": noise.kind,
        "rate": noise.rate,
        "seed": noise.seed,
        "per_seed": per_seed,
        "map": settle_map(noise, source, num_classes),
        "convention": CONVENTIONS[noise.kind],
    }
    if per_seed and noise.kind != "none":
        described["note"] = (
            "given_train.npy is the draw of the noise seed alone (as is given_val.npy where validation is noisy); each"
            " run draws its own from that seed and the run's"
        )
    return described


def settle_map(noise: Noise, source: SourceOptions, num_classes: int) -> dict[int, int] | None:
    """The class map of asymmetric noise: the one in params, else the source's own; None for the other kinds.

    Raises ConfigError when there is none, or when it names classes that do not exist or maps a class to itself.
    """
    if noise.kind != "asymmetric":
        return None
    found = noise.map if noise.map is not None else source.asymmetric_map()
    if not found:
        raise ConfigError(
            f"data.noise.map: asymmetric noise needs a map from class to class, because the source {source.name!r} has"
            " none; for example {0: 1, 1: 0}"
        )
    for pair in found.items():
        if not all(0 <= label < num_classes for label in pair) or pair[0] == pair[1]:
            raise ConfigError(
                f"data.noise.map: {pair[0]} -> {pair[1]} must lead from one class to another of 0 to {num_classes - 1}"
            )
    return dict(found)


def draw(
    true: Array,
    *,
    kind: str,
    rate: float,
    num_classes: int,
    class_map: dict[int, int] | None,
    rng: np.random.Generator,
) -> Array:
    """Given labels (N,) int64: a copy of the true ones (N,), with noise as ``CONVENTIONS[kind]`` says."""
    given = np.array(true, dtype=np.int64)
    if kind == "none":
        return given
    if kind == "asymmetric":
        for source, target in sorted((class_map or {}).items()):
            members = np.flatnonzero(true == source)
            given[rng.permutation(members)[: share(rate, len(members))]] = target
        return given
    chosen = np.sort(rng.permutation(len(given))[: share(rate, len(given))])
    if kind == "symmetric":
        given[chosen] = rng.integers(0, num_classes, len(chosen))
    elif kind == "symmetric-other":
        given[chosen] = (given[chosen] + rng.integers(1, num_classes, len(chosen))) % num_classes
    else:
        raise ConfigError(f"data.noise.kind: {kind!r} is unknown; known: {', '.join(CONVENTIONS)}")
    return given


def draw_for(
    true: Array, description: dict[str, Any], num_classes: int, run_seed: int | None, *, validation: bool = False
) -> Array:
    """Given labels (N,) for ``meta["noise"]``: of the noise seed alone, or of the pair (noise seed, run seed)."""
    purpose = "label noise" if run_seed is None else f"label noise of run {run_seed}"
    if validation:
        purpose += ", validation"
    class_map = description["map"]
    return draw(
        true,
        kind=description["kind"],
        rate=description["rate"],
        num_classes=num_classes,
        class_map=None if class_map is None else {int(key): value for key, value in class_map.items()},
        rng=numpy_stream(description["seed"], purpose),
    )


def of_the_data(given: Array, noise: Noise, description: dict[str, Any]) -> Array:
    """The labels (N,) that the data comes with, noted in ``description``; ConfigError for noise on top."""
    if noise.kind != "none":
        raise ConfigError(
            f"data.noise.kind: {noise.kind!r} does not fit data that has wrong labels of its own (given_train);"
            " use none"
        )
    description["convention"] = "labels as the data gives them"
    return given


def share(rate: float, count: int) -> int:
    """floor(rate * count) for the rate as it is written: in binary 0.29 * 100 would come out as 28.999..."""
    return math.floor(Fraction(repr(float(rate))) * count)
