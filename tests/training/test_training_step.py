"""A step of refinement against docs/methods.md by hand in float64, and what it leaves in batch norm."""

import pytest
import torch
from by_hand import N, Pair, ce


@pytest.mark.parametrize("ratio", [1.0, 0.7])
@pytest.mark.parametrize("natural_bn", ["train", "eval"])
@pytest.mark.parametrize("attack_bn", ["train", "eval"])
def test_a_step_is_the_formula(params, ratio, natural_bn, attack_bn):
    labels = {"name": "refinement", "start_epoch": 2, "alpha": 0.9, "adversarial_weight": 0.8}
    labels |= {"refinement_ratio": ratio, "natural_bn": natural_bn}
    if ratio < 1:
        params["train"]["attack"]["step_size_255"] = None  # a quarter of 25.5: the same
    pair = Pair(params, {"objective": "at", "labels": labels, "weights": "none"}, attack_bn)
    hand, p = pair.hand, pair.onehot
    for epoch in (1, 2, 3):  # before refinement, its first step, and one with a refined table
        x_adv = hand.attack(pair.x, pair.start(epoch), attack_bn, lambda logits: ce(pair.onehot, logits).sum())
        z_adv = hand.logits(x_adv, "train")
        targets = pair.onehot
        if epoch >= 2:
            with torch.no_grad():
                z = hand.logits(pair.x, natural_bn)
            q = 0.8 * torch.softmax(z_adv, 1).detach() + (1 - 0.8) * torch.softmax(z, 1)
            p = 0.9 * p + (1 - 0.9) * q
            targets = ratio * p + (1 - ratio) * pair.onehot
        loss = ce(targets, z_adv).mean()
        hand.descend(hand.gradients(loss))
        found, predicted = pair.take(epoch)
        # The table is stored in single precision: 6e-8 relative at most, from the third step on.
        pair.assert_equal(found, loss, 1e-10 if epoch < 3 else 1e-6)
        if epoch >= 2:
            torch.testing.assert_close(pair.learner.labels.state_dict()["p"].double(), p, atol=2e-7, rtol=0)
        assert predicted.shape == (N,)
    # What a wrong order would do: refined labels used before their update differ visibly.
    assert (pair.learner.labels.state_dict()["p"] - pair.onehot).abs().max() > 1e-3


def test_natural_images_enter_the_statistics_only_where_asked(params):
    """``natural_bn: train`` is the published behaviour: one more update of the running statistics per step."""
    counts = {}
    for mode in ("train", "eval"):
        labels = {"name": "refinement", "start_epoch": 1, "natural_bn": mode}
        pair = Pair(params, {"objective": "at", "labels": labels, "weights": "none"})
        pair.take(1)
        counts[mode] = int(pair.model.bn.num_batches_tracked)
    assert counts == {"train": 2, "eval": 1}
