"""Objectives and label policies of one's own that give what is no loss and no targets: one error that names them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from by_hand import C
from tiny_training import net, plan, splits
from torch import Tensor

from sglr.labels.hard import FixedLabels, HardOptions
from sglr.objectives.at import AdversarialTraining, AtOptions
from sglr.training import Hooks, Plan, TrainingError, fit

AT = {"objective": "at", "labels": "hard", "weights": "none"}


def own_loss(chosen: Plan, of: Callable[[Tensor], Any]) -> Plan:
    """The plan with an objective whose loss is a function of its adversarial logits."""

    class Own(AdversarialTraining):
        def loss(self, outputs, targets, y, weights=None):
            return of(outputs.adversarial)

    class OwnOptions(AtOptions):
        def build(self):
            return Own()

    method = chosen.method.model_copy(update={"objective": OwnOptions(name="own")})
    return dataclasses.replace(chosen, method=method)


def own_labels(chosen: Plan, **given: Callable[[Tensor], Any]) -> Plan:
    """The plan with a label policy of which some methods give functions of the one-hot labels."""

    class Own(FixedLabels):
        def update(self, step):
            targets = super().update(step)
            return given["update"](targets) if "update" in given else targets

        def refined(self, epoch, index):
            labels = super().refined(epoch, index)
            return given["refined"](labels) if "refined" in given else labels

    class OwnOptions(HardOptions):
        def build(self, given, num_classes, epochs):
            return Own(torch.nn.functional.one_hot(given, num_classes).float())

    method = chosen.method.model_copy(update={"labels": OwnOptions(name="own")})
    return dataclasses.replace(chosen, method=method)


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (lambda z: z.logsumexp(1), r"gives a loss of shape \(8,\), not a mean"),
        (lambda z: 1.0, "gives a loss that is a float, not a mean"),
        (
            lambda z: z.detach().mean(),
            r"gives a loss that does not depend on the logits .* \(was something detached\?\)",
        ),
    ],
)
def test_what_is_no_loss(params, of, message):
    with pytest.raises(TrainingError, match=f"the objective 'own' {message}"):
        fit(own_loss(plan(params, AT), of), net(), *splits())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda t: 2 * t, "no probabilities for {}: rows sum to 2 to 2, not 1, and the lowest entry is 0"),
        (lambda t: 1.5 * t - 0.5 / C, "no probabilities for {}: .* the lowest entry is -0.1"),
        (lambda t: t.argmax(1), r"torch.int64 \({n},\) for {}, not probabilities \({n}, " + str(C)),
        (lambda t: t[1:], r"torch.float32 \({less}, .*\) for {}, not probabilities"),
        (lambda t: t.tolist(), "list for {}, not probabilities"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("method", "of", "n"), [("update", "a batch", 8), ("refined", "refined labels", 24)])
def test_what_are_no_targets(params, method, of, n, wrong, message):
    """Of targets the first batch says so, of refined labels the first epoch."""
    epochs: list[Any] = []
    expected = f"the label policy 'own' gives {message.format(of, n=n, less=n - 1)}"
    with pytest.raises(TrainingError, match=expected):
        fit(own_labels(plan(params, AT), **{method: wrong}), net(), *splits(), hooks=Hooks(on_epoch=epochs.append))
    assert epochs == []


def test_what_is_not_finite(params):
    """Targets of a network that diverged are NaN, too: the loss says so, and what may be the cause."""
    one = own_labels(plan(params, AT), update=lambda t: t * torch.nan)
    with pytest.raises(TrainingError, match=r"not finite from epoch 1, batch 1 of 3 on.* a component of your own"):
        fit(one, net(), *splits())
    one = own_labels(plan(params, AT), refined=lambda t: t * torch.nan)
    with pytest.raises(TrainingError, match="'own' gives no probabilities for refined labels: rows sum to nan"):
        fit(one, net(), *splits())


def test_rounded_targets_are_targets(params):
    one = own_labels(plan(params, AT), update=lambda t: (0.9 * t + 0.1 / C).bfloat16(), refined=lambda t: t - 1e-8)
    assert len(fit(one, net(), *splits()).history) == 3
