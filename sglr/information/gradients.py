"""Gradient of the loss with respect to the last layer, per example, in closed form."""

import numpy as np
from numpy.typing import ArrayLike

from sglr.information.checks import Floats, distributions


def last_layer_norms(probs: ArrayLike, targets: ArrayLike, features: ArrayLike) -> Floats:
    """L2 norm (N,) of each example's gradient with respect to weights and bias of the last, linear layer.

    For the loss -sum_c t_c log softmax(W h + b)_c with sum_c t_c = 1, the gradient is (s - t) h^T for W and s - t for
    b, so that its norm is exactly ||s - t|| sqrt(||h||^2 + 1). This assumes that

    - the loss is cross-entropy against the targets and nothing else (``at`` with hard, smoothed or refined labels; for
      other objectives it is the norm of their cross-entropy part at this input only);
    - h of an example depends on that example alone: batch norm in eval mode.

    probs: softmax outputs s (N, C); targets: t (N, C); features: h (N, D), the last layer's input. In units of the loss
    (nats) per unit of weight, so comparable within one network but not between scales of features. Raises ValueError
    for shapes that do not fit and rows that are not probabilities.
    """
    s, t, h = distributions(probs), distributions(targets, "targets"), np.asarray(features, dtype=np.float64)
    if s.shape != t.shape or h.ndim != 2 or len(h) != len(s):
        raise ValueError(f"probs {s.shape}, targets {t.shape} and features {h.shape} must be (N, C), (N, C) and (N, D)")
    norms: Floats = np.linalg.norm(s - t, axis=1) * np.sqrt(np.square(h).sum(1) + 1)
    return norms
