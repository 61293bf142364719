"""Combinations of methods that mean nothing, or do not fit a shared warm-up, are refused with the reason."""

import pytest

from sglr.config import ConfigError
from sglr.config.reader import validate


def at(**labels) -> dict:
    return {"objective": "at", "labels": labels, "weights": "none"}


@pytest.mark.parametrize(
    ("objective", "labels", "message"),
    [
        ("at", {"name": "self_adaptive"}, "is defined on objective 'trades', not on 'at'"),
        ("mart", {"name": "self_adaptive"}, "is defined on objective 'trades', not on 'mart'"),
        ("standard", {"name": "ensembling"}, "regularises adversarial predictions; 'standard' makes none"),
        ("trades", {"name": "hard", "natural_forward_from": 2}, "forwards natural images itself"),
        ("mart", {"name": "hard", "natural_forward_from": 2}, "forwards natural images itself"),
        ("standard", {"name": "hard", "natural_forward_from": 2}, "forwards natural images itself"),
    ],
)
def test_combinations_that_mean_nothing_are_refused_with_the_reason(params, objective, labels, message):
    params["methods"]["tested"] = {"objective": objective, "labels": labels, "weights": "none"}
    with pytest.raises(ConfigError, match=message) as error:
        validate(params)
    assert "methods.tested" in str(error.value)


@pytest.mark.parametrize(
    ("key", "method"),
    [
        ("labels.start_epoch", at(name="ensembling", start_epoch=61)),
        ("labels.natural_forward_from", at(name="hard", natural_forward_from=61)),
        ("weights.start_epoch", at(name="hard") | {"weights": {"name": "swa", "start_epoch": 61}}),
        ("weights.start_epoch", at(name="hard") | {"weights": {"name": "awp", "start_epoch": 61}}),
    ],
)
def test_a_policy_that_would_never_begin_is_refused(params, key, method):
    params["methods"]["tested"] = method
    params["experiment"]["methods"] = ["at", "tested"]
    with pytest.raises(ConfigError, match=rf"methods\.tested\.{key} 61 .*train\.epochs 60.*never begin"):
        validate(params)


@pytest.mark.parametrize(
    ("part", "method", "fits"),
    [
        ("objective", {"objective": "trades", "labels": "hard", "weights": "none"}, False),
        ("objective", {"objective": "mart", "labels": "hard", "weights": "none"}, False),
        ("objective", {"objective": "standard", "labels": "hard", "weights": "none"}, False),
        ("labels", at(name="smoothing"), False),
        ("labels", at(name="refinement", start_epoch=5), False),
        ("labels", at(name="refinement", start_epoch=6), True),
        ("labels", at(name="ensembling", start_epoch=5), False),
        ("labels", at(name="ensembling", start_epoch=6), True),
        ("labels", at(name="hard", natural_forward_from=5), False),
        ("labels", at(name="hard", natural_forward_from=6), True),
        ("weights", at(name="hard") | {"weights": "awp"}, False),
        ("weights", at(name="hard") | {"weights": {"name": "awp", "start_epoch": 6}}, True),
        ("weights", at(name="hard") | {"weights": "ema"}, False),
        ("weights", at(name="hard") | {"weights": {"name": "swa", "start_epoch": 6}}, True),
    ],
)
def test_what_differs_within_a_shared_warm_up_cannot_continue_it(params, part, method, fits):
    params["warmup"] |= {"objective": "adversarial", "epochs": 5}
    params["methods"]["tested"] = method
    params["experiment"]["methods"] = ["at", "tested"]
    if not fits:
        with pytest.raises(ConfigError, match=rf"methods\.tested cannot continue the shared .*its {part} \("):
            validate(params)
        params["methods"]["tested"]["start"] = "initial"
    validate(params)
