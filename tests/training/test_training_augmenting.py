"""Augmentations beyond crop and reflection: their order, their random numbers, and those that are wrong."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import assert_resumes, assert_same, net, plan, splits
from torch import Tensor

import sglr
from sglr import augmentations
from sglr.augmentations import AugmentationOptions
from sglr.config import ConfigError
from sglr.config.reader import validate
from sglr.data import augment
from sglr.random import torch_stream
from sglr.training import Plan, TrainingError, fit
from sglr.training.augmenting import Augmenting, require_augmentations

AT = {"objective": "at", "labels": "hard", "weights": "none"}
CUTOUT = {"name": "cutout", "size": 2}


@pytest.fixture
def added() -> Iterator[Callable[..., str]]:
    """Makes an augmentation of a function (images, generator) under a name; they are forgotten afterwards."""
    known = dict(augmentations.REGISTRY._types)

    def add(name: str, function: Any, misfit: str | None = None) -> str:
        class Own(AugmentationOptions):
            def build(self, shape):
                return function

            def misfit(self, shape):
                return misfit

        augmentations.REGISTRY.register(name)(Own)
        return name

    yield add
    augmentations.REGISTRY._types = known


def augmented(params: dict, *more: Any, padding: int = 1, flip: bool = True, **train: Any) -> Plan:
    params["data"]["augment"] = {"crop_padding": padding, "flip": flip, "more": list(more)}
    return plan(params, AT, **train)


def noise(x: Tensor, generator: torch.Generator) -> Tensor:
    return (x + 0.1 * torch.randn(x.shape, generator=generator, device=x.device)).clamp(0, 1)


def test_without_more_it_is_crop_and_reflection(params):
    params["data"]["augment"] = {"crop_padding": 1, "flip": True}
    x = splits()[0].x
    chosen = plan(params, AT)
    assert chosen.augment.more == ()
    expected = augment(x, crop_padding=1, flip=True, generator=torch_stream(1, "train/augment", 2, 3))
    assert torch.equal(Augmenting(chosen)(x, 2, 3), expected)
    assert Augmenting(augmented(params, padding=0, flip=False))(x, 2, 3) is x


def test_what_draws_nothing_leaves_all_other_numbers_as_they_were(params, added):
    added("same", lambda x, generator: x.clone())
    expected = fit(augmented(params), net(), *splits())
    assert_same(fit(augmented(params, "same"), net(), *splits()), expected)
    assert_same(fit(augmented(params, "same", "same"), net(), *splits()), expected)
    found = fit(augmented(params, CUTOUT), net(), *splits())
    assert found.history != expected.history


def test_several_are_applied_in_order_after_crop_and_reflection(params, added):
    added("half", lambda x, generator: x / 2)
    added("most", lambda x, generator: x.clamp_min(0.4))
    x = splits()[0].x
    first = Augmenting(augmented(params))(x, 1, 0)
    assert torch.equal(Augmenting(augmented(params, "half", "most"))(x, 1, 0), (first / 2).clamp_min(0.4))
    assert torch.equal(Augmenting(augmented(params, "most", "half"))(x, 1, 0), first.clamp_min(0.4) / 2)


def test_each_has_a_stream_of_its_own_for_every_step(params, added):
    drawn: list[Tensor] = []

    def watched(x, generator):
        drawn.append(torch.rand(3, generator=generator))
        return x.clone()

    added("watched", watched)
    chosen = augmented(params, "watched", "watched")
    fit(chosen, net(), *splits())
    assert len(drawn) == 2 + 2 * 9  # two that are tried
    steps = drawn[2:]
    assert not any(torch.equal(one, other) for place, one in enumerate(steps) for other in steps[:place])
    expected = [
        torch.rand(3, generator=torch_stream(chosen.seed, f"train/augment-{place}", epoch, step))
        for epoch in (1, 2, 3)
        for step in range(3)
        for place in (0, 1)
    ]
    assert torch.equal(torch.stack(steps), torch.stack(expected))


def test_an_interrupted_training_draws_the_same_again(params, added, tmp_path):
    added("noise", noise)
    params["data"]["augment"]["more"] = ["noise", CUTOUT]
    assert_resumes(params, AT, tmp_path)


def test_what_is_drawn_when_it_is_built_is_of_the_run(params):
    class Filter(AugmentationOptions):
        def build(self, shape):
            weights = torch.rand(shape)
            return lambda x, generator: x * weights

    known = dict(augmentations.REGISTRY._types)
    try:
        augmentations.REGISTRY.register("filter")(Filter)
        chosen, x = augmented(params, "filter", padding=0, flip=False), splits()[0].x
        torch.manual_seed(3)
        found = Augmenting(chosen)(x, 1, 0)
        torch.manual_seed(4)
        before = torch.get_rng_state()
        assert torch.equal(Augmenting(chosen)(x, 1, 0), found)
        assert torch.equal(torch.get_rng_state(), before)
    finally:
        augmentations.REGISTRY._types = known


def blurred(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.nn.functional.conv2d(x, torch.full((1, 1, 3, 3), 1 / 9), padding=1).clamp(0, 1)


def test_in_bfloat16_it_computes_in_float32(params, added):
    seen: list[torch.dtype] = []

    def watched(x, generator):
        seen.append(blurred(x, generator).dtype)
        return blurred(x, generator)

    added("blurred", watched)
    fit(augmented(params, "blurred", precision="bf16"), net(), *splits())
    assert set(seen) == {torch.float32}


def test_no_gradient_is_taken_of_it(params, added):
    factor = torch.tensor(0.5, requires_grad=True)
    added("scaled", lambda x, generator: x * factor)
    assert not Augmenting(augmented(params, "scaled"))(splits()[0].x, 1, 0).requires_grad


def changed(x: Tensor, generator: torch.Generator) -> Tensor:
    return x.mul_(0.5)


def of_numpy(x: Tensor, generator: torch.Generator) -> Tensor:
    return x * np.random.rand()  # noqa: NPY002 (as people write them)


def of_python(x: Tensor, generator: torch.Generator) -> Tensor:
    return x * random.random()


WRONG = {
    "shape": (
        lambda x, generator: x[:, :, 1:],
        r"gives images of shape \(2, 1, 3, 4\) for images of shape \(2, 1, 4, ",
    ),
    "fewer": (lambda x, generator: x[:1], r"gives images of shape \(1, 1, 4, 4\)"),
    "type": (lambda x, generator: x.double(), "gives images of type torch.float64 for images of type torch.float32"),
    "device": (lambda x, generator: x.to("meta"), "gives images of device meta for images of device cpu"),
    "nothing": (lambda x, generator: None, "gives NoneType, no tensor"),
    "above": (lambda x, generator: x + 0.5, r"gives values from 0\.\d+ to 1\.\d+, outside \[0, 1\]"),
    "below": (lambda x, generator: x - 2, r"gives values from -\d\.\d+ to -\d\.\d+, outside \[0, 1\]"),
    "nan": (lambda x, generator: x / 0 - x / 0, "gives values that are NaN or infinite"),
    "in_place": (changed, "changes the images that it is given"),
    "failing": (lambda x, generator: x.no_such_thing, "fails on two training images: AttributeError: 'Tensor'"),
    "of_numpy": (of_numpy, "draws from the global random numbers of NumPy or Python"),
    "of_python": (of_python, "draws from the global random numbers of NumPy or Python"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_augmentation_is_refused_by_its_name(params, added, name):
    function, said = WRONG[name]
    added(name, function)
    train, validation = splits()
    before = train.x.clone()
    model = net()
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(TrainingError, match=rf"^data\.augment\.more\.1: {name} {said}"):
        fit(augmented(params, CUTOUT, name), model, train, validation)
    assert torch.equal(train.x, before)
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())


def test_a_misfit_is_refused_with_its_reason(params, added):
    with pytest.raises(
        TrainingError, match=r"^data\.augment\.more\.0: cutout cannot augment images of 1x4x4: size 4 can leave nothing"
    ):
        fit(augmented(params, {"name": "cutout", "size": 4}), net(), *splits())
    added("coloured", noise, misfit="they have one channel")
    with pytest.raises(
        TrainingError, match=r"more\.1: coloured cannot augment images of 1x4x4: they have one channel$"
    ):
        fit(augmented(params, CUTOUT, "coloured"), net(), *splits())


def test_trying_them_draws_nothing_from_others(params, added, tmp_path):
    """What draws from torch's global generator, which each step seeds, may; a wrong one leaves none moved either."""
    added("of_torch", lambda x, generator: x * torch.rand(()))
    added("of_numpy", of_numpy)
    added("of_python", of_python)

    def states():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002

    train = splits()[0]
    before = states()
    require_augmentations(augmented(params, "of_torch"), train)
    for wrong in ("of_numpy", "of_python"):
        with pytest.raises(TrainingError):
            require_augmentations(augmented(params, wrong), train)
    assert states() == before
    augmented(params, "of_torch")
    assert_resumes(params, AT, tmp_path)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([{"name": "cutout", "sise": 3}], r"data\.augment\.more\.0\.sise: unknown key\. Did you mean 'size'\?"),
        (["cutout"], r"data\.augment\.more\.0\.size: missing"),
        ([CUTOUT, "cutuot"], r"data\.augment\.more\.1: unknown augmentation 'cutuot'\. Did you mean 'cutout'"),
        ([{"name": "cutout", "size": 0}], r"data\.augment\.more\.0\.size: .*greater than or equal to 1 \(found 0\)"),
        ([3], r"data\.augment\.more\.0: expected the name of an augmentation, or a mapping"),
        ("cutout", r"data\.augment\.more: .*valid list"),
    ],
)
def test_params_that_cannot_be_used_are_named(params, more, said):
    params["data"]["augment"]["more"] = more
    with pytest.raises(ConfigError, match=said):
        validate(params)


def test_one_of_ones_own_trains_on_arrays(added):
    seen: list[tuple[int, ...]] = []

    def watched(x, generator):
        seen.append(tuple(x.shape))
        return noise(x, generator)

    added("watched", watched)
    x, y = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 4
    changes = {"train.epochs": 2, "train.schedule": {"name": "constant"}, "train.batch_size": 12, "warmup.epochs": 1}
    call = {"method": AT, "threat": sglr.threat.Linf(8 / 255)}
    plain = sglr.train(x, y, **call, changes=changes)
    found = sglr.train(
        x, y, **call, changes=changes | {"data.augment.more": ["watched", {"name": "cutout", "size": 4}]}
    )
    # Both trainings try it first.
    assert seen == [(2, 1, 8, 8)] + 2 * [(12, 1, 8, 8)] + [(2, 1, 8, 8)] + 4 * [(12, 1, 8, 8)]
    assert found.history != plain.history
