"""What attacks can be asked about."""

import math

from torch import Tensor

_ROUNDED = 1e-5


def require_images(x: Tensor, y: Tensor) -> None:
    """ValueError unless x holds images (N, ...) in [0, 1] and y as many labels. Waits for the device."""
    if not x.is_floating_point() or x.dim() < 2:
        raise ValueError(f"images must be floating point, (N, C, H, W), found {x.dtype} {tuple(x.shape)}")
    if len(x) != len(y):
        raise ValueError(f"{len(x)} images and {len(y)} labels")
    if not bool(((x >= 0) & (x <= 1)).all()):
        low, high = (float(end) for end in x.detach().aminmax())
        if math.isnan(low):
            raise ValueError("images must lie in [0, 1], found NaN")
        far = low < -_ROUNDED or high > 1 + _ROUNDED
        todo = "normalise in the model, not before it" if far else "clamp(0, 1) takes off what rounding added"
        raise ValueError(f"images must lie in [0, 1], found {low:.9g} to {high:.9g}: {todo}")
