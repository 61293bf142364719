"""The analyses of a finished study as one Markdown table: means over seeds with 95% t intervals, paired differences.

    python benchmarks/analysis_table.py [PROJECT]

reads params.yaml and artifacts/analyze of the project (default: here) and prints quantities of the last model and of
the labels after the last epoch. Intervals are over training seeds, those of differences over pairs of the same seed.
"""

import sys
from pathlib import Path

import numpy as np
from scipy import stats

from sglr.config import load
from sglr.files import read_json


def cell(values: list[float | None]) -> str:
    """'0.84 ± 0.03'; a dash where a run has no value."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or len(known) < 2:
        return "–"
    mean = float(np.mean(known))
    half = float(stats.t.ppf(0.975, len(known) - 1) * np.std(known, ddof=1) / np.sqrt(len(known)))
    digits = 2 if abs(mean) >= 1 or half >= 0.1 else 3
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def paired(first: list[float | None], second: list[float | None]) -> list[float | None]:
    """Differences seed by seed."""
    pairs = zip(first, second, strict=True)
    return [None if a is None or b is None else a - b for a, b in pairs]


def main() -> None:
    """Print the table."""
    project = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    config = load(project / "params.yaml")
    methods, seeds, baseline = config.experiment.methods, config.experiment.seeds, config.report.baseline
    found = {
        (method, seed): read_json(project / f"artifacts/analyze/{method}-{seed}/metrics.json")
        for method in methods
        for seed in seeds
    }
    others = [method for method in methods if method != baseline]
    columns = ["quantity", *methods, *(f"{method} − {baseline}" for method in others)]
    print("| " + " | ".join(columns) + " |")
    print("|---|" + "---:|" * (len(columns) - 1))
    for part in ("last", "run"):
        for name in dict.fromkeys(key for result in found.values() for key in result[part]):
            values = {method: [found[method, seed][part].get(name) for seed in seeds] for method in methods}
            differences = [paired(values[method], values[baseline]) for method in others]
            cells = [cell(some) for some in (*values.values(), *differences)]
            print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
