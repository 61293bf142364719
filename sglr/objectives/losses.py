"""Losses that objectives have in common."""

from torch import Tensor
from torch.nn import functional as F


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-sum_c t_c log softmax(z)_c per example (N,), for targets (N, C) on the simplex."""
    return -(targets * F.log_softmax(logits, dim=1)).sum(1)


def weighted_mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Mean of losses (N,), each times its weight if there are any."""
    return losses.mean() if weights is None else (weights * losses).mean()


def divergence(natural: Tensor, adversarial: Tensor) -> Tensor:
    """KL(softmax(natural) || softmax(adversarial)) per example (N,), both given as logits (N, C)."""
    log_s, log_s_adv = F.log_softmax(natural, dim=1), F.log_softmax(adversarial, dim=1)
    return (log_s.exp() * (log_s - log_s_adv)).sum(1)
