"""Information-theoretic analysis of trained networks: entropies, calibration, memorisation, gradients, a probe bound.

The estimators are pure functions of arrays, one idea a file; ``analyze`` applies them to a training folder and
``write`` writes the results. All are reconstructions: the paper's own estimators are not published.
"""

from sglr.information.analyze import analyze, write
from sglr.information.calibration import brier, ece, nll, reliability_table
from sglr.information.entropy import contingency, cross_entropy, entropy, label_entropy, mutual_information
from sglr.information.gradients import last_layer_norms
from sglr.information.memorization import curves, recovery
from sglr.information.probe import ProbeBound, TooFewExamplesError, probe_information

__all__ = [
    "ProbeBound",
    "TooFewExamplesError",
    "analyze",
    "brier",
    "contingency",
    "cross_entropy",
    "curves",
    "ece",
    "entropy",
    "label_entropy",
    "last_layer_norms",
    "mutual_information",
    "nll",
    "probe_information",
    "recovery",
    "reliability_table",
    "write",
]
