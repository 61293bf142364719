import numpy as np
import pytest

from sglr.information.memorization import at_epoch, curves, recovery

HISTORY = [
    {"phase": "warmup", "epoch": 0, "noisy/natural_given": 0.1, "noisy/pgd_given": None, "clean/natural": 0.5},
    {"phase": "train", "epoch": 1, "noisy/natural_given": 0.2, "noisy/pgd_given": 0.15, "clean/natural": 0.7},
    {"phase": "train", "epoch": 2, "lr": 0.01, "noisy/natural_given": 0.9, "noisy/pgd_given": None, "clean/natural": 1},
]


def test_curves_keep_the_measured_memorisation_columns():
    assert curves(HISTORY)[1] == {
        "phase": "train", "epoch": 1, "noisy/natural_given": 0.2, "noisy/pgd_given": 0.15, "clean/natural": 0.7,
    }  # fmt: skip
    assert [row["noisy/pgd_given"] for row in curves(HISTORY)] == [None, 0.15, None]


def test_numbers_of_one_epoch_leave_out_what_was_not_measured():
    assert at_epoch(HISTORY, 2) == {"noisy/natural_given": 0.9, "clean/natural": 1.0}
    with pytest.raises(ValueError, match="no epoch 3"):
        at_epoch(HISTORY, 3)


def test_recovery_and_corruption_by_hand():
    targets = [[0.6, 0.4], [0.3, 0.7], [0.2, 0.8], [0.9, 0.1], [0.4, 0.6]]
    given, true = [1, 0, 1, 0, 0], [0, 1, 0, 0, 0]
    recovered, corrupted = recovery(targets, given, true)  # noisy: 0, 1, 2; clean: 3, 4
    assert recovered.tolist() == [True, True, False]
    assert corrupted.tolist() == [False, True]


def test_hard_labels_recover_and_corrupt_nothing():
    given, true = np.array([0, 1, 2, 0]), np.array([0, 1, 1, 2])
    recovered, corrupted = recovery(np.eye(3)[given], given, true)
    assert recovered.tolist() == [False, False]
    assert corrupted.tolist() == [False, False]


def test_without_noise_there_is_nothing_to_recover():
    recovered, corrupted = recovery(np.eye(2), [0, 1], [0, 1])
    assert recovered.size == 0
    assert corrupted.size == 2


def test_a_cost_of_nothing_is_a_cost():
    rows = curves(
        [{"phase": "train", "epoch": epoch, "train/natural_nll": cost} for epoch, cost in ((1, 0.0), (2, None))], 0.5
    )
    assert [row["label_information"] for row in rows] == [0.5, None]
