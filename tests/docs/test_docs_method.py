"""docs/how-to/add-a-method.md: its code is a label policy that can be trained, its line a method; and see ``pages``."""

import copy
from collections.abc import Iterator
from pathlib import Path

import by_hand
import pages
import pytest
import torch
from tiny_training import assert_resumes, net, plan, splits

from sglr.config import ConfigError, parse
from sglr.config.reader import validate
from sglr.labels import REGISTRY, Step
from sglr.objectives import Outputs, soft_cross_entropy
from sglr.random import torch_stream
from sglr.report.cost import passes
from sglr.training import fit

PAGE = "how-to/add-a-method.md"


@pytest.fixture
def added(tmp_path: Path) -> Iterator[None]:
    """The page's file, imported as the room would import it, and forgotten afterwards."""
    path = tmp_path / "relaxation.py"
    path.write_text(pages.piece(PAGE, "python file=sglr/labels/relaxation.py"), encoding="utf-8")
    with pages.forgetting():
        pages.load(path, "sglr.labels.relaxation")
        yield


def use_the_line(params: dict) -> dict:
    """The params with the page's line in them, and the method listed."""
    params["methods"] |= parse(pages.piece(PAGE, "yaml"))["methods"]
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
    policy = REGISTRY.options("relaxation", alpha=0.1).build(torch.tensor([0, 0]), 3, 1)
    s = torch.tensor([[0.95, 0.03, 0.02], [0.5, 0.3, 0.2]], dtype=torch.float64)
    logits = s.log().requires_grad_()
    step = Step(
        epoch=1, progress=0.0, index=torch.arange(2), natural=lambda bn: pytest.fail("no forward is needed"),
        averaged=lambda: pytest.fail("no average is needed"), outputs=Outputs(adversarial=logits),
        images=lambda: pytest.fail("no images are needed"),
    )  # fmt: skip
    t = policy.update(step)
    torch.testing.assert_close(t, torch.tensor([[0.95, 0.03, 0.02], [0.9, 0.06, 0.04]], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(soft_cross_entropy(logits, t).sum(), logits)
    torch.testing.assert_close(gradient, s - t)
    assert gradient[0].abs().max() < 1e-12  # sure enough: left alone


def test_the_policy_with_a_memory_resumes(params, tmp_path):
    path = tmp_path / "averaging.py"
    path.write_text(pages.piece(PAGE, "python file=sglr/labels/averaging.py"), encoding="utf-8")
    method = {"objective": "at", "labels": {"name": "averaging", "start_epoch": 2}, "weights": "none"}
    with pages.forgetting():
        pages.load(path, "sglr.labels.averaging")
        trained = fit(plan(params, method), net(), *splits())
        assert [row["refined/entropy"] > 0 for row in trained.history] == [False, True, True]
        assert_resumes(params, method, tmp_path / "snapshots")


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_attack_of_its_own_is_n_fgsm(params, tmp_path, norm):
    """Whole steps in float64, by hand: noise in twice the ball, a step of eps, clipped to [0, 1]. In L2 it trains."""
    path = tmp_path / "nfgsm.py"
    path.write_text(pages.piece(PAGE, "python file=sglr/objectives/nfgsm.py"), encoding="utf-8")
    method = {"objective": {"name": "nfgsm", "noise": 2.0}, "labels": "hard", "weights": "none"}
    params["threat"]["norm"] = norm
    with pages.forgetting():
        pages.load(path, "sglr.objectives.nfgsm")
        fit(plan(copy.deepcopy(params), method), net(), *splits())
        if norm == "l2":
            return
        pair = by_hand.Pair(params, method)
        assert passes(validate(params), "tested")["attack_backward"] == 1
    for epoch in (1, 2):
        found, predicted = pair.take(epoch)
        stream = torch_stream(by_hand.SEED, "train/attack", epoch, 0)
        noise = torch.empty_like(pair.x).uniform_(-2 * by_hand.EPS, 2 * by_hand.EPS, generator=stream)
        noisy = (pair.x + noise).clamp(0, 1).requires_grad_()
        (gradient,) = torch.autograd.grad(by_hand.ce(pair.onehot, pair.hand.logits(noisy, "eval")).sum(), noisy)
        x_adv = (noisy + by_hand.EPS * gradient.sign()).clamp(0, 1).detach()
        assert (x_adv - pair.x).abs().max() > 1.5 * by_hand.EPS
        z = pair.hand.logits(x_adv, "train")
        loss = by_hand.ce(pair.onehot, z).mean()
        pair.hand.descend(pair.hand.gradients(loss))
        pair.assert_equal(found, loss)
        assert torch.equal(predicted, z.argmax(1))
