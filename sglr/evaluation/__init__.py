"""Robustness evaluation: suites of attacks, outcomes per example, intervals and paired comparisons.

Names are loaded on first use: the statistics alone, which the report needs, depend on no attack.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sglr.evaluation.auditing import Audit, audit, write_audit
    from sglr.evaluation.hierarchical import hierarchical_bootstrap
    from sglr.evaluation.on_models import evaluate
    from sglr.evaluation.result import Evaluation, write
    from sglr.evaluation.statistics import mcnemar, mean_std, wilson

_EXPORTS = {
    "Audit": "auditing",
    "audit": "auditing",
    "write_audit": "auditing",
    "Evaluation": "result",
    "evaluate": "on_models",
    "write": "result",
    "hierarchical_bootstrap": "hierarchical",
    "mcnemar": "statistics",
    "mean_std": "statistics",
    "wilson": "statistics",
}

__all__ = [
    "Audit", "Evaluation", "audit", "evaluate", "hierarchical_bootstrap", "mcnemar", "mean_std", "wilson", "write",
    "write_audit",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
