"""A suite of attacks on trained models, by one process or several."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from sglr import files, models, processes
from sglr.attacks.accuracy import LogitsError
from sglr.attacks.requested import require_attackable
from sglr.config import Config
from sglr.config.errors import ModelError
from sglr.config.names import CHECKPOINTS
from sglr.data import Prepared, Split
from sglr.evaluation.model_checks import model_at, unchanged
from sglr.evaluation.pieces import Pieces
from sglr.evaluation.result import Evaluation
from sglr.evaluation.suite import OnNatural, Suite
from sglr.models.precision import full_precision


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
    suite = Suite(config, test, Pieces(pieces), on_natural)
    if len(suite.pieces):
        on_resume(len(suite.pieces))
    checkpoints = trained_models(trained)
    flags = {}
    # All are checked before any is attacked.
    with full_precision():
        for path in checkpoints:
            with _evaluable(path, device) as model:
                flags[path.name] = suite.doubts(model, path.name, data.num_classes, model_at(path))
    if nproc > 1:
        share = (nproc, checkpoints, device, torch.get_num_threads())
        with processes.alongside(nproc - 1, _take_chunks, replace(suite, test=data.test(), on_natural=None), *share):
            _take_chunks(0, suite, *share)
        suite = replace(suite, on_natural=None)  # which was told
    result = Evaluation(flags=suite.skew())
    with suite.progress(len(checkpoints)) as bar, full_precision(), processes.current(device):
        for path in checkpoints:
            result.flags += flags[path.name]
            with _evaluable(path, device) as model:
                suite.measure(model, path.name, result, bar)
    return result


def evaluate_model(
    config: Config, model: nn.Module, test: Split, num_classes: int, *, pieces: Path | None = None
) -> Evaluation:
    """As ``evaluate``, for one model that is in eval mode on the device of ``test``; it counts as ``last``."""
    channels, height, width = test.x.shape[1:]
    require_attackable(config, num_classes, (channels, height, width))
    suite, called = Suite(config, test, Pieces(pieces)), "the model"
    result = Evaluation(flags=suite.skew())
    with suite.progress(1) as bar, full_precision(), processes.current(test.x.device), _counting(model, called):
        result.flags += suite.doubts(model, "last", num_classes, called)
        suite.measure(model, "last", result, bar)
    return result


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
    rank: int, suite: Suite, nproc: int, checkpoints: list[Path], device: torch.device, threads: int
) -> None:
    """One process's share of the chunks of all checkpoints, on its own device."""
    torch.set_num_threads(threads)
    device = processes.device_of(rank, device)
    suite = replace(suite, test=suite.test.to(device))
    with full_precision(), processes.current(device):
        for path in checkpoints:
            with _evaluable(path, device) as model:
                suite.take(model, path.name, rank, nproc)


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
