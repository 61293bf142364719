"""Building models by name, and the plain description from which a saved one is rebuilt."""

from numbers import Integral
from typing import Any

import torch

from sglr.config import ConfigError
from sglr.models.precision import float32_by_default
from sglr.models.registry import REGISTRY, Classifier, ModelOptions, Shape, without_weights
from sglr.models.requirements import require_classifier
from sglr.random import derive, seed_torch

FORMAT = 1


def build(
    model: str | ModelOptions,
    *,
    num_classes: int,
    shape: Shape,
    generator_seed: int | None = None,
    **options: Any,
) -> Classifier:
    """An untrained model, in train mode on the CPU, for images of ``shape`` (C, H, W) in [0, 1].

    ``model`` is a registered name, with its ``options`` as keywords, or options already validated (``config.model``).
    With ``generator_seed`` the initial weights depend on it alone and torch's global random state stays as it was;
    without, they are drawn from that state. Raises ConfigError for an unknown name, for options that do not fit, for a
    network that could not be saved and loaded again, and for one that is no ``Classifier``: it is tried on two images.
    """
    chosen = _options(model, options)
    num_classes, shape = _checked(num_classes, shape)
    with torch.random.fork_rng(devices=[], enabled=generator_seed is not None):
        if generator_seed is not None:
            seed_torch(generator_seed, torch.device("cpu"))
        with float32_by_default():
            built = chosen.build(num_classes, shape)
            require_classifier(built, chosen, num_classes, shape)
    return built


def spec(model: str | ModelOptions, *, num_classes: int, shape: Shape, **options: Any) -> dict[str, Any]:
    """The content of model.json: everything ``build`` needs to rebuild the same architecture, as plain values."""
    chosen = _options(model, options)
    num_classes, shape = _checked(num_classes, shape)
    return {
        "format": FORMAT,
        "name": chosen.name,
        "num_classes": num_classes,
        "shape": list(shape),
        "options": chosen.model_dump(mode="json", exclude={"name"}),
    }


def initial(values: Any, seed: int) -> Classifier:
    """The untrained model that a ``spec`` describes, as a run with this seed begins with it, whatever its method."""
    return from_spec(values, generator_seed=derive(seed, "init"))


def from_spec(values: Any, device: str = "cpu", *, generator_seed: int | None = None) -> Classifier:
    """The untrained model that a ``spec`` describes, on ``device`` ('meta' allocates nothing, as ``without_weights``).

    ``generator_seed`` as for ``build``. Raises ConfigError (a ValueError) when it does not describe one.
    """
    wanted = {"format", "name", "num_classes", "shape", "options"}
    if not isinstance(values, dict) or set(values) != wanted:
        raise ConfigError(f"expected a mapping with exactly the keys {', '.join(sorted(wanted))}")
    if values["format"] != FORMAT:
        raise ConfigError(f"format {values['format']!r} is not known; this version reads format {FORMAT}")
    if not isinstance(values["name"], str) or not isinstance(values["options"], dict) or "name" in values["options"]:
        raise ConfigError("name must be text and options a mapping of options")
    asked = {"num_classes": values["num_classes"], "shape": values["shape"], "generator_seed": generator_seed}
    options = _options(values["name"], values["options"])
    if device == "meta":
        return without_weights(lambda: build(options, **asked))
    with torch.device(device):
        return build(options, **asked)


def _options(model: str | ModelOptions, options: dict[str, Any]) -> ModelOptions:
    if isinstance(model, ModelOptions):
        if options:
            raise TypeError("options are given twice: in the options object and as keywords")
        return model
    chosen = REGISTRY.options(model, **options)
    assert isinstance(chosen, ModelOptions)
    return chosen


def _checked(num_classes: Any, shape: Any) -> tuple[int, Shape]:
    """Both as plain ints, or ConfigError."""
    if not _is_count(num_classes) or num_classes < 2:
        raise ConfigError(f"num_classes must be a whole number of at least 2, found {num_classes!r}")
    if not isinstance(shape, tuple | list) or len(shape) != 3 or not all(map(_is_count, shape)):
        raise ConfigError(f"shape must be (channels, height, width), three positive whole numbers, found {shape!r}")
    return int(num_classes), (int(shape[0]), int(shape[1]), int(shape[2]))


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and 1 <= int(value) <= 2**20
