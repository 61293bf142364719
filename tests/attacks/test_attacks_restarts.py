"""The worst case of several attempts, worked out by hand."""

import torch

from sglr.attacks.restarts import worst_case

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
