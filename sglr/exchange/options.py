"""`sglr evaluate`, from its text options to the metrics."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from sglr import files, processes
from sglr.config import Config, ConfigError, load, parse
from sglr.config import doubts as all_doubts
from sglr.config.errors import said
from sglr.config.sections import ThreatSettings
from sglr.data import open_folder
from sglr.evaluation.suite import OnNatural
from sglr.exchange.evaluating import evaluate_foreign, load_weights
from sglr.exchange.foreign import MisfitError
from sglr.exchange.given_images import read_test

_OF_THE_ATTACKS = r"threat\.|evaluate\.sweep\.|evaluate\.attacks\.\w+\.step_size_255 "


def suite(params: str, *, norm: str | None, eps: float | None, n_examples: int | None) -> Config:
    """The config in a params file with the norm, radius (in 255ths) and test examples that are given instead.

    In another norm there is no curve over the radius: its radii are of the params' norm. Raises ConfigError with a
    message for the user.
    """
    config = load(params)
    ball, changes = _threat(config.threat, norm, eps), dict[str, Any]()
    if ball.norm != config.threat.norm:
        changes["sweep"] = None
    if n_examples is not None:
        changes["n_examples"] = n_examples
    return config.model_copy(update={"threat": ball, "evaluate": config.evaluate.model_copy(update=changes)})


def doubts(config: Config) -> list[str]:
    """Warnings about radius and steps of the attacks that are probably mistakes."""
    return [doubt for doubt in all_doubts(config) if re.match(_OF_THE_ATTACKS, doubt)]


def run(
    weights: Path,
    name: str | None,
    output: Path,
    config: Config,
    *,
    folder: str,
    npz: str | None,
    options: Sequence[str] = (),
    num_classes: int | None = None,
    normalization: str | None = None,
    key: str | None = None,
    device: str = "auto",
    nproc: str = "1",
    on_natural: OnNatural | None = None,
) -> dict[str, Any]:
    """Run ``sglr evaluate`` with its options, as texts, and the ``config`` of ``suite``; returns the metrics.

    ``on_natural``: see ``evaluate``.

    Raises ConfigError and FileError with a message for the user.
    """
    processes.keep_freed_memory()
    torch.set_num_threads(config.experiment.threads)
    if npz is None and not (Path(folder) / "meta.json").is_file():
        raise files.FileError(
            f"there are no prepared data in {folder}: `dvc repro prepare` makes them, --npz names a file of your own."
        )
    data = open_folder(folder) if npz is None else read_test(npz, num_classes)
    if num_classes not in (None, data.num_classes):
        raise ConfigError(f"--num-classes {num_classes} does not match {folder}, which has {data.num_classes} classes.")
    try:
        model = load_weights(
            weights, name, data, key=key, normalization=parse_normalization(normalization),
            options=parse_options(options),
        )  # fmt: skip
    except MisfitError as error:
        if npz is None or num_classes is not None:
            raise
        raise files.FileError(
            f"{error} (Labels count from 0: the largest in {npz} is {data.num_classes - 1}, so {data.num_classes}"
            " classes are assumed. --num-classes says how many there are.)"
        ) from None
    chosen = processes.device(device, "--device")
    count = processes.count(nproc, chosen, "--nproc")
    return evaluate_foreign(
        config, data, model, output, weights=weights, device=chosen, nproc=count, on_natural=on_natural
    )


def _threat(ball: ThreatSettings, norm: str | None, eps: float | None) -> ThreatSettings:
    """The threat model of the params, with the norm and the radius (in 255ths) that the command line gives instead."""
    if norm not in (None, ball.norm) and eps is None:
        raise ConfigError(
            f"--norm {norm} without --eps: the radius of the params, {ball.eps_255:g}/255, is one in {ball.norm}."
        )
    asked = {key: value for key, value in (("norm", norm), ("eps_255", eps)) if value is not None}
    try:
        return ThreatSettings.model_validate(ball.model_dump() | asked)
    except ValidationError as error:
        problems = [said(problem, f"--{problem['loc'][0]}".removesuffix("_255")) for problem in error.errors()]
        raise ConfigError("; ".join(problems)) from None


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
