"""docs/how-to/add-a-method.md: its code is a label policy, its line a method, its commands name what is stale."""

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_training import net, plan, splits

from sglr.config import ConfigError, parse
from sglr.config.reader import validate
from sglr.labels import REGISTRY, Step
from sglr.objectives import Outputs, soft_cross_entropy
from sglr.training import fit

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "add-a-method.md").read_text(encoding="utf-8")
NAME = "relaxation"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def added(tmp_path: Path) -> Iterator[None]:
    """The page's file, imported as the room would import it, and forgotten afterwards."""
    (code,) = blocks("python")
    path = tmp_path / f"{NAME}.py"
    path.write_text(code, encoding="utf-8")
    module_name = f"sglr.labels.{NAME}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    sys.modules[module_name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        yield
    finally:
        del sys.modules[module_name]
        REGISTRY._types.pop(NAME, None)


def use_the_line(params: dict) -> dict:
    """The params with the page's line in them, and the method listed."""
    (line,) = blocks("yaml")
    params["methods"] |= parse(line)["methods"]
    params["experiment"]["methods"].append("at_relaxation")
    return params["methods"]["at_relaxation"]


def test_without_the_file_the_name_is_not_known(params):
    use_the_line(params)
    with pytest.raises(ConfigError, match=r"methods\.at_relaxation\.labels: unknown label policy 'relaxation'"):
        validate(params)


@pytest.mark.usefixtures("added")
def test_the_line_is_a_method_that_can_be_trained(params):
    method = use_the_line(params)
    assert validate(params).methods["at_relaxation"].labels.alpha == 0.1
    relaxed = fit(plan(params, method), net(), *splits())
    hard = fit(plan(params, method | {"labels": "hard"}), net(), *splits())
    assert [row["epoch"] for row in relaxed.history] == [1, 2, 3]
    assert relaxed.history != hard.history


@pytest.mark.usefixtures("added")
def test_a_wrong_option_is_refused(params):
    use_the_line(params)["labels"]["alpha"] = 1.5
    with pytest.raises(ConfigError, match=r"methods\.at_relaxation\.labels\.alpha: .*less than 1 .*1\.5"):
        validate(params)


@pytest.mark.usefixtures("added")
def test_the_policy_is_label_relaxation():
    """Known answers for alpha 0.1, and the gradient of KL(t || s) with t the member of the credal set nearest to s."""
    policy = REGISTRY.options(NAME, alpha=0.1).build(torch.tensor([0, 0]), 3, 1)
    s = torch.tensor([[0.95, 0.03, 0.02], [0.5, 0.3, 0.2]], dtype=torch.float64)
    logits = s.log().requires_grad_()
    step = Step(1, torch.arange(2), Outputs(adversarial=logits), lambda bn: pytest.fail("no forward is needed"))
    t = policy.targets(step)
    torch.testing.assert_close(t, torch.tensor([[0.95, 0.03, 0.02], [0.9, 0.06, 0.04]], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(soft_cross_entropy(logits, t).sum(), logits)
    torch.testing.assert_close(gradient, s - t)
    assert gradient[0].abs().max() < 1e-12  # sure enough: left alone


def test_the_stages_named_are_those_that_depend_on_the_room():
    stages = parse((ROOT / "dvc.yaml").read_text())["stages"]
    stale = [name for name, stage in stages.items() if "sglr/labels" in stage["deps"]]
    assert stale == ["warmup", "train"]
    assert f"dvc commit -f {' '.join(stale)}\n" in blocks("sh")
