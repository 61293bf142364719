"""Training steps by hand in float64, sharing no code with the package: what the tests of whole steps compare with."""

import torch
from torch import Tensor, nn

from sglr.config.reader import validate
from sglr.random import torch_stream
from sglr.training.augmenting import Augmenting
from sglr.training.learner import Learner, Networks
from sglr.training.plan import Plan
from sglr.training.step import take

N, C = 12, 4
EPS, ETA, STEPS = 25.5 / 255, 6.375 / 255, 10  # the shipped params.yaml
LR, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4
SEED = 3


class Net(nn.Module):
    """A convolution, batch norm with statistics that are not those of a new one, tanh, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.bn.running_mean.uniform_(-0.2, 0.2)
        self.head = nn.Linear(6 * 16, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.bn(self.conv(x))).flatten(1))


class ByHand:
    """A training of ``Net`` as plain tensors: weights, batch norm's statistics, momentum."""

    def __init__(self, model: Net) -> None:
        self.w = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
        self.mean, self.var = model.bn.running_mean.clone(), model.bn.running_var.clone()
        self.velocity: dict[str, Tensor] = {}

    def logits(self, x: Tensor, mode: str, w: dict[str, Tensor] | None = None) -> Tensor:
        """``mode``: eval; train, which updates the statistics (momentum 0.1, unbiased variance); batch: it does not."""
        w = self.w if w is None else w
        h = nn.functional.conv2d(x, w["conv.weight"], w["conv.bias"], padding=1)
        mean, var = (self.mean, self.var) if mode == "eval" else (h.mean((0, 2, 3)), h.var((0, 2, 3), unbiased=False))
        if mode == "train":
            count = h.numel() / h.shape[1]
            self.mean = 0.9 * self.mean + 0.1 * mean.detach()
            self.var = 0.9 * self.var + 0.1 * var.detach() * count / (count - 1)
        h = (h - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        h = h * w["bn.weight"][:, None, None] + w["bn.bias"][:, None, None]
        return torch.tanh(h).flatten(1) @ w["head.weight"].T + w["head.bias"]

    def attack(self, x: Tensor, start: Tensor, mode: str, loss) -> Tensor:
        """Linf PGD from ``start`` on a function of logits."""
        adversarial = start
        for _ in range(STEPS):
            adversarial = adversarial.detach().requires_grad_()
            logits = self.logits(adversarial, "batch" if mode == "train" else "eval")
            (gradient,) = torch.autograd.grad(loss(logits), adversarial)
            moved = adversarial + ETA * gradient.sign()
            adversarial = torch.minimum(torch.maximum(moved, x - EPS), x + EPS).clamp(0, 1)
        return adversarial.detach()

    def gradients(self, loss: Tensor, w: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        w = self.w if w is None else w
        return dict(zip(w, torch.autograd.grad(loss, list(w.values())), strict=True))

    def descend(self, gradients: dict[str, Tensor]) -> None:
        """SGD with weight decay and momentum."""
        for name, value in self.w.items():
            total = gradients[name] + WEIGHT_DECAY * value.detach()
            self.velocity[name] = total if name not in self.velocity else MOMENTUM * self.velocity[name] + total
            self.w[name] = (value.detach() - LR * self.velocity[name]).requires_grad_()


class Pair:
    """A learner of the package and the same training by hand, from equal weights on equal data."""

    def __init__(self, params: dict, method: dict, attack_bn: str = "eval", epochs: int = 60) -> None:
        params["methods"]["tested"] = method
        params["train"] |= {"attack_bn": attack_bn, "batch_size": N, "epochs": epochs}
        params["experiment"]["methods"] = ["tested"]
        self.plan = Plan.training(config := validate(params), config.methods["tested"], seed=SEED)
        torch.manual_seed(0)
        self.model = Net().double().train()
        self.x = torch.rand(N, 1, 4, 4, dtype=torch.float64)
        self.y = torch.randint(0, C, (N,))
        self.onehot = torch.eye(C, dtype=torch.float64)[self.y]
        self.learner = learner(self.plan, self.model, self.y)
        self.hand = ByHand(self.model)

    def take(self, epoch: int) -> tuple[Tensor, Tensor]:
        return take(self.plan, self.learner, self.x, self.y, torch.arange(N), epoch, 0)[:2]

    def start(self, epoch: int) -> Tensor:
        """Where the attack starts: the one thing taken over, the stream of (seed, purpose, epoch, step)."""
        stream = torch_stream(SEED, "train/attack", epoch, 0)
        return (self.x + torch.empty_like(self.x).uniform_(-EPS, EPS, generator=stream)).clamp(0, 1)

    def assert_equal(self, found: Tensor, loss: Tensor, tolerance: float = 1e-10) -> None:
        """Loss, weights and batch norm's statistics after a step; every module in train mode."""
        close = {"atol": tolerance, "rtol": tolerance}
        torch.testing.assert_close(found, loss.detach(), **close)
        for name, value in self.model.named_parameters():
            torch.testing.assert_close(value.detach(), self.hand.w[name].detach(), **close)
        torch.testing.assert_close(self.model.bn.running_mean, self.hand.mean, **close)
        torch.testing.assert_close(self.model.bn.running_var, self.hand.var, **close)
        assert all(module.training for module in self.model.modules())


def learner(plan: Plan, model: nn.Module, y: Tensor) -> Learner:
    return Learner(
        model=model,
        networks=Networks(model, model, model),
        optimizer=torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY),
        objective=plan.method.objective.build(),
        labels=plan.method.labels.build(y, C, plan.epochs),
        weights=plan.method.weights.build(model),
        augmenting=Augmenting(plan),
        steps=1,
    )


def ce(targets: Tensor, logits: Tensor) -> Tensor:
    return -(targets * torch.log(torch.softmax(logits, 1))).sum(1)


def kl(logits: Tensor, other: Tensor) -> Tensor:
    """KL(softmax(logits) || softmax(other)) per example."""
    s, other = torch.softmax(logits, 1), torch.softmax(other, 1)
    return (s * torch.log(s / other)).sum(1)


def mart_margin(logits: Tensor, y: Tensor) -> Tensor:
    """-log(1.0001 - the largest probability of a class other than y)."""
    s = torch.softmax(logits, 1)
    largest = [row[torch.arange(C) != label].max() for row, label in zip(s, y, strict=True)]
    return -torch.log(1.0001 - torch.stack(largest))
