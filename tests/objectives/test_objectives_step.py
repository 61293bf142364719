"""Each objective: whole steps against a transcription of its formula in float64."""

import pytest
import torch
from by_hand import C, N, Pair, ce, kl, mart_margin

from sglr.config import ConfigError
from sglr.config.reader import validate
from sglr.objectives import REGISTRY, Outputs

BETA, WEIGHT = 6.0, 5.0
TRADES, MART = {"name": "trades", "beta": BETA}, {"name": "mart", "weight": WEIGHT}
ALPHA, LAMBDA = 0.9, 0.8


def adversarial(pair: Pair, objective: dict, attack_bn: str, epoch: int) -> torch.Tensor:
    """TRADES attacks the divergence, the others cross-entropy with the hard given label."""
    hand, x = pair.hand, pair.x
    natural = hand.logits(x, "batch" if attack_bn == "train" else "eval").detach()
    if objective["name"] == "trades":
        return hand.attack(x, pair.start(epoch), attack_bn, lambda z: kl(natural, z).sum())
    return hand.attack(x, pair.start(epoch), attack_bn, lambda z: ce(pair.onehot, z).sum())


def loss_of(objective: dict, t: torch.Tensor, z: torch.Tensor, z_adv: torch.Tensor, pair: Pair) -> torch.Tensor:
    if objective["name"] == "trades":
        return ce(t, z).mean() + BETA * kl(z, z_adv).mean()
    s_y = torch.softmax(z, 1)[torch.arange(N), pair.y]
    return ce(t, z_adv).mean() + mart_margin(z_adv, pair.y).mean() + WEIGHT * (kl(z, z_adv) * (1.0000001 - s_y)).mean()


@pytest.mark.parametrize("attack_bn", ["eval", "train"])
@pytest.mark.parametrize("objective", [TRADES, MART], ids=["trades", "mart"])
def test_steps_of_trades_and_mart_are_the_formula(params, objective, attack_bn):
    pair = Pair(params, {"objective": objective, "labels": "hard", "weights": "none"}, attack_bn)
    hand = pair.hand
    for epoch in (1, 2):
        found, predicted = pair.take(epoch)
        x_adv = adversarial(pair, objective, attack_bn, epoch)
        z, z_adv = hand.logits(pair.x, "train"), hand.logits(x_adv, "train")
        loss = loss_of(objective, pair.onehot, z, z_adv, pair)
        hand.descend(hand.gradients(loss))
        pair.assert_equal(found, loss)
        assert torch.equal(predicted, z_adv.argmax(1))
    assert int(pair.model.bn.num_batches_tracked) == 4  # x and x' once each per step


@pytest.mark.parametrize("ratio", [1.0, 0.7])
@pytest.mark.parametrize("objective", [TRADES, MART], ids=["trades", "mart"])
def test_refinement_on_trades_and_mart_makes_no_forward_of_its_own(params, objective, ratio):
    labels = {"name": "refinement", "start_epoch": 2, "refinement_ratio": ratio}
    pair = Pair(params, {"objective": objective, "labels": labels, "weights": "none"})
    hand, p, t = pair.hand, pair.onehot, pair.onehot
    for epoch in (1, 2, 3):  # before refinement, its first step, and one with a refined table
        found, _ = pair.take(epoch)
        x_adv = adversarial(pair, objective, "eval", epoch)
        z, z_adv = hand.logits(pair.x, "train"), hand.logits(x_adv, "train")
        if epoch >= 2:
            q = LAMBDA * torch.softmax(z_adv, 1) + (1 - LAMBDA) * torch.softmax(z, 1)
            p = ALPHA * p + (1 - ALPHA) * q.detach()
            t = ratio * p + (1 - ratio) * pair.onehot
        loss = loss_of(objective, t, z, z_adv, pair)
        hand.descend(hand.gradients(loss))
        # The table is kept in single precision.
        pair.assert_equal(found, loss, tolerance=1e-10 if epoch < 3 else 1e-6)
        torch.testing.assert_close(pair.learner.labels.state_dict()["p"].double(), p, atol=2e-7, rtol=0)
    assert int(pair.model.bn.num_batches_tracked) == 6
    assert (p - pair.onehot).abs().max() > 1e-3


def test_steps_of_natural_training_attack_nothing(params, monkeypatch):
    monkeypatch.setattr("sglr.objectives.inner.ascend", lambda *_, **__: pytest.fail("attacked"))
    pair = Pair(params, {"objective": "standard", "labels": "hard", "weights": "none"})
    for epoch in (1, 2):
        found, predicted = pair.take(epoch)
        z = pair.hand.logits(pair.x, "train")
        loss = ce(pair.onehot, z).mean()
        pair.hand.descend(pair.hand.gradients(loss))
        pair.assert_equal(found, loss)
        assert torch.equal(predicted, z.argmax(1))


def test_mart_looks_at_the_strongest_wrong_class():
    """-log(1.0001 - s'_k): k is the runner-up where y is the most probable class, else the most probable one."""
    s = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1]], dtype=torch.float64)
    y = torch.tensor([0, 0])
    outputs = Outputs(adversarial=s.log(), natural=s.log())
    loss = REGISTRY.options("mart", weight=1e-9).build().loss(outputs, torch.eye(3, dtype=torch.float64)[y], y)
    expected = (-torch.tensor([0.7, 0.2]).log() - torch.tensor([0.8001, 0.3001]).log()).mean().double()
    torch.testing.assert_close(loss, expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("objective", [TRADES, MART], ids=["trades", "mart"])
def test_equal_predictions_leave_no_divergence(objective):
    logits = torch.randn(5, C, dtype=torch.float64)
    y = torch.randint(0, C, (5,))
    built = REGISTRY.type_of(objective["name"]).model_validate(objective).build()
    twice = REGISTRY.type_of(objective["name"]).model_validate(
        {key: value if key == "name" else 2 * value for key, value in objective.items()}
    )
    outputs = Outputs(adversarial=logits, natural=logits)
    onehot = torch.eye(C, dtype=torch.float64)[y]
    torch.testing.assert_close(built.loss(outputs, onehot, y), twice.build().loss(outputs, onehot, y))


@pytest.mark.parametrize(
    ("objective", "change", "message"),
    [
        ("standard", {}, "refinement needs adversarial predictions"),
        ("at", {"alpha": 0.0, "adversarial_weight": 1.0}, "1 - refinement_ratio"),
        ("mart", {"alpha": 0.0, "adversarial_weight": 1.0}, "1 - refinement_ratio"),
        ("trades", {"alpha": 0.0, "adversarial_weight": 0.0}, "1 - refinement_ratio"),
        ("trades", {"natural_bn": "eval"}, "in train mode itself"),
        ("mart", {"natural_bn": "eval"}, "in train mode itself"),
    ],
)
def test_refinement_that_means_nothing_on_an_objective_is_refused(params, objective, change, message):
    params["methods"]["tested"] = {
        "objective": objective, "weights": "none", "labels": {"name": "refinement", "start_epoch": 2} | change
    }  # fmt: skip
    with pytest.raises(ConfigError, match=message) as error:
        validate(params)
    assert "methods.tested" in str(error.value)


@pytest.mark.parametrize(
    ("objective", "change"),
    [("trades", {"alpha": 0.0, "adversarial_weight": 1.0}), ("at", {"alpha": 0.0, "adversarial_weight": 0.0})],
)
def test_what_is_degenerate_on_one_objective_is_not_on_another(params, objective, change):
    params["methods"]["tested"] = {
        "objective": objective, "weights": "none", "labels": {"name": "refinement", "start_epoch": 2} | change
    }  # fmt: skip
    assert validate(params).methods["tested"].labels.alpha == 0


def test_trades_cannot_start_at_the_natural_image(params):
    """KL(s || s') and its gradient are zero at x' = x."""
    params["experiment"]["methods"] = ["at", "trades"]
    params["train"]["attack"]["random_start"] = False
    with pytest.raises(ConfigError, match=r"train\.attack\.random_start.*methods\.trades"):
        validate(params)
    params["experiment"]["methods"] = ["at", "mart"]
    validate(params)
