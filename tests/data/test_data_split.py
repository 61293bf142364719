"""Stratified cuts."""

import numpy as np
import pytest

from sglr.config import ConfigError
from sglr.data.split import cut, in_fair_order, split

Y = np.repeat(np.arange(4), [400, 300, 200, 100])


def test_parts_are_disjoint_sorted_and_have_the_shares_of_the_whole():
    train, validation = split(Y, train_size=500, validation_size=100, seed=0)
    assert len(np.intersect1d(train, validation)) == 0
    assert (np.diff(train) > 0).all()
    assert (np.diff(validation) > 0).all()
    assert np.bincount(Y[train]).tolist() == [200, 150, 100, 50]
    assert np.bincount(Y[validation]).tolist() == [40, 30, 20, 10]


# Exact shares of 11: 4.4 3.3 2.2 1.1; of 13: 5.2 3.9 2.6 1.3; of 999: 399.6 299.7 199.8 99.9.
@pytest.mark.parametrize(("size", "counts"), [(11, [5, 3, 2, 1]), (13, [5, 4, 3, 1]), (999, [399, 300, 200, 100])])
def test_leftover_places_go_to_the_largest_remainders(size, counts):
    assert np.bincount(Y[cut(Y, size, np.random.default_rng(0))]).tolist() == counts


def test_everything_left_is_used_when_no_training_size_is_given():
    train, validation = split(Y, train_size=None, validation_size=100, seed=3)
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(1000))


def test_validation_depends_on_the_seed_and_not_on_the_training_size():
    _, validation = split(Y, train_size=50, validation_size=100, seed=0)
    assert np.array_equal(split(Y, train_size=None, validation_size=100, seed=0)[1], validation)
    assert not np.array_equal(split(Y, train_size=50, validation_size=100, seed=1)[1], validation)


@pytest.mark.parametrize(
    ("train_size", "validation_size", "key", "found"),
    [(300, 100, "train_size", "300 of 2003"), (None, 2002, "validation_size", "1 of 2003")],
)
def test_a_class_that_would_not_be_trained_on_is_an_error(train_size, validation_size, key, found):
    y = np.repeat(np.arange(3), [1000, 1000, 3])
    with pytest.raises(ConfigError, match=rf"data\.{key}: with {found} examples to train on, none is of class"):
        split(y, train_size=train_size, validation_size=validation_size, seed=0)
    train, _ = split(y, train_size=800, validation_size=100, seed=0)
    assert len(np.unique(y[train])) == 3


@pytest.mark.parametrize("y", [[0, 0, 1, 1, 2, 2, 2], [2, 1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 2, 2]])
def test_what_comes_class_by_class_is_shuffled_and_nothing_else(y):
    found = in_fair_order(np.arange(7), np.array(y), seed=3, part="test")
    assert sorted(found) == list(range(7))
    assert len(set(np.sign(np.diff(np.array(y)[found])) + 1)) > 1
    assert np.array_equal(found, in_fair_order(np.arange(7), np.array(y), seed=3, part="test"))
    assert not np.array_equal(found, in_fair_order(np.arange(7), np.array(y), seed=4, part="test"))
    mixed = np.array([0, 1, 0, 2, 2, 1, 1])
    assert np.array_equal(in_fair_order(np.arange(7), mixed, seed=3, part="test"), np.arange(7))
    # Of these positions the labels are sorted, though not those of all.
    assert sorted(in_fair_order(np.array([0, 2, 5]), mixed, seed=3, part="test")) == [0, 2, 5]


def test_no_validation_is_allowed():
    train, validation = split(Y, train_size=100, validation_size=0, seed=0)
    assert (len(train), len(validation)) == (100, 0)


@pytest.mark.parametrize(
    ("train_size", "validation_size", "message"),
    [
        (901, 100, r"data\.train_size: 901 .* 900 are available"),
        (3, 100, r"data\.train_size: 3 is too small .* 4 classes"),
        (100, 3, r"data\.validation_size: 3 is too small"),
        (None, 1000, r"data\.validation_size: 1000 leaves nothing"),
        (10, 2000, r"data\.validation_size: 2000 leaves nothing"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(train_size, validation_size, message):
    with pytest.raises(ConfigError, match=message):
        split(Y, train_size=train_size, validation_size=validation_size, seed=0)


def test_of_equal_remainders_the_lower_classes_come_first():
    """With 100 classes, too: of a few NumPy keeps the order whatever it is asked for."""
    y = np.repeat(np.arange(100), [10, 11] * 50)
    found = np.bincount(y[cut(y, 157, np.random.default_rng(0))])
    # Exact shares: 1.495 of the even classes, 1.645 of the odd ones, which get a place each; 7 are left.
    assert found.tolist() == [2] * 14 + [1, 2] * 43


def test_one_of_each_class_is_enough_to_validate_on():
    y = np.arange(40) % 4
    assert sorted(y[split(y, train_size=4, validation_size=4, seed=0)[1]]) == [0, 1, 2, 3]
