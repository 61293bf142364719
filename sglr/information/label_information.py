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

import numpy as np
from numpy.typing import ArrayLike

from sglr.information.checks import Floats


def density(nll: ArrayLike, noise_entropy: float) -> Floats:
    """Contributions H - CE_i (n,), whose mean is the lower bound of I(w; y | x) / n; nll: -log q(y_i | x_i) (n,)."""
    column = np.asarray(nll, dtype=np.float64)
    if column.ndim != 1 or column.size == 0 or np.isnan(column).any() or noise_entropy < 0:
        raise ValueError(f"the bound needs n >= 1 cross-entropies and an entropy >= 0, found {column.shape}")
    return noise_entropy - column
