"""Gradients of the loss for all weights, example by example."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from sglr.information.checks import Floats
from sglr.objectives import Objective, soft_cross_entropy

Forward = Callable[[Tensor], Tensor]
ExampleLoss = Callable[..., Tensor]


@dataclass(frozen=True)
class ExampleGradients:
    """norms: L2 norms (N,) over all weights; projections: inner products (N,) with a direction, by layer."""

    norms: Floats
    projections: dict[str, Floats]


def cross_entropy_loss(forward: Forward, x: Tensor, target: Tensor) -> Tensor:
    """-sum_c t_c log softmax(f(x))_c, for x (1, C, H, W) and a target (1, C) on the simplex."""
    return soft_cross_entropy(forward(x), target).sum()


def objective_loss(
    objective: Objective, penalty: Callable[[Tensor], Callable[[Tensor], Tensor] | None] = lambda index: None
) -> ExampleLoss:
    """All terms of a training loss, for one example (x, x_adv, target, y, weight, index), each with a batch axis of 1.

    weight: of the cross-entropy term; index: the example's position in the training set, for which ``penalty`` gives a
    label policy's penalty, if it has one.
    """

    def loss(
        forward: Forward, x: Tensor, x_adv: Tensor, target: Tensor, y: Tensor, weight: Tensor, index: Tensor
    ) -> Tensor:
        outputs = objective.forward(forward, x, x_adv)  # type: ignore[arg-type]
        return objective.total(outputs, target, y, weight, penalty(index))

    return loss


def layer_of(parameter: str) -> str:
    """The module a parameter belongs to: "head" for "head.weight" and "head.bias"."""
    return parameter.rpartition(".")[0] or parameter


def example_gradients(
    model: nn.Module,
    loss: ExampleLoss,
    inputs: tuple[Tensor, ...],
    *,
    chunk: int,
    direction: dict[str, Tensor] | None = None,
) -> ExampleGradients:
    """Norms, and projections on ``direction`` (parameter name -> tensor of its shape), of each example's gradient.

    loss: function of a forward and one example's tensors, each with a batch axis of 1, such as ``cross_entropy_loss``;
    inputs: the examples' tensors, (N, ...) each. The model must be in eval mode: in train mode batch norm makes an
    example's gradient depend on the others (ValueError), and a direction must fit the weights it names (ValueError).
    Memory: ``chunk`` times the number of weights, plus about as much again for vectorised convolutions. A loss that
    torch cannot vectorise (it draws random numbers, takes a gradient of its own, asks for a value) is taken example by
    example, which takes longer.
    """
    if any(module.training for module in model.modules()):
        raise ValueError("gradients per example need a model in eval mode")
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    for name, along in (direction or {}).items():
        if name not in parameters or parameters[name].shape != along.shape:
            found = tuple(parameters[name].shape) if name in parameters else "absent"
            raise ValueError(f"the direction's {name!r} is {tuple(along.shape)}, the model's {found}")
    buffers = {name: value.detach() for name, value in model.named_buffers()}

    def of_one(weights: dict[str, Tensor], *example: Tensor) -> Tensor:
        def forward(x: Tensor) -> Tensor:
            logits: Tensor = functional_call(model, (weights, buffers), (x,))
            return logits

        return loss(forward, *(part[None] for part in example))

    def one_by_one(weights: dict[str, Tensor], *examples: Tensor) -> dict[str, Tensor]:
        leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
        with torch.enable_grad():
            rows = [
                torch.autograd.grad(of_one(leaves, *example), list(leaves.values()), materialize_grads=True)
                for example in zip(*examples, strict=True)
            ]
        return {name: torch.stack([row[place] for row in rows]) for place, name in enumerate(leaves)}

    gradients: Any = vmap(grad(of_one), in_dims=(None, *(0 for _ in inputs)))
    norms: list[Tensor] = []
    projections: dict[str, list[Tensor]] = {}
    for parts in zip(*(part.split(chunk) for part in inputs), strict=True):
        try:
            found = gradients(parameters, *parts)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # any other error of the loss comes again
            gradients = one_by_one
            found = gradients(parameters, *parts)
        squares: list[Tensor] = []
        layers: dict[str, Tensor] = {}
        for name in list(found):
            # In float64 one parameter at a time: all at once would take three times the memory.
            value = found.pop(name).flatten(1).double()
            squares.append(value.square().sum(1))
            if direction is not None and name in direction:
                layer = layer_of(name)
                along = direction[name].flatten().double()
                layers[layer] = layers.get(layer, torch.zeros(())) + value @ along
        norms.append(torch.stack(squares).sum(0).sqrt())
        for layer, values in layers.items():
            projections.setdefault(layer, []).append(values)
    return ExampleGradients(_numpy(norms), {layer: _numpy(values) for layer, values in projections.items()})


def _numpy(parts: list[Tensor]) -> Floats:
    joined: Floats = torch.cat(parts).cpu().numpy().astype(np.float64)
    return joined
