"""What a network must be, looked at when it is built: before it is trained, not when it is saved or analysed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

from sglr.config import ConfigError
from sglr.models.registry import ModelOptions, Shape
from sglr.random import seed_torch, undisturbed

# What a saved model's tensors may be.
DTYPES = {"F32": torch.float32, "I64": torch.int64}
_RELATIVE = 1e-3


def require_classifier(model: nn.Module, options: ModelOptions, num_classes: int, shape: Shape) -> None:
    """ConfigError for a network that could not be saved and loaded again, or is not of the form that analyses need.

    Where it has values, others with its weights are built and tried on two images (C, H, W) of ``shape``, and on one of
    them alone; the network itself and all random states stay as they are.
    """
    if problem := _unsavable(model):
        raise ConfigError(f"model {options.name!r} could not be saved and loaded again: {problem}")
    if problem := _form(model):
        raise ConfigError(f"model {options.name!r} is not of the form head(features(normalize(x))): {problem}")
    if any(weight.is_meta for weight in model.parameters()):
        return

    def another() -> Any:
        built = options.build(num_classes, shape)
        built.load_state_dict(model.state_dict())
        return built

    with undisturbed(), torch.no_grad():
        problem = _tried(another, num_classes, shape, normalized=options.normalization is not None)
    if problem:
        raise ConfigError(f"model {options.name!r} {problem}")


def _unsavable(model: nn.Module) -> str | None:
    """Why weights of this network could not be restored from a file; None where they could."""
    for path, module in model.named_modules():
        for name in sorted(module._non_persistent_buffers_set):
            return f"its buffer {f'{path}.{name}'.lstrip('.')} is not persistent"
        # What a layer makes anew from parameters of its name before each forward, as older weight_norm does, is saved.
        made = {name.rpartition("_")[0] for name, _ in module.named_parameters(recurse=False)}
        for name, value in vars(module).items():
            if isinstance(value, torch.Tensor) and name not in made:
                return f"its tensor {f'{path}.{name}'.lstrip('.')} is neither a parameter nor a buffer"
    owners: dict[int, str] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if isinstance(value, torch.Tensor) and is_lazy(value):
            return f"{name} has no shape before its first forward"
        if not isinstance(value, torch.Tensor):
            return f"{name} is not a tensor"
        if value.dtype not in DTYPES.values():
            return f"{name} is {str(value.dtype).removeprefix('torch.')}; float32 and int64 are supported"
        if value.numel() and (other := owners.setdefault(value.untyped_storage()._cdata, name)) != name:
            return f"{name} and {other} share their memory"
    return None


def _form(model: nn.Module) -> str | None:
    """Which of its parts a network lacks."""
    if not isinstance(head := getattr(model, "head", None), nn.Linear):
        return f"its head is no torch.nn.Linear but {head!r}"
    if not callable(getattr(model, "features", None)):
        return "it has no method features, which gives what goes into its head"
    return None


def _tried(another: Callable[[], Any], num_classes: int, shape: Shape, *, normalized: bool) -> str | None:
    """Why training, analysis or export could not use networks of equal weights such as ``another()`` builds."""
    mode, images = "", torch.rand((2, *shape), generator=torch.Generator().manual_seed(0), device="cpu")

    def logits(network: nn.Module, n: int = 2) -> Tensor:
        x = images[:n].clone()
        seed_torch(0, images.device)
        found = network(x)
        if not isinstance(found, Tensor) or found.shape != (n, num_classes):
            form = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise _TrialError(
                f"gives {form} for {'two images' if n > 1 else 'one image'}{mode}, not logits {(n, num_classes)}"
            )
        if not torch.equal(x, images[:n]):
            raise _TrialError("changes the images it is given in place: let it compute new ones")
        return found

    try:
        one = another().eval()
        images = images.to(one.head.weight.device)
        found = logits(one)
        # Where it draws from a generator of its own, nothing can be compared.
        if _same(found, logits(one)):
            if not _same(found, logits(another().eval())):
                return (
                    "could not be saved and loaded again: two with equal weights give other logits; what is drawn when"
                    " it is built belongs in a buffer"
                )
            for value in one.head.parameters():  # a head of zeros would agree with everything
                value.normal_()
            found = logits(one)
            seed_torch(0, images.device)
            composed = F.linear(one.features(images.clone()), one.head.weight, one.head.bias)
            if composed.shape != found.shape or not _same(found, composed):
                return "is not of the form head(features(x)): its logits are others"
            if normalized and not _normalizes(one, lambda: logits(one)):
                return "does not call self.normalize, so that model.normalization has no effect"
        mode = " alone"
        logits(one, 1)  # as an attack sees the last that is not broken
        mode = " in train mode"
        logits(one.train())
    except _TrialError as error:
        return str(error)
    except Exception as error:  # whatever happens in it
        return f"fails on images {shape}{mode}: {error}"
    return None


class _TrialError(Exception):
    """What is wrong with a network, as the end of a sentence about it."""


def _normalizes(network: nn.Module, logits: Callable[[], Tensor]) -> bool:
    """Whether its normalisation is called, or matters otherwise; it is changed."""
    layer, called = getattr(network, "normalize", None), []
    if not isinstance(layer, nn.Module):
        return False
    hook = layer.register_forward_hook(lambda *of: called.append(True))
    before = logits()
    hook.remove()
    for value in layer.buffers():
        value.mul_(1 + torch.rand_like(value))
    return bool(called) or not _same(before, logits())


def _same(one: Tensor, other: Tensor) -> bool:
    scale = float(one.abs().max())
    return torch.allclose(one, other, rtol=_RELATIVE, atol=_RELATIVE * scale, equal_nan=True)
