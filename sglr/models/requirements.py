"""What a network must be, looked at when it is built: before it is trained, not when it is saved or analysed."""

import torch
from torch import nn

from sglr.config import ConfigError
from sglr.models.registry import ModelOptions, Shape

# What a saved model's tensors may be.
DTYPES = {"F32": torch.float32, "I64": torch.int64}


def require_classifier(model: nn.Module, options: ModelOptions, num_classes: int, shape: Shape) -> None:
    """ConfigError for a network that could not be saved and loaded again, or is not of the form that analyses need.

    Where it has values, it is tried on two images (C, H, W) of ``shape``; modes and torch's random state stay.
    """
    if problem := _unsavable(model):
        raise ConfigError(f"model {options.name!r} could not be saved and loaded again: {problem}")
    with torch.random.fork_rng(devices=[]):
        problem = _unusable(model, options, num_classes, shape)
    if problem:
        raise ConfigError(f"model {options.name!r} is not of the form head(features(normalize(x))): {problem}")


def _unsavable(model: nn.Module) -> str | None:
    """Why weights of this network could not be restored from a file; None where they could."""
    for path, module in model.named_modules():
        for name in sorted(module._non_persistent_buffers_set):
            return f"its buffer {f'{path}.{name}'.lstrip('.')} is not persistent"
        # What a layer makes anew from parameters of its name before each forward, as older weight_norm does, is saved.
        made = {name.rpartition("_")[0] for name in module._parameters}
        for name, value in vars(module).items():
            if isinstance(value, torch.Tensor) and name not in made:
                return f"its tensor {f'{path}.{name}'.lstrip('.')} is neither a parameter nor a buffer"
    owners: dict[int, str] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, torch.Tensor):
            return f"{name} is not a tensor"
        if value.dtype not in DTYPES.values():
            return f"{name} is {str(value.dtype).removeprefix('torch.')}; float32 and int64 are supported"
        if value.numel() and (other := owners.setdefault(value.untyped_storage()._cdata, name)) != name:
            return f"{name} and {other} share their memory"
    return None


@torch.no_grad()
def _unusable(model: nn.Module, options: ModelOptions, num_classes: int, shape: Shape) -> str | None:
    """Why training, analysis or export could not use this network; None where they could, or it has no values yet."""
    head, features, normalize = (getattr(model, name, None) for name in ("head", "features", "normalize"))
    if not isinstance(head, nn.Linear):
        return f"its head is no torch.nn.Linear but {head!r}"
    if not callable(features):
        return "it has no method features, which gives what goes into its head"
    if head.weight.is_meta:
        return None
    called: list[bool] = []
    hook = (
        normalize.register_forward_hook(lambda *of: called.append(True)) if isinstance(normalize, nn.Module) else None
    )
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        x = torch.linspace(0, 1, 2, device=head.weight.device).view(-1, 1, 1, 1).expand(-1, *shape).contiguous()
        outputs = []
        for compute in (model, lambda x: head(features(x))):
            torch.default_generator.manual_seed(0)  # what it draws, it draws twice
            outputs.append(compute(x))
    except Exception as error:  # whatever happens in it
        return f"on images {shape} it fails: {error}"
    finally:
        for module, mode in modes:
            module.training = mode
        if hook is not None:
            hook.remove()
    logits, composed = outputs
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, num_classes):
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        return f"its logits of two images of {num_classes} classes are {found}, not {(2, num_classes)}"
    if composed.shape != logits.shape or not torch.allclose(logits, composed, rtol=1e-3, atol=1e-4, equal_nan=True):
        return "its logits are others than head(features(x))"
    if options.normalization is not None and not called:
        return "it does not call self.normalize, so that model.normalization would have no effect"
    return None
