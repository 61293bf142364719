"""Every value that the types accept either trains two steps or is refused when params are loaded.

The values are drawn from the types themselves, so that a new option or component is drawn too.
"""

import collections
import copy
import math
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
import torch
from annotated_types import Ge, Gt, Le, Lt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from sglr import augmentations, labels, models, objectives, schedules, weights
from sglr.config import ConfigError, parse
from sglr.config.reader import validate
from sglr.config.sections import Augment, Method, Optimizer, Selection, ThreatSettings, TrainAttack
from sglr.data import Split
from sglr.models.normalize import Normalization
from sglr.training import Plan, fit
from sglr.training.errors import TrainingError

PARAMS = parse((Path(__file__).parents[2] / "params.yaml").read_text())
EXAMPLES, CLASSES = 6, 3
# What float32 cannot hold is refused wherever it stands (test_config_fits), and would leave little else to be seen.
LARGEST = 3.4e38
EXTREMES = [1e-320, 1e-45, 1e-38, 1e-12, 1e-3, 1.0, 255.0, 1e5, 1e12, LARGEST]
Drawn = st.SearchStrategy[Any]


def numbers(kind: type, limits: list[Any], most: int) -> Drawn:
    """Whole numbers up to ``most``, or any floating point ones, within a type's limits."""
    low = max([limit.ge for limit in limits if isinstance(limit, Ge)], default=None)
    above = max([limit.gt for limit in limits if isinstance(limit, Gt)], default=None)
    high = min([limit.le for limit in limits if isinstance(limit, Le)], default=None)
    below = min([limit.lt for limit in limits if isinstance(limit, Lt)], default=None)
    if kind is int:
        return st.integers(low or 0, min(most, high if high is not None else most))
    least, largest = (low if low is not None else above), (high if high is not None else below)
    within = [value for value in EXTREMES if (least is None or value > least) and (largest is None or value < largest)]
    open_ends = {"exclude_min": low is None and above is not None, "exclude_max": high is None and below is not None}
    usual = st.floats(least, largest if largest is not None else 10.0, **open_ends)
    anywhere = st.floats(least, largest if largest is not None else LARGEST, **open_ends)
    return st.one_of(usual, usual, anywhere, st.sampled_from(within))


def values(annotation: Any, metadata: list[Any], most: int) -> Drawn:
    """What a field of this type may hold."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        limits = [limit for item in more for limit in (item.metadata if isinstance(item, FieldInfo) else [item])]
        return values(inner, [*metadata, *limits], most)
    if origin is Literal:
        return st.sampled_from(get_args(annotation))
    if origin in (Union, UnionType):
        return st.one_of(*(values(part, metadata, most) for part in get_args(annotation)))
    if annotation is NoneType:
        return st.none()
    if annotation is bool:
        return st.booleans()
    if annotation in (int, float):
        return numbers(annotation, metadata, most)
    if origin is tuple:
        parts = get_args(annotation)
        if parts[-1] is Ellipsis:
            return st.lists(values(parts[0], [], most), max_size=2)
        return st.tuples(*(values(part, [], most) for part in parts)).map(list)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return section(annotation)
    # A new kind of option needs a line here.
    raise NotImplementedError(f"no values are drawn for {annotation}")


def section(kind: type[BaseModel], most: int = 3, **fixed: Drawn) -> Drawn:
    """Mappings that hold every field of a section."""
    fields = {
        name: fixed[name] if name in fixed else values(field.annotation, list(field.metadata), most)
        for name, field in kind.model_fields.items()
    }
    return st.fixed_dictionaries(fields)


def component(registry: Any, **fixed: Drawn) -> Drawn:
    """Any component of a room with any options, but those fixed; of weight policies several at once, too."""
    names = [name for name in registry.names() if name != "several"]
    one = st.one_of(*(section(registry.type_of(name), 2, name=st.just(name), **fixed) for name in names))
    several = st.fixed_dictionaries({"name": st.just("several"), "of": st.lists(one, max_size=3)})
    return one if names == registry.names() else one | several


def method(**fixed: Drawn) -> Drawn:
    """Methods of any components, but those fixed."""
    rooms = {"objective": objectives, "labels": labels, "weights": weights}
    parts = {name: component(room.REGISTRY) for name, room in rooms.items()}
    return st.fixed_dictionaries(parts | {"start": st.sampled_from(["warmup", "initial"])} | fixed)


def fits(method: dict[str, Any]) -> bool:
    try:
        Method.model_validate(method)
    except ValidationError:
        return False
    return True


steps = {"steps": st.integers(1, 2)}
trains = st.fixed_dictionaries(
    {
        "epochs": st.just(2),
        "batch_size": st.sampled_from([3, 4, 5, 6, 6, 7]),
        "optimizer": section(Optimizer),
        "schedule": component(schedules.REGISTRY, rise_epochs=st.sampled_from([0, 0.5, 1, 2])),
        "attack": section(TrainAttack, **steps, random_start=st.sampled_from([True, True, True, False])),
        "attack_bn": st.sampled_from(["eval", "train"]),
        "precision": st.sampled_from(["fp32", "tf32", "bf16"]),
        "compile": st.sampled_from(["auto", "never"]),  # always: minutes of compiling
        "selection": section(Selection, **steps),
        "keep_epochs": st.sampled_from([[], [1], [2], [1, 2], [2, 1], [3]]),
    }
)
normalizations = st.sampled_from([1, 1, 1, 2]).flatmap(
    lambda n: section(
        Normalization,
        mean=st.lists(st.floats(-1e38, 1e38), min_size=n, max_size=n),
        std=st.lists(numbers(float, [Gt(0)], 0), min_size=n, max_size=n),
    )
)
networks = section(
    models.REGISTRY.type_of("small_cnn"), name=st.just("small_cnn"), normalization=st.none() | normalizations
)
images = torch.rand(EXAMPLES, 1, 8, 8, generator=torch.Generator().manual_seed(0))
truth = torch.arange(EXAMPLES) % CLASSES
DATA = Split(images, truth.roll(1), truth)


augmenting = section(Augment, 64, more=st.lists(component(augmentations.REGISTRY), max_size=2))


def runs_or_is_refused(train: Any, method: Any, model: Any, threat: Any, augment: Any) -> str:
    """'refused', 'diverged' or 'ran'; any other error passes."""
    params = copy.deepcopy(PARAMS)
    params["methods"]["tested"] = method
    params["experiment"]["methods"] = ["tested"]
    params["data"] |= {"train_size": EXAMPLES, "augment": augment}
    params |= {"train": train, "model": model, "threat": threat}
    try:
        config = validate(params)
    except ConfigError:
        return "refused"
    try:
        network = models.build(config.model, num_classes=CLASSES, shape=(1, 8, 8), generator_seed=0)
    except ConfigError:
        return "refused"
    plan = Plan.training(config, config.methods["tested"], seed=0)
    try:
        result = fit(plan, network, DATA, DATA)
    except TrainingError as error:
        if "the loss is not finite from epoch" in str(error) or "NaN or infinite" in str(error):
            return "diverged"
        raise
    assert all(math.isfinite(row["train/loss"]) for row in result.history)
    assert len(result.history) == config.train.epochs
    return "ran"


def try_values(policy: str, **how: Any) -> collections.Counter[str]:
    """How often each outcome came of values with this label policy."""
    outcomes: collections.Counter[str] = collections.Counter()
    chosen = section(labels.REGISTRY.type_of(policy), 2, name=st.just(policy))
    # Those that go together by chance, and as many that are known to.
    tested = method(labels=chosen) | method(labels=chosen).filter(fits)

    @settings(deadline=None, suppress_health_check=list(HealthCheck), **how)
    @given(train=trains, method=tested, model=networks, threat=section(ThreatSettings), augment=augmenting)
    def draw(**values: Any) -> None:
        outcomes[runs_or_is_refused(**values)] += 1

    draw()
    return outcomes


@pytest.mark.parametrize("policy", ["hard", "refinement", "self_adaptive"])
def test_values_train_two_steps_or_are_refused(policy: str):
    outcomes = try_values(policy, max_examples=100, derandomize=True)
    # What is drawn depends on the modules that are loaded (Hypothesis takes constants from them): few may have run.
    assert min(outcomes["ran"] + outcomes["diverged"], outcomes["refused"]) >= 1, outcomes


@pytest.mark.slow
@pytest.mark.parametrize("policy", labels.REGISTRY.names())
def test_thousands_of_values_train_two_steps_or_are_refused(policy: str):
    outcomes = try_values(policy, max_examples=1500)
    assert min(outcomes["ran"], outcomes["refused"]) >= 50, outcomes
