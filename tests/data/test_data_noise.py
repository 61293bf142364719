"""Label noise: the three conventions, their rates, the maps."""

from collections import Counter

import numpy as np
import pytest

from sglr.config import ConfigError
from sglr.config.sections import Noise
from sglr.data import REGISTRY, class_maps
from sglr.data.noise import draw, settle_map, share

C, N = 10, 20_000
TRUE = np.arange(N) % C


def noisy(kind, rate, class_map=None, seed=0):
    rng = np.random.default_rng(seed)
    return draw(TRUE, kind=kind, rate=rate, num_classes=C, class_map=class_map, rng=rng)


def test_symmetric_redraws_over_all_classes():
    given = noisy("symmetric", 0.4)
    # 8,000 redraws, each wrong with probability 9/10; four standard deviations of their number.
    assert abs((given != TRUE).sum() - 7200) < 4 * (8000 * 0.9 * 0.1) ** 0.5
    per_class = np.bincount(given[given != TRUE], minlength=C)
    assert np.abs(per_class - 720).max() < 4 * 720**0.5


def test_symmetric_other_makes_exactly_the_floor_wrong_and_uniform():
    given = noisy("symmetric-other", 0.35)
    assert (given != TRUE).sum() == 7000
    offsets = np.bincount((given - TRUE) % C, minlength=C)[1:]
    assert np.abs(offsets - 7000 / 9).max() < 4 * (7000 / 9) ** 0.5


def test_asymmetric_changes_the_floor_of_each_source_class_and_no_other():
    given = noisy("asymmetric", 0.251, {9: 1, 3: 5, 5: 3})
    changed = given != TRUE
    assert Counter(zip(TRUE[changed], given[changed], strict=True)) == {(9, 1): 502, (3, 5): 502, (5, 3): 502}


def test_none_gives_a_copy():
    given = noisy("none", 0.0)
    assert np.array_equal(given, TRUE)
    assert not np.shares_memory(given, TRUE)


@pytest.mark.parametrize("kind", ["symmetric", "symmetric-other", "asymmetric"])
def test_true_labels_stay_and_the_stream_decides(kind):
    before = TRUE.copy()
    one, again, other = (noisy(kind, 0.3, {0: 1}, seed) for seed in (0, 0, 1))
    assert np.array_equal(TRUE, before)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert one.dtype == np.int64
    assert one.min() >= 0
    assert one.max() < C


@pytest.mark.parametrize(("rate", "count", "floor"), [(0.29, 100, 29), (0.3, 299, 89), (1.0, 7, 7), (0.1, 9, 0)])
def test_the_floor_is_that_of_the_rate_as_written(rate, count, floor):
    assert share(rate, count) == floor


def test_cifar10_map_is_the_custom_of_the_literature():
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    found = {names[a]: names[b] for a, b in class_maps.CIFAR10.items()}
    assert found == {"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat"}


def test_cifar100_map_walks_in_a_circle_through_each_superclass():
    names = class_maps.CIFAR100_CLASSES
    assert len(set(names)) == 100
    assert names[:3] == ("apple", "aquarium_fish", "baby")
    assert names[97:] == ("wolf", "woman", "worm")
    group_of = {name: group for group, members in class_maps.CIFAR100_SUPERCLASSES.items() for name in members}
    for start in range(100):
        walk = [start]
        while (step := class_maps.CIFAR100[walk[-1]]) != start:
            walk.append(step)
        assert len(walk) == 5
        assert len({group_of[names[place]] for place in walk}) == 1


def test_cifar100_superclasses_are_the_coarse_labels_of_the_official_files():
    # fmt: off
    coarse = [
        4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15, 3, 15,
        0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17,
        10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19,
        18, 1, 2, 15, 6, 0, 17, 8, 14, 13,
    ]
    # fmt: on
    number = {name: place for place, group in enumerate(class_maps.CIFAR100_SUPERCLASSES.values()) for name in group}
    assert [number[name] for name in class_maps.CIFAR100_CLASSES] == coarse


def test_params_may_replace_the_map_and_others_need_one():
    cifar, digits = REGISTRY.options("cifar10"), REGISTRY.options("digits")
    own = Noise(kind="asymmetric", rate=0.2, seed=0, map={0: 2})
    without = Noise(kind="asymmetric", rate=0.2, seed=0)
    assert settle_map(without, cifar, 10) == class_maps.CIFAR10
    assert settle_map(own, cifar, 10) == {0: 2}
    assert settle_map(Noise(kind="symmetric", rate=0.2, seed=0), cifar, 10) is None
    with pytest.raises(ConfigError, match=r"data\.noise\.map: asymmetric noise needs a map"):
        settle_map(without, digits, 10)


@pytest.mark.parametrize("bad", [{0: 0}, {0: 10}, {-1: 3}])
def test_maps_to_classes_that_do_not_exist_are_refused(bad):
    with pytest.raises(ConfigError, match=r"data\.noise\.map"):
        settle_map(Noise(kind="asymmetric", rate=0.2, seed=0, map=bad), REGISTRY.options("digits"), 10)


def test_asymmetric_noise_without_a_map_is_refused_when_the_config_is_loaded(params):
    from sglr.config import ConfigError
    from sglr.config.reader import validate

    params["data"]["noise"] |= {"kind": "asymmetric", "map": None}
    with pytest.raises(ConfigError, match=r"data: noise\.map: .* source 'digits' has none"):
        validate(params)
    params["data"]["source"] = "cifar10"
    validate(params)


def test_the_order_in_which_a_map_is_written_does_not_matter():
    true = np.arange(60) % 3
    one, other = (
        draw(true, kind="asymmetric", rate=0.4, num_classes=3, class_map=written, rng=np.random.default_rng(0))
        for written in ({0: 1, 1: 2, 2: 0}, {2: 0, 1: 2, 0: 1})
    )
    assert np.array_equal(one, other)
