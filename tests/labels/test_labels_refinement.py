"""Self-guided label refinement as a piece of its own: facts that hold of it."""

import warnings

import numpy as np
import pytest
import torch

from sglr import objectives
from sglr.config import Config, ConfigError
from sglr.labels import REGISTRY, SelfGuidedRefinement, Step
from sglr.objectives import Outputs


def probabilities(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).softmax(-1)


def test_unrolled_the_given_label_fades_as_alpha_to_the_k():
    given = torch.tensor([2, 0, 1])
    labels = SelfGuidedRefinement(given, 3, alpha=0.9, adversarial_weight=0.8)
    index = torch.arange(3)
    # Predictions that never name the given class, so that what is left on it is alpha^k.
    elsewhere = torch.nn.functional.one_hot((given + 1) % 3, 3).float()
    for _ in range(44):
        targets = labels.update(index, elsewhere, elsewhere)
    torch.testing.assert_close(targets[index, given], torch.full((3,), 0.9**44), rtol=1e-5, atol=0)
    assert (targets[index, given] < 0.01).all()


def test_update_is_by_hand():
    labels = SelfGuidedRefinement(torch.tensor([0, 1]), 2, alpha=0.5, adversarial_weight=0.75, refinement_ratio=0.6)
    targets = labels.update(torch.tensor([1]), torch.tensor([[0.8, 0.2]]), torch.tensor([[0.4, 0.6]]))
    # q = .75 (.8, .2) + .25 (.4, .6) = (.7, .3); p = .5 (0, 1) + .5 q = (.35, .65); t = .6 p + .4 (0, 1) = (.21, .79)
    torch.testing.assert_close(targets, torch.tensor([[0.21, 0.79]]))
    torch.testing.assert_close(labels.state_dict()["p"], torch.tensor([[1.0, 0.0], [0.35, 0.65]]))
    torch.testing.assert_close(labels.targets(torch.tensor([0])), torch.tensor([[1.0, 0.0]]))


def test_a_ratio_given_for_one_update_mixes_outside_the_average():
    labels = SelfGuidedRefinement(torch.tensor([0]), 2, alpha=0.5)
    probs = torch.tensor([[0.2, 0.8]])
    targets = labels.update(torch.tensor([0]), probs, probs, ratio=0.0)
    assert torch.equal(targets, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(labels.state_dict()["p"], torch.tensor([[0.6, 0.4]]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adversarial_probs": torch.randn(2, 3)}, "adversarial_probs are no probabilities.* forget softmax"),
        ({"natural_probs": torch.full((2, 3), torch.nan)}, "natural_probs are no probabilities"),
        ({"natural_probs": torch.tensor([[1.0, 0, 0], [1.5, -0.5, 0]])}, "natural_probs are no probabilities"),
        ({"natural_probs": torch.tensor([[1.0, 0, 0], [1.0, 0.1, 0]])}, "natural_probs are no probabilities"),
        (
            {"natural_probs": torch.ones(2, 1)},
            r"natural_probs must be a torch tensor \(2, 3\), found torch.float32 \(2, 1\)",
        ),
        (
            {"adversarial_probs": torch.ones(3) / 3},
            r"adversarial_probs must be a torch tensor \(2, 3\), found .* \(3,\)",
        ),
        ({"natural_probs": torch.eye(3)[:2].numpy()}, r"natural_probs must be a torch tensor \(2, 3\), found ndarray"),
        ({"natural_probs": None}, "natural_probs must be .* found NoneType"),
        ({"index": torch.tensor([1, 1])}, "index must hold each example once"),
        ({"index": torch.tensor([0, 3])}, "index must hold positions from 0 to 2"),
        ({"index": torch.tensor([2, -1])}, "index must hold positions from 0 to 2"),
        ({"index": [0, 2]}, r"index must be a torch tensor, int64 \(N,\), found list"),
        ({"index": torch.tensor([[0], [2]])}, r"index must be .* found torch.int64 \(2, 1\)"),
        ({"ratio": 2.0}, r"ratio must be a number in \[0, 1\], found 2\.0"),
    ],
)
def test_what_is_no_prediction_changes_nothing(change, message):
    labels = SelfGuidedRefinement(torch.tensor([0, 1, 2]), 3)
    before = labels.targets(torch.arange(3)).clone()
    good = {"index": torch.tensor([0, 2]), "adversarial_probs": torch.ones(2, 3) / 3, "natural_probs": torch.eye(3)[:2]}
    with pytest.raises(ValueError, match=message):
        labels.update(**good | change)
    assert torch.equal(labels.targets(torch.arange(3)), before)
    half = {name: good[name].bfloat16() for name in ("adversarial_probs", "natural_probs")}
    assert labels.update(**good | half).shape == (2, 3)


def test_targets_are_asked_for_by_positions_and_shares_alone():
    labels = SelfGuidedRefinement(torch.tensor([0, 1, 2]), 3)
    with pytest.raises(ValueError, match=r"ratio must be a number in \[0, 1\], found 3"):
        labels.targets(torch.tensor([0]), ratio=3)
    with pytest.raises(ValueError, match="index must hold positions from 0 to 2"):
        labels.targets(torch.tensor([-1]))


@pytest.mark.parametrize("state", [{}, {"p": [[1.0, 0.0]]}, {"p": torch.eye(3)}])
def test_a_state_of_another_form_is_refused(state):
    labels = SelfGuidedRefinement(torch.tensor([0, 1]), 2)
    with pytest.raises(ValueError, match=r"label table .* expected a tensor \(2, 2\)"):
        labels.load_state_dict(state)
    assert torch.equal(labels.state_dict()["p"], torch.eye(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": "2"}, "num_classes must be a whole number, found '2'"),
        ({"alpha": "0.9"}, "alpha must be a number"),
    ],
)
def test_settings_of_another_type_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SelfGuidedRefinement(**{"given_labels": torch.tensor([0, 1]), "num_classes": 2} | change)


def test_a_table_made_in_inference_mode_is_updated_outside_it():
    with torch.inference_mode():
        labels = SelfGuidedRefinement(torch.tensor([0, 1]), 2, alpha=0.5)
    probs = torch.tensor([[0.0, 1.0]])
    torch.testing.assert_close(labels.update(torch.tensor([0]), probs, probs), torch.tensor([[0.5, 0.5]]))


def test_settings_that_refine_nothing_are_refused_or_said():
    with pytest.raises(ValueError, match="refinement_ratio 0 never uses the refined labels"):
        SelfGuidedRefinement(torch.tensor([0, 1]), 2, refinement_ratio=0.0)
    with pytest.warns(UserWarning, match="the plain one times 1 - r"):
        SelfGuidedRefinement(torch.tensor([0, 1]), 2, alpha=0.0, adversarial_weight=1.0)


def test_the_refined_label_is_what_is_mixed_into_the_target():
    """With r = 0.7 the target keeps 0.3 of the given label; what is believed does not, and does not depend on r."""
    given, logits = torch.tensor([0, 1]), torch.tensor([[-50.0, 50.0]])
    for ratio in (1.0, 0.7):
        options = REGISTRY.options("refinement", start_epoch=2, alpha=0.5, refinement_ratio=ratio)
        policy = options.build(given, 2, 10)
        assert torch.equal(policy.refined(1, torch.tensor([0])), torch.tensor([[1.0, 0.0]]))
        step = Step(
            epoch=2, progress=0.1, index=torch.tensor([0]), natural=lambda bn: logits,
            averaged=lambda: pytest.fail("no average is needed"), outputs=Outputs(adversarial=logits),
            images=lambda: pytest.fail("no images are needed"),
        )  # fmt: skip
        torch.testing.assert_close(policy.update(step), torch.tensor([[1 - 0.5 * ratio, 0.5 * ratio]]))
        torch.testing.assert_close(policy.refined(2, torch.tensor([0])), torch.tensor([[0.5, 0.5]]))


@pytest.mark.parametrize("ratio", [1.0, 0.7])
def test_hard_targets_are_the_largest_class_of_what_is_believed(ratio):
    """The first's given class has 0.55 after one update, 0.325 after two: then the other one is believed."""
    labels = SelfGuidedRefinement(
        torch.tensor([0, 1]), 2, alpha=0.5, adversarial_weight=1.0, refinement_ratio=ratio, hard_targets=True
    )
    index, probs = torch.tensor([0]), torch.tensor([[0.1, 0.9]])
    given, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    torch.testing.assert_close(labels.update(index, probs, probs), given)
    torch.testing.assert_close(labels.refined(index), torch.tensor([[0.55, 0.45]]))
    torch.testing.assert_close(labels.update(index, probs, probs), ratio * other + (1 - ratio) * given)
    torch.testing.assert_close(labels.refined(index), torch.tensor([[0.325, 0.675]]))
    torch.testing.assert_close(labels.targets(index), ratio * other + (1 - ratio) * given)
    torch.testing.assert_close(labels.targets(torch.tensor([1])), other)


def test_a_policy_with_hard_targets_believes_what_it_would_with_soft_ones():
    logits = torch.tensor([[-1.0, 1.0]])
    step = Step(
        epoch=2, progress=0.1, index=torch.tensor([0]), natural=lambda bn: logits,
        averaged=lambda: pytest.fail("no average is needed"), outputs=Outputs(adversarial=logits),
        images=lambda: pytest.fail("no images are needed"),
    )  # fmt: skip
    soft, hard = (
        REGISTRY.options("refinement", start_epoch=2, alpha=0.1, hard_targets=hard).build(torch.tensor([0, 1]), 2, 10)
        for hard in (False, True)
    )
    assert soft.update(step).tolist() != [[0.0, 1.0]]
    assert hard.update(step).tolist() == hard.targets(2, step.index).tolist() == [[0.0, 1.0]]
    assert torch.equal(hard.refined(2, step.index), soft.refined(2, step.index))
    assert torch.equal(hard.targets(1, step.index), torch.tensor([[1.0, 0.0]]))


def test_hard_targets_of_ones_own_prediction_have_a_gradient():
    options = REGISTRY.options("refinement", start_epoch=2, alpha=0.0, adversarial_weight=1.0, hard_targets=True)
    options.check_objective(objectives.REGISTRY.options("at"))
    with warnings.catch_warnings(action="error"):
        SelfGuidedRefinement(torch.tensor([0]), 2, alpha=0.0, adversarial_weight=1.0, hard_targets=True)


def test_probabilities_of_any_type_are_averaged_in_the_wider_one():
    """Whichever of the two is the narrower: 0.2 itself would be 0.2001953125 in bfloat16."""
    probs = torch.softmax(torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64), 1)
    for adversarial, natural in (
        (probs, probs.bfloat16()),
        (probs.bfloat16(), probs),
        (probs.half(), probs.bfloat16()),
    ):
        labels = SelfGuidedRefinement(torch.tensor([0, 1, 2, 0]), 3, alpha=0.9, adversarial_weight=0.8)
        found = labels.update(torch.arange(4), adversarial, natural)
        given = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0]]
        expected = 0.9 * given + 0.1 * (0.8 * adversarial.double() + 0.2 * natural.double())
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-7)


def test_targets_stay_on_the_simplex_and_carry_no_gradient():
    labels = SelfGuidedRefinement(torch.arange(10) % 4, 4)
    for seed in range(5):
        logits = torch.randn(10, 4, requires_grad=True)
        targets = labels.update(torch.randperm(10), logits.softmax(1), probabilities(10, 4, seed=seed))
        assert not targets.requires_grad
        assert (targets >= 0).all()
        torch.testing.assert_close(targets.sum(1), torch.ones(10))


def test_state_goes_through_a_file_and_back(tmp_path):
    from sglr import files

    labels = SelfGuidedRefinement(torch.arange(6) % 3, 3)
    labels.update(torch.arange(6), probabilities(6, 3), probabilities(6, 3, seed=1))
    files.save_state(tmp_path / "state", labels.state_dict())
    other = SelfGuidedRefinement(torch.arange(6) % 3, 3)
    other.load_state_dict(files.load_state(tmp_path / "state"))
    assert torch.equal(other.state_dict()["p"], labels.state_dict()["p"])
    with pytest.raises(ValueError, match="shape"):
        SelfGuidedRefinement(torch.arange(5) % 3, 3).load_state_dict(labels.state_dict())


@pytest.mark.parametrize(
    "change", [{"alpha": 1.0}, {"alpha": -0.1}, {"adversarial_weight": 1.1}, {"refinement_ratio": 2.0}]
)
def test_settings_that_mean_nothing_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        SelfGuidedRefinement(torch.tensor([0, 1]), 2, **change)


@pytest.mark.parametrize("labels", [torch.tensor([0.0, 1.0]), torch.tensor([[0, 1]]), np.array([0, 1])])
def test_labels_must_be_whole_numbers_in_one_row(labels):
    with pytest.raises(ValueError, match="int64"):
        SelfGuidedRefinement(labels, 2)


@pytest.mark.parametrize("wrong", [-1, 2])
def test_labels_must_be_of_the_classes(wrong):
    with pytest.raises(ValueError, match=r"given_labels must lie in \[0, 2\)"):
        SelfGuidedRefinement(torch.tensor([0, wrong]), 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 1.0}, "that is plain 'at'"),
        ({"refinement_ratio": 0.0}, "that is plain 'at'"),
        ({"alpha": 0.0, "adversarial_weight": 1.0}, "1 - refinement_ratio"),
        ({"start_epoch": 999}, "would never begin"),
        ({"start_epoch": 0}, "greater than or equal to 1"),
    ],
)
def test_degenerate_methods_are_refused_with_the_reason(params, change, message):
    from sglr.config.reader import validate

    params["methods"]["sglr"]["labels"] |= change
    with pytest.raises(ConfigError, match=message) as error:
        validate(params)
    assert "methods.sglr" in str(error.value)


def test_an_objective_without_attack_has_nothing_to_refine_with(params):
    from sglr.config.reader import validate

    params["methods"]["sglr"]["objective"] = "standard"
    with pytest.raises(ConfigError, match="refinement needs adversarial predictions"):
        validate(params)


def test_the_default_config_holds_the_published_weights(params):
    from sglr.config.reader import validate

    config: Config = validate(params)
    assert config.methods["sglr"].labels == REGISTRY.options(
        "refinement",
        start_epoch=config.methods["sglr"].labels.start_epoch,
        alpha=config.methods["sglr"].labels.alpha,
        adversarial_weight=0.8,
        refinement_ratio=1.0,
    )
