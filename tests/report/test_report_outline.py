"""What was done, in a few lines: enough to know what the numbers are of."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import pytest

from sglr import config, presets
from sglr.config.reader import validate
from sglr.doctor import duration
from sglr.objectives.registry import REGISTRY, ObjectiveOptions
from sglr.objectives.trades import Trades
from sglr.report.cost import cost
from sglr.report.outline import outline
from sglr.report.results import collect
from sglr.report.study import read

Make = Callable[..., tuple[config.Config, Path]]


def of_preset(name: str, change: Callable[[dict[str, Any]], object] = lambda params: None) -> dict[str, str]:
    """Of a study without wrong labels."""
    params = config.parse(presets.render(name))
    change(params)
    settings: Any = validate(params)
    labels = dict.fromkeys(("given", "true"), np.zeros(4, dtype=np.int64))
    meta = {"sizes": {"train": 49_000, "validation": 1000, "test": 10_000}, "shape": [3, 32, 32], "num_classes": 10}
    methods, items = settings.experiment.methods, [SimpleNamespace(labels=labels)]
    study: Any = SimpleNamespace(config=settings, meta=meta, items=items, has_best=True, methods=methods)
    return outline(study)


def test_what_is_shown_of_a_study(make: Make) -> None:
    found = collect(read(*make()))["outline"]
    assert found["data"].startswith("digits (test_size ")
    assert found["data"].endswith(
        "images of 1x8x8, 3 classes; 40.0% of the training labels wrong (symmetric noise, rate 0.4)"
    )
    assert found["perturbations"] == "within 25.5/255 in Linf"
    epochs = "6 epochs in batches of 100 (1 epoch of natural training before, rate 0.05); SGD (lr 0.1, momentum 0.9, "
    assert found["training"].startswith(epochs)
    assert found["attack in training"] == "PGD-10, steps of 6.375/255, a random start, batch norm in eval mode"
    assert found["best epoch"] == "chosen on 200 validation examples with true labels under PGD-10"
    assert found["method ‘at’"] == "objective at (adversarial training); labels hard (the given labels); weights none"
    refined = "labels refinement (self-guided label refinement; start_epoch 4, alpha 0.9, adversarial_weight 0.8, "
    assert refined in found["method ‘sglr’"]
    assert found["attack pgd20"] == "pgd (steps 20, restarts 1, loss ce)"


def test_the_authors_setting() -> None:
    found = of_preset("cifar10-resnet18-sglr")
    assert found["data"] == (
        "cifar10: 49,000 training, 1,000 validation, 10,000 test images of 3x32x32, 10 classes; no training label known"
        " as wrong"
    )
    assert found["perturbations"] == "within 8/255 in Linf"
    assert found["training"].startswith("200 epochs in batches of 128")
    assert "augmentation crops after padding by 4 and flips" in found["training"]
    assert found["attack in training"].startswith("PGD-10, steps of 2/255, ")


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_told(name: str) -> None:
    found = of_preset(name)
    assert all(found.values())
    assert not any("None" in text or "null" in text for text in found.values())


def test_where_nothing_attacks_no_attack_is_told() -> None:
    def change(params: dict[str, Any]) -> None:
        params["methods"]["natural"] = {"objective": "standard", "labels": "hard", "weights": "none"}
        params["experiment"]["methods"] = ["natural"]

    found = of_preset("digits", change)
    assert "attack in training" not in found
    assert found["best epoch"] == "chosen on 200 validation examples by natural accuracy"


class Part(config.Section):
    weight: float | None = None
    words: tuple[str, ...] = ("é", "b")


class OwnOptions(ObjectiveOptions):
    """Can be built of a seed only."""

    file: str
    part: Part = Part()

    def for_seed(self, seed: int) -> Self:
        return self.model_copy(update={"file": self.file.format(seed=seed)})

    def build(self) -> Any:
        assert self.file == "teachers/0"
        return REGISTRY.options("at").build()


def test_options_of_ones_own_and_of_a_seed() -> None:
    def change(params: dict[str, Any]) -> None:
        own = OwnOptions(name="own", file="teachers/{seed}")
        params["methods"]["own"] = {"objective": own, "labels": "hard", "weights": "none", "start": "initial"}
        params["experiment"] |= {"methods": ["at", "own"], "seeds": [0]}

        settings.append(params)

    settings: list[dict[str, Any]] = []
    told = 'objective own (file teachers/{seed}, part {"words": ["é", "b"]}); labels hard (the given labels); '
    assert of_preset("digits", change)["method ‘own’"].startswith(told)
    study = validate(settings[0])
    at, own = cost(study)
    assert own == at | {"method": "own"}
    assert duration._gradients(study, {"train@at-0"}) > 0


def test_several_weight_policies_are_said_one_by_one() -> None:
    def change(params: dict[str, Any]) -> None:
        params["methods"]["both"] = params["methods"]["at"] | {"weights": {"name": "several", "of": ["awp", "none"]}}
        params["experiment"]["methods"] = ["both"]

    told = "several (several at once; of awp (adversarial weight perturbation; gamma 0.01, start_epoch 1) and none)"
    assert of_preset("digits", change)["method ‘both’"].endswith(f"weights {told}")


def test_an_attack_of_an_objectives_own_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trades, "attack", lambda self, inner: inner.x)
    found = of_preset("digits", lambda params: params["experiment"].update(methods=["at", "trades"]))
    assert "of its own" not in found["method ‘at’"]
    assert found["method ‘trades’"].startswith("objective trades (beta 6.0), which attacks in a way of its own; labels")


def test_without_validation_there_is_no_best_epoch(make: Make) -> None:
    assert "best epoch" not in collect(read(*make(best=False)))["outline"]


def test_a_warm_up_that_no_method_begins_with_is_not_told(make: Make) -> None:
    def change(values: dict[str, Any]) -> None:
        for method in values["experiment"]["methods"]:
            values["methods"][method]["start"] = "initial"

    found = collect(read(*make(change=change)))["outline"]
    assert found["training"].startswith("6 epochs in batches of 100; SGD")
    assert found["method ‘at’"].endswith("; from the initial weights")
