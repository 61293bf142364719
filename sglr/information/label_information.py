"""How much of the given labels the weights hold beyond what the images say: a bound on I(w; y | x).

Harutyunyan et al. (2020), after Achille & Soatto (2018). For given labels y = (y_1 .. y_n) that are independent given
the images x, and weights w that training made of both,

    E[-log q(y_i | x_i, w)]  =  H(y | x)  -  I(w; y | x) / n  +  (a divergence of q from the best prediction, >= 0),

because -log q costs at least H(y_i | x_i, w), and the sum of these over i is at least H(y | x, w) = n H - I(w; y | x).
With injected noise H(y | x) is the channel's entropy, if the image decides the true label, so that

    I(w; y | x) / n  >=  H - CE,     and, as I <= n H,     0, CE - H  <=  divergence  <=  CE.

CE is the mean natural cross-entropy of the *given* labels over all n training examples, in eval mode, not augmented:
adversarial images were computed from y and would leak it. The statements hold in expectation over draws of the noise,
so they want several seeds that redraw it. **Reconstruction**: the paper's own estimator is not published.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sglr.information.checks import Floats


@dataclass(frozen=True)
class Decomposition:
    """Terms of the expected cross-entropy per example, in nats.

    cross_entropy: measured; noise_entropy: H(y | x), known; information: (low, high) of I(w; y | x) / n, low raw and
    never clipped at 0; divergence: (low, high) of E KL(p(y | x, w) || q), the part that is merely bad prediction.
    """

    cross_entropy: float
    noise_entropy: float
    information: tuple[float, float]
    divergence: tuple[float, float]


def density(nll: ArrayLike, noise_entropy: float) -> Floats:
    """Contributions H - CE_i (n,), whose mean is the lower bound of I(w; y | x) / n; nll: -log q(y_i | x_i) (n,)."""
    column = np.asarray(nll, dtype=np.float64)
    if column.ndim != 1 or column.size == 0 or np.isnan(column).any() or noise_entropy < 0:
        raise ValueError(f"the bound needs n >= 1 cross-entropies and an entropy >= 0, found {column.shape}")
    return noise_entropy - column


def decompose(nll: ArrayLike, noise_entropy: float) -> Decomposition:
    """The decomposition of the expected cross-entropy, measured terms and bounds of the others."""
    low = float(density(nll, noise_entropy).mean())
    measured = noise_entropy - low
    return Decomposition(measured, noise_entropy, (low, noise_entropy), (max(0.0, -low), measured))
