"""Running a suite of attacks on trained models."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from sglr import files, models, processes, threat
from sglr.attacks import REGISTRY
from sglr.attacks.accuracy import LogitsError
from sglr.attacks.requested import require_attackable
from sglr.config import Config
from sglr.config.errors import ModelError
from sglr.config.names import CHECKPOINTS, WORST
from sglr.data import Images, Prepared, Split
from sglr.evaluation.chance import at_chance
from sglr.evaluation.measurement import Measurement
from sglr.evaluation.model_checks import inspect, model_at, unchanged
from sglr.evaluation.outcome import Outcome
from sglr.evaluation.pieces import NOWHERE, Pieces
from sglr.evaluation.result import Evaluation, radius_key
from sglr.evaluation.sanity import SanityInputs, sanity
from sglr.evaluation.skew import skewed
from sglr.evaluation.worst import covered
from sglr.models.compiling import compiled
from sglr.models.precision import full_precision
from sglr.random import seeded

# Of so many test examples, the first ones, the worst-case images are kept.
KEPT = 1000
# Told a checkpoint's name, its natural accuracy, and of how many examples.
OnNatural = Callable[[str, float, int], object]


def evaluate(
    config: Config,
    data: Prepared,
    trained: Path,
    *,
    device: torch.device,
    pieces: Path | None = None,
    nproc: int = 1,
    on_resume: Callable[[int], object] = lambda pieces: None,
    on_natural: OnNatural | None = None,
) -> Evaluation:
    """Attack the best and the last model of a training folder with every attack of ``config.evaluate``.

    Natural accuracy comes first; the attacks of both models use the same random streams. All images come from the
    test split, in its order. With a ``pieces`` folder, which must belong to these inputs alone, finished chunks are
    kept there and not repeated; ``on_resume`` is told how many pieces of work an earlier run left there. ``on_natural``
    is told a checkpoint's name, its natural accuracy and of how many examples, before that checkpoint is attacked.
    ``nproc`` processes take chunks in turn; it needs such a folder, and changes no outcome. FileError when a model is
    missing or does not fit, or the test split is empty; ModelError when a model's outputs cannot count (see
    ``model_checks``); ProcessError when one of several processes fails; ConfigError for an attack that such data does
    not suit.
    """
    require_attackable(config, data.num_classes, data.shape)
    test = data.test(device)
    if len(test) == 0:
        raise files.FileError("the test split is empty: there is nothing to evaluate on.")
    kept = Pieces(pieces)
    if len(kept):
        on_resume(len(kept))
    checkpoints = trained_models(trained)
    flags = {}
    # Of all of them before any is attacked.
    with full_precision():
        for path in checkpoints:
            with _evaluable(path, device) as model:
                flags[path.name] = _model_flags(config, model, test, data.num_classes, path.name, model_at(path))
    if nproc > 1:
        share = (nproc, config, data.test(), checkpoints, device, kept, torch.get_num_threads())
        with processes.alongside(nproc - 1, _take_chunks, *share):
            _take_chunks(0, *share, on_natural)
    result = Evaluation(flags=skewed(test.true, _sizes(config, test)))
    with _progress(config, test, len(checkpoints)) as bar, full_precision():
        for path in checkpoints:
            result.flags += flags[path.name]
            with _evaluable(path, device) as model:
                left_to_tell = on_natural if nproc == 1 else None
                _checkpoint(config, test, model, path.name, kept.below(path.name), result, bar, left_to_tell)
    return result


def evaluate_model(
    config: Config, model: nn.Module, test: Split, num_classes: int, *, pieces: Path | None = None
) -> Evaluation:
    """As ``evaluate``, for one model that is in eval mode on the device of ``test``; it counts as ``last``."""
    channels, height, width = test.x.shape[1:]
    require_attackable(config, num_classes, (channels, height, width))
    result, called = Evaluation(flags=skewed(test.true, _sizes(config, test))), "the model"
    with _progress(config, test, 1) as bar, full_precision(), _counting(model, called):
        result.flags += _model_flags(config, model, test, num_classes, "last", called)
        _checkpoint(config, test, model, "last", Pieces(pieces).below("last"), result, bar)
    return result


@contextlib.contextmanager
def _evaluable(path: Path, device: torch.device) -> Iterator[nn.Module]:
    """The model in a folder, in a block as ``_counting``."""
    model = models.load_model(path).to(device)
    with _counting(model, model_at(path)):
        yield model


@contextlib.contextmanager
def _counting(model: nn.Module, called: str) -> Iterator[None]:
    """ModelError that names the model where the block meets logits that cannot count, or changes it."""
    try:
        with unchanged(model, called):
            yield
    except LogitsError as error:
        raise ModelError(f"{called} cannot be evaluated: {error}.") from error


def _model_flags(config: Config, model: nn.Module, test: Split, num_classes: int, name: str, called: str) -> list[str]:
    """Flags of what makes outcomes of a model doubtful before it is attacked."""
    section = config.evaluate
    natural = Images(test, section.examples(len(test)))
    with seeded(section.seed, test.true.device):
        flags = inspect(model, natural, num_classes, section.batch_size, called)
    return [f"{name}: {flag}" for flag in flags]


def _progress(config: Config, test: Split, checkpoints: int) -> "tqdm[NoReturn]":
    chunks = sum(measurement.chunks for _, measurement in _planned(config, test, nn.Identity(), NOWHERE))
    return tqdm(total=checkpoints * chunks, desc="evaluate", unit="chunk", disable=None, leave=False)


def trained_models(trained: Path) -> list[Path]:
    """The folders of a training's models: ``last`` and, where there was a validation split, ``best``.

    FileError when the training is not there.
    """
    folders = [trained / name for name in CHECKPOINTS]
    for folder in folders:
        if not folder.is_dir():
            raise files.FileError(f"{folder} is not there: the training has to run first.")
    return [folder for folder in folders if folder.name == "last" or any(folder.iterdir())]


def _take_chunks(
    rank: int, nproc: int, config: Config, test: Split, checkpoints: list[Path], device: torch.device, pieces: Pieces,
    threads: int, on_natural: OnNatural | None = None,
) -> None:  # fmt: skip
    """Do every nproc-th chunk, from ``rank`` on, only to leave its pieces on disk.

    Where somebody is to be told natural accuracy, the chunks that the others have not finished yet are done here, too.
    """
    torch.set_num_threads(threads)
    device = processes.device_of(rank, device)
    on_device = test.to(device)
    with full_precision():
        for path in checkpoints:
            with _evaluable(path, device) as model:
                network = _network(config, model, device)
                for key, measurement in _planned(config, on_device, network, pieces.below(path.name)):
                    for number in tqdm(
                        range(rank, measurement.chunks, nproc), desc=f"evaluate, process {rank} of {nproc}",
                        unit="chunk", disable=rank > 0 or None, leave=False,
                    ):  # fmt: skip
                        measurement.part(number)
                    if on_natural and key == ("natural",):
                        _tell(on_natural, path.name, measurement.whole())


def _planned(
    config: Config, test: Split, model: nn.Module, pieces: Pieces
) -> Iterator[tuple[tuple[str, ...], Measurement]]:
    """The attacks and then the rising radii of the sweep, by name: ("pgd20",), ("sweep", "12.75").

    The smaller balls lie within the larger: an example that is broken at one radius counts as broken at every larger
    one, so that the curve never rises.
    """
    section = config.evaluate
    size = section.examples(len(test))

    def measurement(name: tuple[str, ...], n: int, eps_255: float, **more: Any) -> Measurement:
        return Measurement(
            model, Images(test, n), test.true[:n], threat=threat.build(config.threat.norm, eps_255 / 255),
            seed=section.seed, chunk=section.batch_size, pieces=pieces.below(*name), **more,
        )  # fmt: skip

    natural = measurement(("natural",), size, 0, options=None, keep=KEPT)
    yield ("natural",), natural
    for attack, options in section.attacks.items():
        n, eps_255 = section.examples(len(test), options), config.threat.eps_255
        yield (attack,), measurement((attack,), n, eps_255, options=options, keep=KEPT, before=natural)
    if section.sweep is None:
        return
    options = REGISTRY.options("pgd", steps=section.sweep.steps)
    yield ("sweep", "0"), (smaller := natural)
    for eps_255 in sorted(section.sweep.eps_255):
        name = ("sweep", radius_key(eps_255))
        smaller = measurement(name, size, eps_255, options=options, before=smaller)
        yield name, smaller


def _checkpoint(
    config: Config, test: Split, model: nn.Module, name: str, pieces: Pieces, result: Evaluation,
    bar: "tqdm[NoReturn]", on_natural: OnNatural | None = None,
) -> None:  # fmt: skip
    """Measure one checkpoint, called ``name``, and add what was found to ``result``."""
    section = config.evaluate
    size = section.examples(len(test))
    attacks: dict[str, Outcome] = {}
    swept: dict[str, Outcome] = {}
    network = _network(config, model, test.true.device)
    for key, measurement in _planned(config, test, network, pieces):
        bar.set_postfix(model=name, attack=" ".join(key))
        outcome = (attacks if len(key) == 1 else swept)[key[-1]] = measurement.whole(bar.update)
        if on_natural and key == ("natural",):
            with bar.external_write_mode():
                _tell(on_natural, name, outcome)
    found = result.correct[name] = {attack: outcome.correct for attack, outcome in attacks.items()}
    result.flags += [f"{name}: {flag}" for flag in at_chance(found["natural"], test.true[:size])]
    result.flags += [f"{name}/{attack}: {said}" for attack, outcome in attacks.items() for said in outcome.warnings]
    result.worst[name] = _worst(attacks)
    # One attack says nothing that its own row does not say.
    whole = covered({attack: len(outcome) for attack, outcome in found.items()})
    if len(whole) >= 2:
        found[WORST] = np.logical_and.reduce([found[attack] for attack in whole])
    if swept:
        result.sweep[name] = {eps: outcome.correct for eps, outcome in swept.items()}
    if section.sanity:
        n = section.examples(len(test), section.sanity)
        inputs = SanityInputs(
            model, test.images(slice(0, n)), test.true[:n], eps=config.threat.eps_255 / 255,
            steps=section.sanity.steps, ball=lambda eps: threat.build(config.threat.norm, eps), seed=section.seed,
            chunk=section.batch_size, pieces=pieces.below("sanity"),
        )  # fmt: skip
        with seeded(section.seed, test.true.device):
            result.flags += [f"{name}: {flag}" for flag in sanity(inputs)]


def _tell(on_natural: OnNatural, name: str, natural: Outcome) -> None:
    on_natural(name, float(natural.correct.mean()), len(natural.correct))


def _network(config: Config, model: nn.Module, device: torch.device) -> nn.Module:
    """The model as attacks call it."""
    network = compiled(model, device, config.evaluate.compile, any_size=True)
    if network is not model:
        model.requires_grad_(False)
    return network


def _worst(attacks: dict[str, Outcome]) -> Outcome:
    """The first examples under all attacks together, those without an attack among them."""
    found = attacks["natural"].first(KEPT)
    for outcome in attacks.values():
        found = found.worse(outcome.first(KEPT))
    return found


def _sizes(config: Config, test: Split) -> dict[str, int]:
    """How many test examples everything that looks at the first of them is run on, by name."""
    section = config.evaluate
    looking = {"natural": None, **section.attacks} | ({"sanity": section.sanity} if section.sanity else {})
    return {name: section.examples(len(test), own) for name, own in looking.items()}
