"""What this project's training step is timed against: the algorithm written down plainly, as published code has it.

Eager, float32, contiguous, unchanged torch modules. Images are augmented one by one on the host, in worker processes
of a DataLoader. The attack, in eval mode, has the two customary forms: "grad" takes `torch.autograd.grad` with respect
to the images; "backward" calls `loss.backward()`, as much published code of this family does, which computes the
gradients of all weights too and throws them away. The natural forward for refinement is made with its graph. No part of
it is slowed down on purpose, and none is clever.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset


class Augmented(Dataset):
    """uint8 images (N, C, H, W) with labels: random crop after zero padding, random mirror, one by one."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, padding: int, flip: bool) -> None:
        self.images, self.labels, self.padding, self.flip = images, labels, padding, flip

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        image, p = self.images[index], self.padding
        if p:
            padded = np.pad(image, ((0, 0), (p, p), (p, p)))
            row, column = torch.randint(0, 2 * p + 1, (2,)).tolist()
            image = padded[:, row : row + image.shape[1], column : column + image.shape[2]]
        if self.flip and torch.rand(()) < 0.5:
            image = image[:, :, ::-1]
        return torch.from_numpy(image.copy()).float() / 255, int(self.labels[index]), index


def loader(data: Augmented, batch_size: int, workers: int) -> DataLoader:
    return DataLoader(data, batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


class Reference:
    """Adversarial training with hard labels (alpha None) or self-guided refinement, SGD with momentum."""

    def __init__(
        self, model: nn.Module, labels: Tensor, classes: int, *, eps: float, step_size: float, steps: int,
        random_start: bool = True, alpha: float | None = None, weight: float = 0.8, lr: float = 0.1,
        form: str = "grad",
    ) -> None:  # fmt: skip
        self.model, self.alpha, self.weight, self.form = model, alpha, weight, form
        self.eps, self.step_size, self.steps, self.random_start = eps, step_size, steps, random_start
        self.table = F.one_hot(labels, classes).float()
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)

    def attack(self, x: Tensor, y: Tensor) -> Tensor:
        self.model.eval()
        x_adv = x.detach().clone()
        if self.random_start:
            x_adv = torch.clamp(x_adv + torch.empty_like(x).uniform_(-self.eps, self.eps), 0, 1)
        for _ in range(self.steps):
            x_adv.requires_grad_()
            loss = F.cross_entropy(self.model(x_adv), y, reduction="sum")
            if self.form == "backward":
                loss.backward()
                gradient = x_adv.grad
            else:
                gradient = torch.autograd.grad(loss, [x_adv])[0]
            x_adv = x_adv.detach() + self.step_size * gradient.sign()
            x_adv = torch.min(torch.max(x_adv, x - self.eps), x + self.eps)
            x_adv = torch.clamp(x_adv, 0, 1)
        return x_adv.detach()

    def step(self, x: Tensor, y: Tensor, index: Tensor) -> float:
        """One step on images (N, C, H, W) in [0, 1]; the loss as a number, which waits for the device."""
        x_adv = self.attack(x, y)
        self.model.train()
        self.optimizer.zero_grad()
        logits = self.model(x_adv)
        if self.alpha is None:
            loss = F.cross_entropy(logits, y)
        else:
            natural = self.model(x)
            found = self.weight * F.softmax(logits.detach(), 1) + (1 - self.weight) * F.softmax(natural.detach(), 1)
            self.table[index] = self.alpha * self.table[index] + (1 - self.alpha) * found
            loss = -(self.table[index] * F.log_softmax(logits, 1)).sum(1).mean()
        loss.backward()
        self.optimizer.step()
        return loss.item()
