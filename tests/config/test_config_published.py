"""What a component is when it is only named: its authors' settings; docs/methods.md gives the sources."""

import pytest

from sglr import attacks, labels, objectives, weights

PUBLISHED = [
    (labels, {"name": "ensembling"}, {"start_epoch": 90, "ramp_epochs": 60, "momentum": 0.9, "weight": 300.0}),
    (labels, {"name": "self_adaptive"}, {"start_epoch": 70, "momentum": 0.9}),
    (
        labels,
        {"name": "self_distillation"},
        {"first_temperature": 2.5, "last_temperature": 2.0, "first_share": 0.7, "last_share": 0.95},
    ),
    (
        labels,
        {"name": "refinement", "start_epoch": 90},
        {
            "alpha": 0.9, "adversarial_weight": 0.8, "refinement_ratio": 1, "ratio_schedule": "constant",
            "hard_targets": False, "natural_bn": "train",
        },
    ),
    (objectives, {"name": "trades"}, {"beta": 6.0}),
    (objectives, {"name": "mart"}, {"weight": 5.0}),
    (weights, {"name": "awp"}, {"gamma": 0.01, "start_epoch": 1}),
    (weights, {"name": "ema"}, {"decay": 0.995}),
    (attacks, {"name": "apgd"}, {"steps": 100, "restarts": 1, "loss": "ce"}),
    (attacks, {"name": "square"}, {"queries": 5000, "restarts": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("room", "named", "published"), PUBLISHED, ids=[named["name"] for _, named, _ in PUBLISHED])
def test_defaults_are_the_authors_settings(room, named, published):
    options = room.REGISTRY.options(**named)
    assert {key: getattr(options, key) for key in published} == published
