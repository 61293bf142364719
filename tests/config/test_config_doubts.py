"""Valid params that are probably mistakes."""

import pytest

from sglr import presets
from sglr.config import doubts, parse
from sglr.config.reader import validate
from sglr.on_arrays.arguments import put


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        ("threat", {"eps_255": 8 / 255}, "threat.eps_255 0.0313725 is 0.0313725/255, less than one step of a byte"),
        ("threat", {"eps_255": 300}, "threat.eps_255 300 is 300/255, all images"),
        (
            "threat",
            {"norm": "l2", "eps_255": 0.5},
            "threat.eps_255 0.5 is an L2 radius of 0.002: radii are given in 255",
        ),
        (
            "experiment",
            {"methods": ["sglr", "trades"]},
            "report.baseline at is not among experiment.methods (sglr, trades)",
        ),
        ("experiment", {"methods": ["sglr"]}, None),
        ("train", {"epochs": 40}, "milestones 45 come after the last of 40 epochs: the learning rate drops less often"),
        ("train", {"epochs": 10}, "milestones 30, 45 come after the last of 10 epochs: the learning rate never drops"),
        (
            "train",
            {"selection": {"steps": 10, "every": 20}},
            "train.selection.every 20 measures 3 of 60 epochs: so few candidates make",
        ),
    ],
)
def test_each_is_said_with_its_key(params, section, change, said):
    params[section] |= change
    params["evaluate"]["sweep"] = None
    found = doubts(validate(params))
    assert [said in doubt for doubt in found] == ([True] if said else [])


def test_what_is_shipped_raises_none(params):
    assert doubts(validate(params)) == []
    for name in presets.names():
        assert doubts(validate(parse(presets.render(name)))) == [], name


SMALLER = "does not include the radius trained for, threat.eps_255 4"
CHANGES = {
    "the radius alone": ({"threat.eps_255": 4.0}, [f"evaluate.sweep.eps_255 6.375, 12.75, 25.5, 38.25, 51 {SMALLER}"]),
    "no sweep": ({"threat.eps_255": 4.0, "evaluate.sweep": None}, []),
    "long steps": (
        {"train.attack.step_size_255": 13.0},
        ["train.attack.step_size_255 13 is more than half of the radius: threat.eps_255 is 25.5; null takes a quarter"],
    ),
    "half of it": ({"train.attack.step_size_255": 12.75}, []),
    "one long step": ({"train.attack": {"steps": 1, "step_size_255": 31.9, "random_start": True}}, []),
    "short steps": (
        {"analyze.attack.step_size_255": 2.0},
        ["analyze.attack.step_size_255 2 times 10 steps is less than the radius: threat.eps_255 is 25.5"],
    ),
    "short steps of a suite": (
        {"evaluate.attacks.pgd20.step_size_255": 1.0},
        ["evaluate.attacks.pgd20.step_size_255 1 times 20 steps is less than the radius"],
    ),
    "validation that is not there": (
        {"data.noisy_validation": True, "data.validation_size": 0},
        ["data.noisy_validation does nothing: data.validation_size is 0."],
    ),
    "validation without noise": (
        {"data.noisy_validation": True, "data.noise": {"kind": "none", "rate": 0.0, "seed": 0}},
        ["data.noisy_validation does nothing: the labels of digits are not known to be wrong."],
    ),
    "noisy validation": ({"data.noisy_validation": True}, []),
    "fewer examples": (
        {"evaluate.n_examples": 20},
        ["evaluate.attacks.autoattack.n_examples 50 is more than evaluate.n_examples 20, which bounds it."],
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_does_not_go_with_the_radius_or_the_examples(params, name):
    changes, said = CHANGES[name]
    for key, value in changes.items():
        put(params, key, value)
    found = doubts(validate(params))
    assert [text[: len(start)] for text, start in zip(found, said, strict=True)] == said


def test_usual_l2_balls_and_last_milestones_are_meant(params):
    params["threat"] = {"norm": "l2", "eps_255": 12.75}
    params["evaluate"]["sweep"]["eps_255"] = [12.75, 127.5]
    params["train"]["epochs"] = 45
    assert doubts(validate(params)) == []
