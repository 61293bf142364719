"""One whole training step against a transcription of docs/methods.md in float64, written independently."""

import copy

import pytest
import torch
from torch import nn

from sglr.config.reader import validate
from sglr.random import torch_stream
from sglr.training.plan import Plan
from sglr.training.step import Learner, Networks, take

N, C = 12, 4


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.bn.running_mean.uniform_(-0.2, 0.2)
        self.head = nn.Linear(6 * 16, C)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.bn(self.conv(x))).flatten(1))


def transcribed_forward(w, buffers, x, train):
    """The net by hand; in train mode it updates ``buffers`` as batch norm does (momentum 0.1, unbiased variance)."""
    h = nn.functional.conv2d(x, w["conv.weight"], w["conv.bias"], padding=1)
    if train:
        mean, var = h.mean((0, 2, 3)), h.var((0, 2, 3), unbiased=False)
        count = h.numel() / h.shape[1]
        buffers["mean"] = 0.9 * buffers["mean"] + 0.1 * mean.detach()
        buffers["var"] = 0.9 * buffers["var"] + 0.1 * var.detach() * count / (count - 1)
    else:
        mean, var = buffers["mean"], buffers["var"]
    h = (h - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
    h = h * w["bn.weight"][:, None, None] + w["bn.bias"][:, None, None]
    return torch.tanh(h).flatten(1) @ w["head.weight"].T + w["head.bias"]


def transcribed_step(model, momentum_buffers, x, y, start, p, *, s, epoch, natural_bn, attack_bn):
    """Attack, z', z, q, p, t, loss, then SGD with weight decay and momentum. ``s``: the settings by symbol."""
    w = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    buffers = {"mean": model.bn.running_mean.clone(), "var": model.bn.running_var.clone()}
    onehot = torch.eye(C, dtype=torch.float64)[y]
    adversarial = start
    for _ in range(s["K"]):
        adversarial = adversarial.detach().requires_grad_()
        logits = transcribed_forward(w, dict(buffers), adversarial, attack_bn == "train")
        loss = -(onehot * torch.log(torch.softmax(logits, 1))).sum()
        (gradient,) = torch.autograd.grad(loss, adversarial)
        moved = adversarial + s["eta"] * gradient.sign()
        adversarial = torch.minimum(torch.maximum(moved, x - s["eps"]), x + s["eps"]).clamp(0, 1)
    z_adv = transcribed_forward(w, buffers, adversarial.detach(), True)
    if epoch < s["E_s"]:
        t = onehot
    else:
        with torch.no_grad():
            z = transcribed_forward(w, buffers, x, natural_bn == "train")
        q = s["lambda"] * torch.softmax(z_adv, 1).detach() + (1 - s["lambda"]) * torch.softmax(z, 1)
        p = s["alpha"] * p + (1 - s["alpha"]) * q
        t = s["r"] * p + (1 - s["r"]) * onehot
    loss = -(t * torch.log(torch.softmax(z_adv, 1))).sum() / len(x)
    gradients = torch.autograd.grad(loss, list(w.values()))
    for (name, value), gradient in zip(w.items(), gradients, strict=True):
        total = gradient + s["wd"] * value.detach()
        momentum_buffers[name] = total if name not in momentum_buffers else s["mu"] * momentum_buffers[name] + total
        w[name] = value.detach() - s["lr"] * momentum_buffers[name]
    return loss.detach(), w, buffers, p


@pytest.mark.parametrize("ratio", [1.0, 0.7])
@pytest.mark.parametrize("natural_bn", ["train", "eval"])
@pytest.mark.parametrize("attack_bn", ["train", "eval"])
def test_a_step_is_the_formula(params, ratio, natural_bn, attack_bn):
    params["methods"]["sglr"]["labels"] |= {"start_epoch": 2, "refinement_ratio": ratio, "natural_bn": natural_bn}
    params["train"] |= {"attack_bn": attack_bn, "batch_size": N}
    if ratio < 1:
        params["train"]["attack"]["step_size_255"] = None  # a quarter of 25.5: the same
    plan = Plan.training(validate(params), validate(params).methods["sglr"], seed=3)
    torch.manual_seed(0)
    model = Net().double().train()
    x = torch.rand(N, 1, 4, 4, dtype=torch.float64)
    y = torch.randint(0, C, (N,))
    sgd = plan.optimizer
    learner = Learner(
        model=model,
        networks=Networks(model, model, model),
        optimizer=torch.optim.SGD(
            model.parameters(), lr=sgd.lr, momentum=sgd.momentum, nesterov=sgd.nesterov, weight_decay=sgd.weight_decay
        ),
        objective=plan.method.objective.build(),
        labels=plan.method.labels.build(y, C, plan.epochs),
        weights=plan.method.weights.build(model),
    )
    settings = {
        "K": 10,
        "eta": 6.375 / 255,
        "eps": 25.5 / 255,
        "lambda": 0.8,
        "alpha": plan.method.labels.alpha,
        "r": ratio,
        "E_s": 2,
        "lr": 0.1,
        "mu": 0.9,
        "wd": 5e-4,
    }
    momentum: dict = {}
    p = torch.eye(C, dtype=torch.float64)[y]
    for epoch in (1, 2, 3):  # before refinement, its first step, and one with a refined table
        reference = copy.deepcopy(model)
        # The random start is the one thing taken over: the stream of (seed, purpose, epoch, step).
        stream = torch_stream(3, "train/attack", epoch, 0)
        start = (x + torch.empty_like(x).uniform_(-settings["eps"], settings["eps"], generator=stream)).clamp(0, 1)
        loss, w, buffers, p = transcribed_step(
            reference, momentum, x, y, start, p, s=settings, epoch=epoch, natural_bn=natural_bn, attack_bn=attack_bn
        )
        found, predicted = take(plan, learner, x, y, torch.arange(N), epoch, 0)
        # The table is stored in single precision: 6e-8 relative at most, from the third step on.
        tolerance = {"atol": 1e-12, "rtol": 1e-10} if epoch < 3 else {"atol": 1e-7, "rtol": 1e-6}
        torch.testing.assert_close(found, loss, **tolerance)
        for name, value in model.named_parameters():
            torch.testing.assert_close(value.detach(), w[name], **tolerance)
        torch.testing.assert_close(model.bn.running_mean, buffers["mean"], **tolerance)
        torch.testing.assert_close(model.bn.running_var, buffers["var"], **tolerance)
        if epoch >= 2:
            torch.testing.assert_close(learner.labels.state_dict()["p"].double(), p, atol=2e-7, rtol=0)
        assert predicted.shape == (N,)
        assert all(module.training for module in model.modules())
    # What a wrong order would do: refined labels used before their update differ visibly.
    assert (learner.labels.state_dict()["p"] - torch.eye(C)[y]).abs().max() > 1e-3


def test_natural_pictures_enter_the_statistics_only_where_asked(params):
    """``natural_bn: train`` is the published behaviour: one more update of the running statistics per step."""
    counts = {}
    for mode in ("train", "eval"):
        params["methods"]["sglr"]["labels"] |= {"start_epoch": 1, "natural_bn": mode}
        plan = Plan.training(validate(params), validate(params).methods["sglr"], seed=0)
        model = Net()
        labels = plan.method.labels.build(torch.zeros(N, dtype=torch.long), C, plan.epochs)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        learner = Learner(
            model,
            Networks(model, model, model),
            optimizer,
            plan.method.objective.build(),
            labels,
            plan.method.weights.build(model),
        )
        take(plan, learner, torch.rand(N, 1, 4, 4), torch.zeros(N, dtype=torch.long), torch.arange(N), 1, 0)
        counts[mode] = int(model.bn.num_batches_tracked)
    assert counts == {"train": 2, "eval": 1}
