"""What produced the results: the params that affect them, and the versions in use."""

import platform
from typing import Any

from sglr import __version__
from sglr.config.packages import version
from sglr.report.study import Study

PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "pyautoattack", "matplotlib")


def provenance(study: Study) -> dict[str, Any]:
    """``params`` (methods that are not listed left out), ``versions`` of those packages that are installed,
    ``data_sha256`` (of the data's meta.json, which holds a checksum of every array), and ``weights``: the MD5 of every
    trained model by item and checkpoint."""
    params = study.config.model_dump(mode="json")
    used = {*study.methods, study.config.report.baseline}
    params["methods"] = {name: method for name, method in params["methods"].items() if name in used}
    weights = {f"{item.method}-{item.seed}/{name}": md5 for item in study.items for name, md5 in item.weights.items()}
    return {"params": params, "versions": versions(), "data_sha256": study.data_sha256, "weights": weights}


def versions() -> dict[str, str]:
    """Python and the packages that can change a number or a figure, read without importing them."""
    found = {"sglr": __version__, "python": platform.python_version()}
    return found | {package: installed for package in PACKAGES if (installed := version(package))}
