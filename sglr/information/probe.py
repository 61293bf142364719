"""Information between features and labels, bounded from below by what a linear probe can predict.

For any conditional distribution q that was fitted without example i, E[log q(Y_i | T_i)] <= -H(Y | T), so that
H(Y) - CE(q) is at most I(T; Y) in expectation (Barber & Agakov 2003; Xu et al. 2020 call its best value within a
family the predictive V-information). Here q is a multinomial logistic regression, cross-fitted, and H(Y) the plug-in
entropy of the sample's labels, itself a little low. **Reconstruction**: the paper's own estimator is not published.

The bound says what is *linearly* available in T, at most H(Y). A negative value means that the probe generalises worse
than the class frequencies do; it is reported as it is. Features of adversarial inputs also contain what the attack put
there: it was computed from the label, so their value describes input and attack together, not the input alone.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from sglr.information.checks import Floats, Integers, classes
from sglr.information.entropy import label_entropy

# A column that varies less than this, relative to its size, is constant up to rounding.
_CONSTANT = 1e-9


class TooFewExamplesError(ValueError):
    """The sample is too small for a cross-fitted probe; the message says what is missing."""


@dataclass(frozen=True)
class ProbeBound:
    """A lower bound of I(T; Y) in nats, never clipped: ``information`` = ``label_entropy`` - ``cross_entropy``.

    density: (N,) contributions log q(y_i | t_i) - log p(y_i), whose mean is ``information``; p are class frequencies.
    """

    information: float
    label_entropy: float
    cross_entropy: float
    density: Floats


def probe_information(
    features: ArrayLike, labels: ArrayLike, *, folds: int, l2: float, generator: np.random.Generator
) -> ProbeBound:
    """H(Y) minus the held-out cross-entropy of a logistic probe, in nats.

    features: (N, D), finite, standardised with the mean and deviation of the folds the probe is fitted on; labels: int
    (N,), not negative; folds: stratified by label, drawn from ``generator``; l2: see ``fit``.
    Raises TooFewExamplesError for fewer than two classes, fewer examples than folds, or a class with one example, and
    ValueError for input of another form.
    """
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or not np.isfinite(x).all():
        raise ValueError(f"features must be finite and (N, D), found shape {x.shape}")
    if folds < 2:
        raise ValueError(f"folds must be at least 2, found {folds}")
    _, y, counts = np.unique(classes(labels, len(x), 2**31), return_inverse=True, return_counts=True)
    if len(counts) < 2 or len(y) < folds or counts.min() < 2:
        raise TooFewExamplesError(
            f"a probe in {folds} folds needs at least {folds} examples, two classes, and two examples of each that"
            f" occurs; found {len(y)} examples, {len(counts)} classes, {counts.min(initial=len(y))} of the rarest"
        )
    log_q = np.empty((len(y), len(counts)))
    fold = stratified_folds(y, folds, generator)
    for number in range(folds):
        held_out = fold == number
        log_q[held_out] = _held_out(x[~held_out], y[~held_out], x[held_out], len(counts), l2)
    chosen = log_q[np.arange(len(y)), y]
    density = chosen - np.log(counts / len(y))[y]
    return ProbeBound(float(density.mean()), label_entropy(y), -float(chosen.mean()), density)


def fit(features: Tensor, labels: Tensor, num_classes: int, l2: float) -> tuple[Tensor, Tensor]:
    """Weights (C, D) and bias (C,) that minimise sum_i CE_i + l2 / 2 ||weights||^2; the bias is not penalised.

    features: float64 (N, D); labels: int64 (N,); l2 > 0 corresponds to scikit-learn's LogisticRegression(C=1 / l2).
    Deterministic: L-BFGS from zero on the whole sample. Stopping early would loosen the bound, not invalidate it.
    """
    if not (math.isfinite(l2) and l2 > 0):
        raise ValueError(f"l2 must be a finite number above 0, found {l2}")
    weights = features.new_zeros(num_classes, features.shape[1]).requires_grad_()
    bias = features.new_zeros(num_classes).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weights, bias], max_iter=500, history_size=20, tolerance_grad=1e-6, tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def objective() -> Tensor:
        optimizer.zero_grad()
        fitted = F.cross_entropy(F.linear(features, weights, bias), labels)
        loss = fitted + l2 / (2 * len(features)) * weights.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(objective)
    return weights.detach(), bias.detach()


def stratified_folds(labels: ArrayLike, folds: int, generator: np.random.Generator) -> Integers:
    """A fold 0..folds - 1 for each label (N,): classes, and folds as a whole, are spread as evenly as they can be."""
    y = np.asarray(labels)
    fold = np.empty(len(y), dtype=np.int64)
    dealt = 0
    for value in np.unique(y):
        members = generator.permutation(np.flatnonzero(y == value))
        fold[members] = (dealt + np.arange(len(members))) % folds
        dealt += len(members)
    return fold


def _held_out(x: Floats, y: Integers, x_new: Floats, num_classes: int, l2: float) -> NDArray[np.float64]:
    """Log-probabilities (M, C) for features x_new (M, D) of a probe fitted to x (N, D) and y (N,)."""
    mean, deviation = x.mean(0), x.std(0)
    deviation[deviation <= _CONSTANT * np.abs(mean)] = 1
    train, new = (torch.from_numpy((values - mean) / deviation) for values in (x, x_new))
    weights, bias = fit(train, torch.from_numpy(y), num_classes, l2)
    log_probs: Floats = F.log_softmax(F.linear(new, weights, bias), dim=1).numpy()
    return log_probs
