"""The worst case of several attempts, worked out by hand; models and images of unusual forms."""

import pytest
import torch

from sglr import models
from sglr.attacks import apgd, autoattack, pgd, square
from sglr.attacks.restarts import worst_case
from sglr.threat import L2, Linf

NAN, INF = float("nan"), float("inf")


def run(scores: list[list[float]], restarts: int | None = None) -> tuple[list[float], list[list[int]]]:
    """What is kept of four examples 0..3: the number of the attempt (-1: none), and who was attempted each time.

    scores: what each attempt finds for each of the four.
    """
    attempted: list[list[int]] = []

    def attempt(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        number = len(attempted)
        attempted.append(y.tolist())
        return torch.full_like(x, number), torch.tensor(scores[number])[y]

    x = torch.full((4, 1, 2, 2), -1.0)
    found = worst_case(attempt, x, torch.arange(4), len(scores) if restarts is None else restarts)
    assert (x == -1).all()
    return found[:, 0, 0, 0].tolist(), attempted


def test_the_first_misclassified_point_stays_else_the_highest_score():
    kept, attempted = run([[1.0, INF, 3.0, -2.0], [2.0, 9.0, 2.0, INF], [1.5, 9.0, 3.0, 9.0]])
    assert kept == [1, 0, 0, 1]
    assert attempted == [[0, 1, 2, 3], [0, 2, 3], [0, 2]]


def test_it_ends_when_all_are_misclassified():
    kept, attempted = run([[INF, INF, 1.0, INF], [0.0, 0.0, INF, 0.0], [0.0] * 4])
    assert kept == [0, 0, 1, 0]
    assert attempted == [[0, 1, 2, 3], [2]]


def test_a_score_that_is_nan_counts_for_nothing():
    kept, attempted = run([[NAN, NAN, 1.0, INF], [NAN, 0.0, NAN, 0.0]])
    assert kept == [-1, 1, 0, 0]
    assert attempted[1] == [0, 1, 2]


ATTACKS = {
    "pgd": lambda model, x, y, threat: pgd(model, x, y, threat=threat, step_size=0.02, steps=2, restarts=2,
                                           generator=torch.Generator().manual_seed(0)),
    "apgd": lambda model, x, y, threat: apgd(model, x, y, threat=threat, steps=3, restarts=2,
                                             generator=torch.Generator().manual_seed(0)),
    "square": lambda model, x, y, threat: square(model, x, y, threat=threat, seed=0, queries=10),
    "autoattack": lambda model, x, y, threat: autoattack(model, x, y, threat=threat, seed=0, member="apgd-ce"),
}  # fmt: skip


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)], ids=["linf", "l2"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_logits_of_another_type_and_axes_exchanged_change_nothing(attack, threat):
    model = models.build("small_cnn", num_classes=10, shape=(3, 8, 8), generator_seed=0).eval()
    x = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    expected = ATTACKS[attack](model, x, y, threat)
    assert not torch.equal(expected, x)
    exchanged = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    found = ATTACKS[attack](lambda images: model(images).double(), exchanged, y, threat)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
