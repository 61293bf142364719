"""Models that attacks refuse or warn of: a single logit, train mode."""

import copy
import warnings

import pytest
import torch
from torch import nn

import sglr
from sglr.attacks import apgd, autoattack, fgsm, pgd, square
from sglr.config.errors import ModelError
from sglr.data import Images
from sglr.evaluation.model_checks import inspect
from sglr.threat import Linf

WRAPPER = r"torch\.cat\(\[torch\.zeros_like\(z\), z\], 1\)"
ATTACKS = [fgsm, pgd, apgd, square, autoattack]


def images(n: int = 6) -> torch.Tensor:
    return torch.rand(n, 1, 5, 5, generator=torch.Generator().manual_seed(0))


def binary(squeezed: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(25, 1), *([nn.Flatten(0)] if squeezed else [])).eval()


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("squeezed", [False, True])
def test_a_single_logit_is_refused_with_the_wrapper_that_mends_it(attack, label, squeezed):
    """With labels of 0 alone, too, where nothing would be attacked and all be robust."""
    with pytest.raises(ValueError, match=f"a single logit per image.*{WRAPPER}"):
        attack(binary(squeezed), images(), torch.full((6,), label), threat=Linf(0.1))


class Wrapped(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.model(x)
        return torch.cat([torch.zeros_like(z), z], 1)


def test_what_the_error_says_to_do_works():
    model, x = binary(), images(40)
    y = (model(x)[:, 0] > 0).long()
    torch.testing.assert_close(Wrapped(model)(x).softmax(1)[:, 1], torch.sigmoid(model(x)[:, 0]))
    asked = {"threat": Linf(0.03), "attacks": ["apgd"], "changes": {"evaluate.sanity": None, "evaluate.sweep": None}}
    for squeezed in (False, True):
        with pytest.raises(ModelError, match=f"a single logit per image.*{WRAPPER}"):
            sglr.robustness(binary(squeezed), x, y, **asked)
    found = sglr.robustness(Wrapped(model), x, y, **asked)
    # A linear score falls by eps times its weights' absolute sum where the box allows it.
    moved = (x.flatten(1) - 0.03 * (2 * y[:, None] - 1) * model[1].weight.sign()).clamp(0, 1)
    robust = ((moved @ model[1].weight.T + model[1].bias)[:, 0] > 0).long() == y
    assert found.correct["last"]["apgd"].tolist() == robust.tolist()
    assert 0 < int(robust.sum()) < 40


def test_a_model_of_ones_own_in_the_suite_is_refused_alike():
    with pytest.raises(ModelError, match=rf"gives \[1\] numbers per image, but the data has 2 classes: .*{WRAPPER}"):
        inspect(binary(), Images(_split(images()), 6), 2, 6, "the model")


def _split(x: torch.Tensor):
    from sglr.data import Split

    y = torch.zeros(len(x), dtype=torch.int64)
    return Split(x, y, y)


def test_a_loss_of_ones_own_may_read_a_single_logit():
    def loss(logits, y):
        return nn.functional.binary_cross_entropy_with_logits(logits[:, 0], y.float(), reduction="none")

    model, x = binary(), images()
    y = (model(x)[:, 0] > 0).long()
    before = loss(model(x), y)
    assert (loss(model(pgd(model, x, y, threat=Linf(0.1), loss=loss)), y) > before).all()


def normed() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.Flatten(), nn.Dropout(0.1), nn.Linear(32, 10))


def called(attack, model: nn.Module) -> list[str]:
    """The warnings of an attack, each of which names the calling line's file."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        quick = {"queries": 5} if attack is square else {"member": "apgd-ce"} if attack is autoattack else {}
        attack(model, images(), torch.arange(6), threat=Linf(0.1), **quick)
    found = [warning for warning in said if "train mode" in str(warning.message)]
    assert {warning.filename for warning in found} <= {__file__}
    return [str(warning.message) for warning in found]


@pytest.mark.parametrize("attack", [square, autoattack])
def test_an_evaluation_attack_warns_of_train_mode(attack):
    model = normed().train()
    before = copy.deepcopy(model.state_dict())
    (said,) = called(attack, model)
    assert "changes its normalisation statistics and attacks a network that dropout changes" in said
    assert "call model.eval() before the attack" in said
    assert not torch.equal(model[1].running_mean, before["1.running_mean"]), "nothing is changed behind one's back"
    model[1].eval()
    assert "statistics" not in called(attack, model)[0]


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_train_mode_does_not_change_is_not_warned_of(attack):
    """Nor are the attacks of training, which use the mode the model is in."""
    plain = nn.Sequential(nn.Flatten(), nn.Linear(25, 10)).train()
    still = nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten(), nn.Dropout(0),
                          nn.Linear(32, 10)).train()  # fmt: skip
    for model in (plain, still, normed().eval()):
        assert called(attack, model) == []
    if attack in (fgsm, pgd, apgd):
        assert called(attack, normed().train()) == []


def test_the_warning_is_shown_once_for_a_line_in_a_loop():
    model, x, y = normed().train(), images(), torch.arange(6)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for _ in range(3):
            square(model, x, y, threat=Linf(0.1), queries=2)
    assert len([warning for warning in said if "train mode" in str(warning.message)]) == 1


def test_robustness_does_not_warn_of_a_model_in_train_mode():
    asked = {"threat": Linf(0.1), "attacks": {"square": {"name": "square", "queries": 5}}}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        sglr.robustness(
            normed().train(), images(), torch.arange(6), **asked,
            changes={"evaluate.sanity": None, "evaluate.sweep": None},
        )  # fmt: skip
