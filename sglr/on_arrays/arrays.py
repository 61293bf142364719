"""What a Python caller gives instead of prepared data and earlier models: arrays, and weights to begin with."""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sglr import models
from sglr.config.wording import some
from sglr.data import Split
from sglr.data.arrays import as_images, as_labels, check_images, check_labels
from sglr.files import FileError
from sglr.random import undisturbed

AnyArray = Tensor | np.ndarray[Any, Any]


def split(x: AnyArray, given: AnyArray, true: AnyArray, device: str | torch.device, images: str, labels: str) -> Split:
    """Arrays of any usual form as a split on a device.

    ValueError that names the one that cannot be used; TypeError for what is no array, such as a data set.
    """
    for array, name in ((x, images), (given, labels), (true, "true")):
        if not isinstance(array, Tensor | Sequence) and not hasattr(array, "__array__"):
            raise TypeError(f"{name} is a {type(array).__name__}; give a NumPy array or a torch tensor")
    arrays = [np.asarray(_for_numpy(array) if isinstance(array, Tensor) else array) for array in (x, given, true)]
    arrays[0] = as_images(arrays[0])
    arrays[1:] = map(as_labels, arrays[1:])
    try:
        check_images(arrays[0], images)
        check_labels(arrays[1], labels)
        check_labels(arrays[2], "true")
    except FileError as error:
        raise ValueError(str(error)) from None
    if not len(arrays[0]) == len(arrays[1]) == len(arrays[2]):
        apart = "" if true is given else f", {len(arrays[2])} true labels"
        raise ValueError(f"{len(arrays[0])} images ({images}), {len(arrays[1])} labels ({labels}){apart}")
    # In one order, whatever axes were exchanged: pyautoattack takes no other.
    return Split(*(torch.from_numpy(np.array(array, order="C")).to(device) for array in arrays))


def _for_numpy(tensor: Tensor) -> Tensor:
    """On the CPU, in a type that NumPy knows."""
    tensor = tensor.detach().cpu()
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def splits_of(x: AnyArray, y: AnyArray, true: AnyArray | None, validation: Any, device: torch.device) -> list[Split]:
    """The split for training and, where a pair is given for it, that for validation; errors as in ``split``."""
    splits = [split(x, y, y if true is None else true, device, "x", "y")]
    if validation is None:
        return splits
    if not isinstance(validation, tuple | list) or len(validation) != 2:
        raise TypeError(f"validation must be a pair, images and labels, found {type(validation).__name__}")
    images, labels = validation
    splits.append(split(images, labels, labels, device, "validation[0]", "validation[1]"))
    if splits[0].x.shape[1:] != splits[1].x.shape[1:]:
        raise ValueError("the images for validation have another shape than those for training")
    return splits


def class_count(splits: list[Split], num_classes: int | None) -> int:
    """How many classes there are; ValueError where a label exceeds ``num_classes``, TypeError where that is no whole
    number. Where it is None and some class has no image to train on, a warning, of the line that calls ``train``."""
    found = max(int(labels.max()) for split in splits for labels in (split.given, split.true)) + 1
    if num_classes is None:
        if absent := sorted(set(range(found)) - set(splits[0].given.tolist())):
            shown = some(list(map(str, absent)))
            warnings.warn(
                f"classes are numbered from 0, but no image is of class {shown}: {found} in all", stacklevel=4
            )
        return found
    if not hasattr(num_classes, "__index__"):
        raise TypeError(f"num_classes must be a whole number, found {num_classes!r}")
    if found > num_classes:
        raise ValueError(f"there is a label {found - 1}, but num_classes is {num_classes}")
    return int(num_classes)


def weights_of(initial: nn.Module | str | Path, spec: dict[str, Any]) -> dict[str, Tensor]:
    """Weights and buffers (copies, on the CPU) of a model, or of one saved in a folder, for the network of ``spec``.

    Raises TypeError for what is no model, FileError for a folder that cannot be read, and ValueError for another
    network: one whose weights have other names or shapes, or are not finite, that normalises images otherwise, or that
    gives other logits with these weights, as with another activation.
    """
    found = models.load_model(initial) if isinstance(initial, str | Path) else initial
    if not isinstance(found, nn.Module):
        raise TypeError(f"initial must be a model or the folder of one, found {type(initial).__name__}")
    found = models.unwrap(found)
    state = found.state_dict()
    if others := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"initial has more in its state than weights: {others[0]}")
    taken = {name: value.detach().cpu().clone() for name, value in state.items()}
    if broken := [name for name, value in taken.items() if value.is_floating_point() and not value.isfinite().all()]:
        raise ValueError(f"initial: {broken[0]} is NaN or infinite")
    built = models.from_spec(spec, generator_seed=0).eval()
    normalization = {name: value.clone() for name, value in built.state_dict().items() if name.startswith("normalize.")}
    what = f"initial is not the network {spec['name']!r} of the params (changes={{'model': ...}} names another)"
    try:
        models.put(built, taken)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    if any(not torch.equal(value, taken[name]) for name, value in normalization.items()):
        raise ValueError(f"{what}: it normalises images otherwise")
    x = torch.rand(2, *spec["shape"], generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), undisturbed():
        other = copy.deepcopy(found).cpu().eval()
        logits, again, ours = other(x), other(x), built(x)
    # One that draws random numbers is not the same as itself.
    if torch.equal(logits, again) and not torch.allclose(logits, ours, rtol=1e-3, atol=1e-4):
        raise ValueError(f"{what}: with the same weights it gives other logits, as with another activation")
    return taken
