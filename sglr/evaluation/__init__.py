"""Robustness evaluation: suites of attacks, outcomes per example, intervals and paired comparisons."""

from sglr.evaluation.statistics import hierarchical_bootstrap, mean_std, wilson
from sglr.evaluation.suite import Evaluation, evaluate, write

__all__ = ["Evaluation", "evaluate", "hierarchical_bootstrap", "mean_std", "wilson", "write"]
