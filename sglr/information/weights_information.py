"""Information in the weights, by the Fisher information along the way from the weights training started from.

Achille & Soatto (2018), estimator of Wang et al. (2022): with D = w - w0 and g_i the gradient of CE(f(x_i), y_i) at the
evaluated weights, F = (1/m) sum_i (D . g_i)^2 and IIW = n F. For Gaussians around w and w0 with the same precision, n
times the empirical Fisher information, KL(posterior || prior) is n F / 2: the quantity is twice that, in nats.

w0, the end of the warm-up, saw the same data (without warm-up it did not, but the precision is that of the trained
weights): this is a proxy, not a bound. **Reconstruction**.
"""

import numpy as np
import torch
from torch import Tensor, nn

from sglr.information.checks import Floats

TOTAL = "total"


def difference(model: nn.Module, start: nn.Module) -> dict[str, Tensor]:
    """D = w - w0 by parameter name. ValueError naming a parameter that only one has, or whose shapes differ."""
    ours, theirs = dict(model.named_parameters()), dict(start.named_parameters())
    for name in ours.keys() | theirs.keys():
        if name not in ours or name not in theirs or ours[name].shape != theirs[name].shape:
            shapes = [tuple(found[name].shape) if name in found else "missing" for found in (ours, theirs)]
            raise ValueError(f"the weights {name!r} are {shapes[0]} here and {shapes[1]} where training started")
    return {name: (value - theirs[name]).detach() for name, value in ours.items()}


def length(direction: dict[str, Tensor]) -> float:
    """||D||_2 over all parameters."""
    return float(torch.stack([part.double().square().sum() for part in direction.values()]).sum().sqrt())


def information(projections: dict[str, Floats], n: int) -> dict[str, Floats]:
    """Contributions n (D . g_i)^2 (m,) for each layer and ``total``, whose means are n F in nats.

    projections: D_l . g_il (m,) by layer, as ``example_gradients`` gives them; n: number of training examples. The
    total is of the sum over layers, (sum_l D_l . g_il)^2, and not the sum of the layers' values.
    """
    if n < 1 or not projections:
        raise ValueError(f"information in weights needs n >= 1 and a layer, found {n} and {len(projections)} layers")
    whole: Floats = np.sum(list(projections.values()), axis=0)
    return {layer: n * values**2 for layer, values in {TOTAL: whole, **projections}.items()}
