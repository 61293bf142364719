"""Whether the attacks that params request can attack the data."""

import contextlib
import importlib.metadata

import pytest
import torch

from sglr import robustness
from sglr.attacks import square
from sglr.attacks.autoattack import square_misfit
from sglr.attacks.requested import require_attackable
from sglr.config import ConfigError
from sglr.config.reader import validate
from sglr.threat import Linf, build


@pytest.mark.parametrize(
    ("attack", "fewest"),
    [
        ("autoattack", 4),
        ({"name": "autoattack", "version": "rand"}, 3),
        ({"name": "pgd", "loss": "dlr"}, 3),
        ({"name": "apgd", "loss": "dlr"}, 3),
        ("fgsm", 2),
    ],
)
def test_an_attack_that_is_not_defined_for_so_few_classes_is_refused(params, attack, fewest):
    params["evaluate"]["attacks"] = {"tried": attack}
    config = validate(params)
    require_attackable(config, fewest, (1, 8, 8))
    if fewest > 2:
        with pytest.raises(ConfigError, match=f"attacks.tried cannot be run .* at least {fewest} classes, there are"):
            require_attackable(config, fewest - 1, (1, 8, 8))


def test_what_stands_in_for_autoattack_is_named_and_runs_with_two_classes(params):
    params["evaluate"]["attacks"] = {"tried": "autoattack"}
    said = r"in its place run apgd \(loss ce\), apgd \(loss cw\) and square .* as the row `worst` does; leave it out"
    with pytest.raises(ConfigError, match=said):
        require_attackable(validate(params), 2, (1, 8, 8))
    suite = {"ce": "apgd", "cw": {"name": "apgd", "loss": "cw"}, "square": {"name": "square", "queries": 50}}
    torch.manual_seed(0)
    model, x = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2)), torch.rand(30, 1, 8, 8)
    found = robustness(
        model, x, model(x).argmax(1), threat=Linf(0.02), attacks=suite,
        changes={"evaluate.sanity": None, "evaluate.sweep": None},
    )  # fmt: skip
    assert 0 < found.accuracy("worst") <= min(found.accuracy(name) for name in suite) < 1


@pytest.mark.parametrize(
    ("attack", "sanity", "key"),
    [("autoattack", None, "attacks.tried"), ("square", None, "attacks.tried"), ("fgsm", {"steps": 20}, "sanity")],
)
def test_square_attack_under_l2_is_refused_for_images_that_it_cannot_tile(params, attack, sanity, key):
    params["evaluate"]["attacks"] = {"tried": attack}
    params["evaluate"]["sanity"] = sanity and {**sanity, "n_examples": 8}
    params["threat"]["norm"] = "l2"
    config = validate(params)
    require_attackable(config, 10, (3, 8, 8))
    with pytest.raises(ConfigError, match=f"evaluate.{key} cannot be run on this data: pyauto.* under L2 .* 12x12"):
        require_attackable(config, 10, (3, 12, 12))
    params["threat"]["norm"] = "linf"
    require_attackable(validate(params), 10, (3, 12, 12))


@pytest.mark.parametrize(
    ("attack", "sanity", "key", "instead"),
    [
        ("autoattack", None, "attacks.tried", "leave it out"), ("square", None, "attacks.tried", "leave it out"),
        ("fgsm", {"steps": 20, "n_examples": 8}, "sanity", "set it to null"),
    ],
)  # fmt: skip
def test_without_its_package_nothing_is_begun(params, monkeypatch, attack, sanity, key, instead):
    def missing(package):
        raise importlib.metadata.PackageNotFoundError(package)

    params["evaluate"] |= {"attacks": {"tried": attack}, "sanity": sanity}
    monkeypatch.setattr(importlib.metadata, "version", missing)
    message = f"evaluate.{key} needs the package pyautoattack: pip install pyautoattack, or {instead}"
    with pytest.raises(ConfigError, match=message):
        require_attackable(validate(params), 10, (1, 8, 8))


@pytest.mark.parametrize(
    ("height", "width"),
    [
        *((side, side) for side in range(3, 41)),
        (6, 10),
        (10, 6),
        (8, 9),
        (32, 16),
        (28, 14),
        (48, 64),
        (64, 48),
        (12, 20),
    ],
)
def test_square_attack_takes_the_sizes_that_it_is_said_to_take(height, width):
    """As the package is: where it takes more, the refusal may go."""
    x = torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 0])

    class Sure(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x.flatten(1).sum(1) * 0 + 9, x.flatten(1).sum(1) * 1e-4], 1)

    for norm in ("linf", "l2"):
        refused = square_misfit((1, height, width), norm) is not None
        with pytest.raises((RuntimeError, ZeroDivisionError)) if refused else contextlib.nullcontext():
            square(Sure(), x, y, threat=build(norm, 1e-3), seed=0, queries=25)
