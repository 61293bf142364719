"""Cutout against a plain loop, and where its squares lie."""

import pytest
import torch
from accelerator import DEVICE, accelerator

from sglr.augmentations import REGISTRY
from sglr.augmentations.cutout import cut
from sglr.config import ConfigError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cutout(size, shape=(1, 6, 6)):
    return REGISTRY.options("cutout", size=size).build(shape)


def one_by_one(x, centres, size):
    """The same squares, image by image."""
    results = x.clone()
    for image, (row, column) in zip(results, centres.tolist(), strict=True):
        top, left = row - size // 2, column - size // 2
        image[:, max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = 0
    return results


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 20])
@pytest.mark.parametrize("shape", [(3, 12, 12), (1, 5, 8)])
def test_it_equals_the_loop_over_images(shape, size):
    _, height, width = shape
    centres = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    x = torch.rand(len(centres), *shape, generator=generator()) + 0.1
    before = x.clone()
    assert torch.equal(cut(x, centres, size=size), one_by_one(x, centres, size))
    assert torch.equal(x, before)


def test_inside_the_image_the_square_has_its_size():
    x = torch.ones(2, 3, 9, 9)
    for size in (1, 2, 3, 4):
        holes = cut(x, torch.tensor([[4, 4], [3, 5]]), size=size) == 0
        assert holes.sum((1, 2, 3)).tolist() == [3 * size**2] * 2


def test_every_pixel_is_equally_often_the_centre():
    n, (height, width) = 40_000, (4, 5)
    holes = cutout(1)(torch.ones(n, 2, height, width), generator()) == 0
    assert torch.equal(holes[:, 0], holes[:, 1])
    assert (holes[:, 0].sum((1, 2)) == 1).all()
    expected = n / (height * width)
    assert (holes[:, 0].sum(0) - expected).abs().max() < 5 * expected**0.5


def test_it_draws_from_its_generator_alone():
    x = torch.rand(20, 1, 6, 6, generator=generator())
    found = cutout(3)(x, generator(1))
    torch.manual_seed(99)
    assert torch.equal(cutout(3)(x, generator(1)), found)
    assert not torch.equal(cutout(3)(x, generator(2)), found)


def test_on_a_device_it_does_the_same_and_waits_for_nothing():
    x = torch.rand(20, 3, 6, 6, generator=generator())
    expected = cutout(3)(x, generator(1))
    with accelerator() as device:
        there, drawn = x.to(DEVICE), torch.Generator(DEVICE).manual_seed(1)
        device.waits.clear()
        found = cutout(3)(there, drawn)
        assert device.waits == []
        assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 4, 6)])
def test_a_size_that_can_leave_nothing_is_a_misfit(shape):
    for size in range(1, 9):
        centres = torch.cartesian_prod(*map(torch.arange, shape[1:]))
        left = cut(torch.ones(len(centres), *shape), centres, size=size).sum((1, 2, 3))
        misfit = REGISTRY.options("cutout", size=size).misfit(shape)
        assert (misfit is not None) == bool((left == 0).any()), size
    assert misfit == "size 8 can leave nothing of an image; it must be less than 6, the longer side"


@pytest.mark.parametrize("size", [0, -1, 2.5, "4"])
def test_a_size_is_a_number_of_pixels(size):
    with pytest.raises(ConfigError, match="augmentation 'cutout': size"):
        REGISTRY.options("cutout", size=size)
