"""The worst of several outcomes, worked out by hand."""

import numpy as np
import torch

from sglr.evaluation.outcome import Outcome, joined


def outcome(correct, margin, value, warnings=()):
    images = np.full((len(margin), 1, 1, 1), value, dtype=np.float32)
    return Outcome(np.array(correct), tuple(warnings), images, np.array(margin, dtype=np.float32))


def test_margins_are_those_of_the_largest_other_class():
    logits, y = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 4.5], [1.0, 1.0, 1.0]]), torch.tensor([0, 2, 1])
    found = Outcome.of(logits.argmax(1) == y, (), torch.zeros(3, 1, 1, 1), logits, y, 3)
    assert found.margin.tolist() == [-1.0, 0.5, 0.0]
    assert Outcome.of(logits.argmax(1) == y, (), torch.zeros(3, 1, 1, 1), logits, y, 0).margin.shape == (0,)


def test_a_broken_example_is_worse_then_the_larger_margin():
    natural = outcome([True, True, False, True], [-1.0, -0.25, 0.5], 0.0, ["a"])
    attacked = outcome([False, True, False, False], [0.0, -0.5, 0.75], 1.0, ["b", "a"])
    found = natural.worse(attacked)
    assert found.correct.tolist() == [False, True, False, False]
    assert found.images.ravel().tolist() == [1.0, 0.0, 1.0]
    assert found.margin.tolist() == [0.0, -0.25, 0.75]
    assert found.warnings == ("a", "b")
    # What was broken stays so, whatever the next attack finds.
    again = found.worse(outcome([True] * 4, [9.0, -0.125, 9.0], 2.0))
    assert again.correct.tolist() == [False, True, False, False]
    assert again.images.ravel().tolist() == [1.0, 2.0, 1.0]


def test_an_attack_on_some_of_the_examples():
    natural = outcome([True, False, True, True], [-1.0, 1.0, -1.0], 0.0)
    found = natural.worse(outcome([True, False, False], [-2.0, 3.0], 1.0), np.array([0, 2, 3]))
    assert found.correct.tolist() == [True, False, False, False]
    assert found.images.ravel().tolist() == [0.0, 0.0, 1.0]
    assert natural.correct.tolist() == [True, False, True, True]


def test_parts_in_order_and_the_first_of_them():
    found = joined([outcome([True, False], [1.0, 2.0], 0.0, ["a"]), outcome([True], [], 1.0, ["a", "b"])])
    assert found.correct.tolist() == [True, False, True]
    assert found.margin.tolist() == [1.0, 2.0]
    assert found.warnings == ("a", "b")
    assert found.first(1).correct.tolist() == [True]
    assert len(found.first(1).images) == 1
