"""Order, batches and augmentation."""

import numpy as np
import pytest
import torch

from sglr.data import augment, batches, order
from sglr.data.batches import draw, transform


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_an_epoch_visits_everything_once_and_keeps_the_incomplete_last_batch():
    visited = order(103, seed=0, epoch=1)
    parts = list(batches(103, 10, visited))
    assert [len(part) for part in parts] == [10] * 10 + [3]
    assert torch.equal(torch.cat(parts), visited)
    assert torch.equal(visited.sort().values, torch.arange(103))


def test_order_depends_on_seed_and_epoch_only():
    assert torch.equal(order(50, seed=1, epoch=2), order(50, seed=1, epoch=2))
    assert not torch.equal(order(50, seed=1, epoch=2), order(50, seed=1, epoch=3))
    assert not torch.equal(order(50, seed=1, epoch=2), order(50, seed=2, epoch=2))


def test_batches_without_an_order_go_from_first_to_last():
    assert [part.tolist() for part in batches(5, 2)] == [[0, 1], [2, 3], [4]]
    assert list(batches(0, 2)) == []
    with pytest.raises(ValueError, match="order of 4 for 5 examples"):
        list(batches(5, 2, torch.arange(4)))


def one_by_one(x, draws, padding):
    """The same crops and reflections, image by image."""
    results = []
    for image, (row, column, mirrored) in zip(x.numpy(), draws.tolist(), strict=True):
        height, width = image.shape[1:]
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
        crop = padded[:, row : row + height, column : column + width]
        results.append(crop[:, :, ::-1] if mirrored else crop)
    return torch.from_numpy(np.stack(results))


@pytest.mark.parametrize(("padding", "flip"), [(4, True), (2, False), (0, True), (1, True)])
@pytest.mark.parametrize("shape", [(64, 3, 12, 12), (16, 1, 5, 8)])
def test_augmentation_equals_the_loop_over_images(shape, padding, flip):
    x = torch.rand(shape, generator=generator())
    draws = draw(len(x), crop_padding=padding, flip=flip, generator=generator(1))
    found = augment(x, crop_padding=padding, flip=flip, generator=generator(1))
    assert torch.equal(found, one_by_one(x, draws, padding))


def test_all_crops_and_both_sides_are_drawn_evenly():
    n, padding = 20_000, 1
    draws = draw(n, crop_padding=padding, flip=True, generator=generator())
    counts = torch.zeros(3, 3, 2)
    counts.index_put_(tuple(draws.unbind(1)), torch.ones(n), accumulate=True)
    expected = n / 18
    assert (counts - expected).abs().max() < 5 * expected**0.5


def test_nothing_asked_for_changes_nothing_and_draws_nothing():
    x, used = torch.rand(4, 1, 8, 8), generator()
    before = used.get_state()
    assert torch.equal(augment(x, crop_padding=0, flip=False, generator=used), x)
    assert torch.equal(used.get_state(), before)


def test_an_image_is_transformed_on_its_own():
    x = torch.rand(10, 3, 8, 8)
    draws = draw(10, crop_padding=2, flip=True, generator=generator())
    whole = transform(x, draws, crop_padding=2)
    parts = [transform(x[part], draws[part], crop_padding=2) for part in (slice(0, 6), slice(6, 10))]
    assert torch.equal(torch.cat(parts), whole)
