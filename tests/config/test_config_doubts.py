"""Valid params that are probably mistakes."""

import pytest

from sglr import presets
from sglr.config import doubts, parse
from sglr.config.reader import validate


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        ("threat", {"eps_255": 8 / 255}, "threat.eps_255 0.0313725 is 0.0313725/255, less than one step of a byte"),
        ("threat", {"eps_255": 300}, "threat.eps_255 300 is 300/255, all images"),
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
    (found,) = doubts(validate(params))
    assert said in found


def test_what_is_shipped_raises_none(params):
    assert doubts(validate(params)) == []
    for name in presets.names():
        assert doubts(validate(parse(presets.render(name)))) == [], name


def test_small_l2_balls_and_last_milestones_are_meant(params):
    params["threat"] = {"norm": "l2", "eps_255": 0.5}
    params["train"]["epochs"] = 45
    assert doubts(validate(params)) == []
