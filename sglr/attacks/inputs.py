"""What attacks can be asked about."""

from torch import Tensor


def require_pictures(x: Tensor, y: Tensor) -> None:
    """ValueError unless x holds pictures (N, ...) in [0, 1] and y as many labels. Waits for the device."""
    if not x.is_floating_point() or x.dim() < 2:
        raise ValueError(f"pictures must be floating point, (N, C, H, W), found {x.dtype} {tuple(x.shape)}")
    if len(x) != len(y):
        raise ValueError(f"{len(x)} pictures and {len(y)} labels")
    if not bool(((x >= 0) & (x <= 1)).all()):
        low, high = x.detach().aminmax()
        raise ValueError(
            f"pictures must lie in [0, 1], found {float(low):g} to {float(high):g}:"
            " normalise in the model, not before it"
        )
