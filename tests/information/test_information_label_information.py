"""The noise channel, the bound on the label information in the weights, and the decomposition it comes from."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import mutual_info_score
from torch import nn

from sglr.data import noise
from sglr.information.entropy import contingency, entropy, mutual_information
from sglr.information.label_information import density
from sglr.information.label_noise import channel, channel_entropy, channel_information, drawn_entropy

LABELS = np.repeat(np.arange(10), 20)


def h(e: float) -> float:
    return -e * math.log(e) - (1 - e) * math.log(1 - e)


@pytest.mark.parametrize("e", [0.1, 0.4, 0.7])
def test_symmetric_channel_in_closed_form(known, e):
    rows = channel("symmetric-other", e, 10)
    known(lambda: channel_entropy(rows, LABELS), h(e) + e * math.log(9), 1e-12)


def test_redrawing_over_all_classes_is_less_noise():
    assert channel("symmetric", 0.3, 10) == pytest.approx(channel("symmetric-other", 0.27, 10))


def test_asymmetric_noise_only_counts_where_the_map_leads(known):
    rows = channel("asymmetric", 0.4, 10, {0: 1, 5: 6, 7: 2})
    known(lambda: channel_entropy(rows, LABELS), 0.3 * h(0.4), 1e-12)


def test_without_noise_there_is_nothing_to_memorise():
    assert channel_entropy(channel("none", 0, 10), LABELS) == 0


@pytest.mark.parametrize("kind", ["symmetric", "symmetric-other", "asymmetric"])
def test_the_channel_is_the_one_that_labels_are_drawn_from(kind):
    true, pairs = np.repeat(np.arange(4), 5000), {0: 1, 2: 3}
    given = noise.draw(true, kind=kind, rate=0.3, num_classes=4, class_map=pairs, rng=np.random.default_rng(0))
    drawn = contingency(true, given, 4)
    assert drawn / 5000 == pytest.approx(channel(kind, 0.3, 4, pairs), abs=0.02)
    # H(given | true) = H(given) - I. Plug-in bias is (C - 1)^2 / 2N = 0.0002; two hundredths are ten deviations.
    left = entropy([drawn.sum(0) / drawn.sum()])[0] - mutual_information(drawn)
    assert left == pytest.approx(channel_entropy(channel(kind, 0.3, 4, pairs), true), abs=0.02)


@pytest.mark.parametrize(("kind", "rate"), [("symmetric", 1.5), ("swapped", 0.1)])
def test_unknown_channels_are_refused(kind, rate):
    with pytest.raises(ValueError, match=r"rate|channel"):
        channel(kind, rate, 10)


@pytest.mark.parametrize("stored", [0, 50, 200])
def test_weights_that_store_some_of_the_labels(known, stored):
    """Weights that hold a part of the labels and predict the rest by the channel: I is that part of n H, and tight."""
    rows, n = channel("symmetric-other", 0.3, 10), len(LABELS)
    entropy = channel_entropy(rows, LABELS)
    rng, found = np.random.default_rng(0), []
    for _ in range(400):
        given = np.array([rng.choice(10, p=rows[label]) for label in LABELS[:20]])
        nll = -np.log(rows[LABELS[:20], given])
        nll[: stored * 20 // n] = 0
        found.append(density(nll, entropy).mean())
    expected = stored / n * entropy
    if expected:
        known(lambda: float(np.mean(found)), expected, 0.03, nats=False)
    else:
        assert np.mean(found) == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize(("nll", "entropy"), [([], 1.0), ([[1.0]], 1.0), ([1.0, float("nan")], 1.0), ([1.0], -0.1)])
def test_what_is_no_cross_entropy_is_refused(nll, entropy):
    with pytest.raises(ValueError, match="n >= 1 cross-entropies and an entropy >= 0"):
        density(nll, entropy)


def test_a_bound_below_zero_is_reported_as_it_is():
    assert density([5.0], 1.0).mean() == -4


def test_the_bound_separates_a_network_that_memorises_from_one_that_cannot():
    """Random labels: a wide network learns them by heart, a constant prediction per class cannot; H = log 2."""
    torch.manual_seed(0)
    x = torch.randn(60, 20)
    y = torch.randint(0, 2, (60,))
    bounds = {}
    for name, model in (
        ("memorises", nn.Sequential(nn.Linear(20, 200), nn.ReLU(), nn.Linear(200, 2))),
        ("cannot", nn.Sequential(nn.Linear(20, 1), nn.Tanh(), nn.Linear(1, 2))),
    ):
        decay = 0.0 if name == "memorises" else 0.5
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=decay)
        for _ in range(300):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        with torch.no_grad():
            nll = nn.functional.cross_entropy(model(x).double(), y, reduction="none").numpy()
        bounds[name] = density(nll, math.log(2)).mean()
    assert bounds["memorises"] > 0.6  # of 0.693 nats
    assert bounds["cannot"] < 0.35


@pytest.mark.parametrize(("kind", "options"), [("symmetric", range(3)), ("symmetric-other", (1, 2))])
def test_entropy_of_the_draw_by_counting_every_outcome(kind, options):
    """Five labels of three classes, two redrawn: every choice of places and of new labels, one by one."""
    outcomes = Counter()
    for places in itertools.combinations(range(5), 2):
        for new in itertools.product(options, repeat=2):
            given = [0] * 5
            for place, label in zip(places, new, strict=True):
                given[place] = label
            outcomes[tuple(given)] += 1
    p = np.array(list(outcomes.values())) / outcomes.total()
    assert drawn_entropy(kind, 0.4, 3, np.zeros(5, int)) == pytest.approx(-(p * np.log(p)).sum() / 5, abs=1e-12)


def test_entropy_of_an_asymmetric_draw_by_hand(known):
    true = np.array([0] * 10 + [1] * 6 + [2] * 4)  # 4 of 10 and 2 of 6 change
    expected = (math.log(math.comb(10, 4)) + math.log(math.comb(6, 2))) / 20
    known(lambda: drawn_entropy("asymmetric", 0.4, 3, true, {"0": 1, "1": 2}), expected, 1e-12)
    assert channel("asymmetric", 0.4, 3, {"0": 1}) == pytest.approx(channel("asymmetric", 0.4, 3, {0: 1}))


@pytest.mark.parametrize(("kind", "most"), [("symmetric-other", 0.0002), ("symmetric", 0.0002), ("asymmetric", 0.0006)])
def test_a_fixed_count_takes_little_off_the_channel(kind, most):
    true, pairs = np.arange(50_000) % 10, {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}
    less = channel_entropy(channel(kind, 0.4, 10, pairs), true) - drawn_entropy(kind, 0.4, 10, true, pairs)
    assert 0 < less < most


@pytest.mark.parametrize("kind", ["none", "symmetric", "symmetric-other", "asymmetric"])
def test_what_noise_leaves_of_the_labels_is_the_divergence_from_independence(kind):
    """By SciPy; scikit-learn's mutual information of a large sample comes near it."""
    true = np.repeat([0, 1, 2], [5000, 3000, 2000])
    rows = channel(kind, 0.0 if kind == "none" else 0.4, 3, {0: 1, 2: 0})
    joint = np.array([0.5, 0.3, 0.2])[:, None] * rows
    found = channel_information(rows, true)
    assert found == pytest.approx(stats.entropy(joint.ravel(), np.outer(joint.sum(1), joint.sum(0)).ravel()), abs=1e-12)
    random = np.random.default_rng(0)
    given = (random.random((len(true), 1)) > rows[true].cumsum(1)).sum(1)
    assert mutual_info_score(true, given) == pytest.approx(found, abs=0.03)


def test_uniform_noise_over_ten_classes_leaves_half_of_the_labels(known):
    """log 10 - h(0.27) - 0.27 log 9 at a rate of 0.3, of which a tenth stays right."""
    known(
        lambda: channel_information(channel("symmetric", 0.3, 10), LABELS),
        math.log(10) - h(0.27) - 0.27 * math.log(9),
        1e-12,
    )
