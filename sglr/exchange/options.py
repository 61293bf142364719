"""`sglr evaluate`, from its text options to the metrics."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sglr import files, processes
from sglr.config import ConfigError, load, parse
from sglr.data import open_folder
from sglr.evaluation.suite import OnNatural
from sglr.exchange.evaluating import evaluate_foreign, load_weights, lock_of
from sglr.exchange.given_images import read_test


def run(
    weights: Path,
    name: str | None,
    output: Path,
    *,
    folder: str,
    npz: str | None,
    params: str,
    options: Sequence[str] = (),
    num_classes: int | None = None,
    normalization: str | None = None,
    key: str | None = None,
    n_examples: int | None = None,
    device: str = "auto",
    nproc: str = "1",
    on_natural: OnNatural | None = None,
) -> dict[str, Any]:
    """Run ``sglr evaluate`` with its options, as texts; returns the metrics. ``on_natural``: see ``evaluate``.

    Raises ConfigError and FileError with a message for the user.
    """
    settings = load(params)
    if n_examples is not None:
        settings = settings.model_copy(
            update={"evaluate": settings.evaluate.model_copy(update={"n_examples": n_examples})}
        )
    processes.keep_freed_memory()
    torch.set_num_threads(settings.experiment.threads)
    if npz is None and not (Path(folder) / "meta.json").is_file():
        raise files.FileError(
            f"there are no prepared data in {folder}: `dvc repro prepare` makes them, --npz names a file of your own."
        )
    data = open_folder(folder) if npz is None else read_test(npz, num_classes)
    if num_classes not in (None, data.num_classes):
        raise ConfigError(f"--num-classes {num_classes} does not match {folder}, which has {data.num_classes} classes.")
    model = load_weights(
        weights, name, data, key=key, normalization=parse_normalization(normalization), options=parse_options(options)
    )
    chosen = processes.device(device, "--device")
    count = processes.count(nproc, chosen, "--nproc")
    with files.lock(lock_of(output), holder=f"another `sglr evaluate` into {output}"):
        return evaluate_foreign(
            settings, data, model, output, weights=weights, device=chosen, nproc=count, on_natural=on_natural
        )


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """Options of an architecture from KEY=VALUE texts, values written as in params.yaml; ConfigError otherwise."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise ConfigError(f"--option {text!r} is not KEY=VALUE.")
        found[key] = parse(f"value: {value}", f"--option {text}")["value"]
    return found


def parse_normalization(text: str | None) -> dict[str, list[float]] | None:
    """Mean and std per channel from 0.49,0.48,0.45/0.25,0.24,0.26; None for None or 'none'; ConfigError otherwise."""
    if text is None or text == "none":
        return None
    try:
        mean, std = ([float(value) for value in part.split(",")] for part in text.split("/"))
    except ValueError:
        raise ConfigError(
            f"--normalization {text!r} is not MEAN/STD with one number per channel (0.49,0.48,0.45/0.25,0.24,0.26)."
        ) from None
    return {"mean": mean, "std": std}
