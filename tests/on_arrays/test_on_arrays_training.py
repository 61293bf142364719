"""Training on arrays: the pipeline's own result, and what it says about arrays it cannot use."""

import importlib
import pickle
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import sglr
from sglr import augmentations, data, schedules, training, weights
from sglr.config import ConfigError
from sglr.config.reader import validate
from sglr.files import FileError, write_text
from sglr.labels import REGISTRY
from sglr.on_arrays import training as on_arrays
from sglr.training import Snapshots, loop

SMALL = {
    "train.epochs": 3, "train.batch_size": 20, "train.attack.steps": 2, "train.selection.steps": 2,
    "train.schedule": {"name": "step", "milestones": [3], "factor": 0.1},
    "threat.eps_255": 25.5, "model.channels": [2, 4], "model.hidden": 8, "methods.sglr.labels.start_epoch": 2,
}  # fmt: skip


SMALL_OF_NO_METHOD = {key: value for key, value in SMALL.items() if not key.startswith("methods.")}
THREAT = sglr.threat.Linf(8 / 255)


def images(n: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (n, 1, 6, 6), dtype=np.uint8), np.arange(n) % 4


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_taken_whatever_mode_the_caller_is_in(mode):
    expected = sglr.train(*images(), changes=SMALL)
    with mode():
        found = sglr.train(*map(torch.tensor, images()), changes=SMALL)
    assert found.history == expected.history


def test_numbers_may_be_of_numpy():
    x, y = images()
    found = sglr.train(x, y, num_classes=y.max() + 1, changes=SMALL | {"train.epochs": np.int64(3)})
    assert found.history == sglr.train(x, y, changes=SMALL).history


def test_the_default_type_of_the_caller_makes_no_difference():
    expected = sglr.train(*images(), changes=SMALL)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert sglr.train(*images(), changes=SMALL).history == expected.history
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(before)


def small(params: dict) -> dict:
    """The params with SMALL in them, as somebody would edit the file."""
    for key, value in SMALL.items():
        section, (*way, last) = params, key.split(".")
        for part in way:
            section = section[part]
        section[last] = value
    return params


@pytest.mark.parametrize(
    ("warmup", "precision"),
    [("standard", "fp32"), ("adversarial", "fp32"), ("standard", "bf16"), ("adversarial", "bf16")],
)
def test_it_is_what_the_pipeline_trains(params: dict, tmp_path: Path, warmup: str, precision: str):
    small(params)["warmup"]["objective"] = warmup
    params["train"]["precision"] = precision
    np.savez(tmp_path / "own.npz", **dict(zip(data.npz.NAMES, (*images(60), *images(20, 1)), strict=True)))
    params["data"] |= {
        "source": {"name": "npz", "path": str(tmp_path / "own.npz")}, "train_size": 40, "validation_size": 20,
    }  # fmt: skip
    config = validate(params)
    data.prepare(config.data, tmp_path / "data")
    prepared, cpu = data.open_folder(tmp_path / "data"), torch.device("cpu")
    training.warm_up(config, 3, prepared, tmp_path / "warmup", device=cpu)
    training.train(config, "sglr", 3, prepared, tmp_path / "warmup", tmp_path / "train", device=cpu)

    split, val = prepared.train(3), prepared.validation(0)
    assert split.noisy.any()
    found = sglr.train(
        split.x, split.given, true=split.true, validation=(val.x.numpy(), val.true.numpy()), method="sglr", seed=3,
        changes=SMALL | {"warmup.objective": warmup, "train.precision": precision},
    )  # fmt: skip
    found.save(tmp_path / "found")
    for name in ("best", "last"):
        for file in ("model.safetensors", "model.json"):
            expected = tmp_path / "train" / name / file
            assert (tmp_path / "found" / name / file).read_bytes() == expected.read_bytes(), (name, file)
    assert np.array_equal(found.refined.numpy(), np.load(tmp_path / "train/labels.npz")["p"])


def test_labels_that_are_not_numbered_from_0_are_doubted():
    x, y = images()
    with pytest.warns(UserWarning, match="numbered from 0, but no image is of class 0, 3: 6 in all") as said:
        found = sglr.train(x, np.array([1, 2, 4, 5])[y], changes=SMALL)
    assert {warning.filename for warning in said} == {__file__}
    assert found.spec["num_classes"] == 6
    with warnings.catch_warnings(action="error"):
        sglr.train(x, y, changes=SMALL, num_classes=5)


def test_the_models_are_ready_for_use(tmp_path: Path):
    x, y = images()
    found = sglr.train(x, y, changes=SMALL, num_classes=5)
    assert found.best is None
    assert not found.last.training
    assert [row["epoch"] for row in found.history] == [1, 2, 3]
    probabilities = torch.from_numpy(x).float() / 255
    assert found.last(probabilities).shape == (40, 5)
    found.save(tmp_path)
    assert torch.equal(sglr.load_model(tmp_path / "last")(probabilities), found.last(probabilities))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last"]
    again = pickle.loads(pickle.dumps(found.last))  # as torch.save does
    assert torch.equal(again(probabilities), found.last(probabilities))
    assert all(weight.requires_grad for weight in found.last.parameters())


def test_what_is_saved_holds_no_best_of_another_training(tmp_path: Path):
    changes = {"train.epochs": 6, "train.schedule.milestones": [4], "train.batch_size": 20, "threat.eps_255": 8}
    with_best = sglr.train(*images(), method="at", validation=images(10, 1), changes=changes)
    with_best.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"best", "last"}
    sglr.train(*images(), method="at", changes=changes).save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"last"}


def test_a_method_of_ones_own_and_a_params_file_of_ones_own(params: dict, tmp_path: Path):
    del params["methods"]["sglr"]
    params["experiment"]["methods"] = ["at"]
    write_text(tmp_path / "params.yaml", yaml.safe_dump(params))
    own = {"objective": "trades", "labels": {"name": "smoothing", "smoothing": 0.4}, "weights": "none"}
    changes = {key: value for key, value in SMALL.items() if not key.startswith("methods")}
    found = sglr.train(*images(), method=own, params=tmp_path / "params.yaml", changes=changes)
    assert found.refined[0].tolist() == pytest.approx([0.7, 0.1, 0.1, 0.1])
    with pytest.raises(sglr.config.ConfigError, match="method 'sglr' is used but not declared"):
        sglr.train(*images(), method="sglr", params=tmp_path / "params.yaml", changes=changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.full((40, 1, 6, 6), 2.0)}, r"x has values from 2 to 2; .* \[0, 1\]"),
        ({"x": np.zeros((40, 6, 6), np.uint8)}, "x has shape .*four axes"),
        ({"y": np.zeros(40)}, "y is float64; labels must be whole numbers"),
        ({"y": np.zeros(39, int)}, r"40 images \(x\), 39 labels \(y\)"),
        ({"true": np.zeros(3, int)}, "3 true labels"),
        ({"num_classes": 3}, "label 3, but num_classes is 3"),
        ({"validation": (np.zeros((4, 1, 5, 5), np.uint8), np.zeros(4, int))}, "validation have another shape"),
    ],
)
def test_arrays_that_cannot_be_used_are_named(change: dict, message: str):
    x, y = images()
    with pytest.raises(ValueError, match=message):
        sglr.train(**({"x": x, "y": y, "threat": THREAT} | change))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.epoch": 3, "threat.eps_255": 4}, r"train\.epoch: unknown key\. Did you mean 'epochs'"),
        ({"threat.eps_255": 4, "train.epochs.many": 3}, "train.epochs.many: epochs is not a section"),
        ({"threat.eps_255": -1}, r"threat\.eps_255: .*greater than 0 \(found -1"),
        ({"train.epoch": 3, "threat.eps_255": 8}, r"^sglr\.train: train\.epoch: unknown key"),
    ],
)
def test_changes_that_cannot_be_used_are_named(changes: dict, message: str):
    with pytest.raises(sglr.config.ConfigError, match=message):
        sglr.train(*images(), changes=changes)


@pytest.mark.parametrize(
    ("changes", "idle"),
    [
        ({"data.noise.rate": 0.4, "data.train_size": 50}, "data.noise.rate, data.train_size"),
        ({"data": {"noise": {"rate": 0.4}, "augment": {"flip": True}}}, "data.noise.rate"),
        ({"evaluate.n_examples": 5, "train.epochs": 2}, "evaluate.n_examples"),
        ({"experiment.threads": 2}, "experiment.threads"),
        ({"methods.at.objective": "standard"}, "methods.at.objective"),
        ({"train.keep_epochs": [1], "train.batch_size": 20}, "train.keep_epochs"),
    ],
)
def test_changes_that_play_no_part_are_named(changes: dict, idle: str):
    with pytest.raises(sglr.config.ConfigError, match=f"^changes: {idle} would have no effect: .* methods.sglr"):
        sglr.train(*images(), changes=changes)


class KilledError(Exception):
    """As if the process was killed."""


@pytest.mark.parametrize("warmup", [{"warmup.epochs": 1}, {"warmup.objective": "adversarial", "warmup.epochs": 1}])
@pytest.mark.parametrize("after", [1, 3, 5])
def test_an_interrupted_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warmup: dict, after: int):
    """In its warm-up, after it, and in its last epoch: the same bytes, and nothing is left behind."""
    x, y = images()
    call = {"changes": SMALL | warmup, "validation": (x[30:], y[30:])}
    whole = sglr.train(x[:30], y[:30], **call)
    monkeypatch.setenv("SGLR_SNAPSHOT_SECONDS", "0")
    save, count = Snapshots.save, iter(range(1, 100))

    def once(self: Snapshots, *state: Any) -> None:
        save(self, *state)
        if next(count) == after:
            raise KilledError

    monkeypatch.setattr(Snapshots, "save", once)
    with pytest.raises(KilledError):
        sglr.train(x[:30], y[:30], **call, snapshots=tmp_path)
    other = sglr.train(x[:30], y[:30], **call, seed=1, snapshots=tmp_path)
    assert other.history != whole.history
    taken: list[int] = []
    take_one = loop.take
    monkeypatch.setattr(loop, "take", lambda *call: (taken.append(1), take_one(*call))[1])
    found = sglr.train(x[:30], y[:30], **call, snapshots=tmp_path)
    assert found.history == whole.history
    for name, value in whole.last.state_dict().items():
        assert torch.equal(found.last.state_dict()[name], value), name
    # Two steps an epoch; three epochs, and the warm-up's, which an adversarial one takes off theirs.
    assert len(taken) == (6 if "warmup.objective" in warmup else 8) - after
    assert list(tmp_path.iterdir()) == []


LABELS = """
from policies import Policy
from torch.nn.functional import one_hot
from sglr.labels.hard import HardOptions
from sglr.labels.registry import REGISTRY

@REGISTRY.register("tested_elsewhere")
class Elsewhere(HardOptions):
    def build(self, given, num_classes, epochs):
        return Policy(one_hot(given, num_classes).float())
"""
POLICY = """
from sglr.labels.hard import FixedLabels

class Policy(FixedLabels):
    \"\"\"Nothing of its own.\"\"\"
"""
SCHEDULE = """
from sglr.schedules import REGISTRY, ScheduleOptions

@REGISTRY.register("tested_falling")
class Falling(ScheduleOptions):
    def rate(self, progress, epochs):
        return 1 / (1 + progress)
"""


def test_snapshots_tell_the_code_of_other_components_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "elsewhere.py").write_text(LABELS)
    (tmp_path / "policies.py").write_text(POLICY)
    (tmp_path / "falling.py").write_text(SCHEDULE)
    importlib.import_module("elsewhere")
    importlib.import_module("falling")
    method = {"objective": "at", "labels": "tested_elsewhere", "weights": "none"}
    asked: list[str] = []
    monkeypatch.setattr(on_arrays, "fingerprint", lambda *parts: asked.append(str(parts[4:6])) or "f" * 64)
    try:
        for change in ("", "# Another.\n"):
            (tmp_path / "elsewhere.py").write_text(LABELS + change)
            sglr.train(*images(), method=method, changes=SMALL_OF_NO_METHOD, snapshots=tmp_path / "kept")
        # The policy itself is in another file than its options.
        (tmp_path / "policies.py").write_text(POLICY + "# Another.\n")
        sglr.train(*images(), method=method, changes=SMALL_OF_NO_METHOD, snapshots=tmp_path / "kept")
        torch.set_num_threads(torch.get_num_threads() + 1)
        sglr.train(*images(), method=method, changes=SMALL_OF_NO_METHOD, snapshots=tmp_path / "kept")
        assert len(set(asked)) == 4
        for change in ("", "# Another.\n"):
            (tmp_path / "falling.py").write_text(SCHEDULE + change)
            falling = SMALL | {"train.schedule": "tested_falling"}
            sglr.train(*images(), changes=falling, snapshots=tmp_path / "kept")
        assert len(set(asked)) == 6
        # In a notebook there is no file.
        monkeypatch.delattr(sys.modules["elsewhere"], "__file__")
        with pytest.raises(ValueError, match="cannot tell Elsewhere, which is defined in a notebook"):
            sglr.train(*images(), method=method, changes=SMALL_OF_NO_METHOD, snapshots=tmp_path / "kept")
        sglr.train(*images(), method=method, changes=SMALL_OF_NO_METHOD)
    finally:
        torch.set_num_threads(1)
        REGISTRY._types.pop("tested_elsewhere")
        schedules.REGISTRY._types.pop("tested_falling")


AUGMENTATION = """
from drawing import noisy
from sglr.augmentations import REGISTRY, AugmentationOptions

@REGISTRY.register("tested_elsewhere")
class Elsewhere(AugmentationOptions):
    def build(self, shape):
        return noisy
"""
FUNCTION = """
import torch

def noisy(x, generator):
    return (x + 0.1 * torch.rand(x.shape, generator=generator)).clamp(0, 1)
"""


def test_snapshots_tell_the_code_of_augmentations_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The file of the options, and that of the function they build."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "augmenting_elsewhere.py").write_text(AUGMENTATION)
    (tmp_path / "drawing.py").write_text(FUNCTION)
    importlib.import_module("augmenting_elsewhere")
    asked: list[str] = []
    monkeypatch.setattr(on_arrays, "fingerprint", lambda *parts: asked.append(str(parts[4])) or "f" * 64)
    call = {"changes": SMALL | {"data.augment.more": ["tested_elsewhere"]}, "snapshots": tmp_path / "kept"}
    try:
        sglr.train(*images(), **call)
        for name in ("augmenting_elsewhere.py", "drawing.py"):
            (tmp_path / name).write_text((tmp_path / name).read_text() + "# Another.\n")
            sglr.train(*images(), **call)
        assert len(set(asked)) == 3
    finally:
        augmentations.REGISTRY._types.pop("tested_elsewhere")


WEIGHTS = """
from sglr.weights import REGISTRY, WeightPolicy
from sglr.weights.registry import WeightOptions

@REGISTRY.register("tested_inside")
class Inside(WeightOptions):
    def build(self, model):
        return WeightPolicy()
"""


def test_snapshots_tell_the_code_of_one_of_several_weight_policies_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "inside.py").write_text(WEIGHTS)
    importlib.import_module("inside")
    method = {"objective": "at", "labels": "hard", "weights": {"name": "several", "of": ["awp", "tested_inside"]}}
    asked: list[str] = []
    monkeypatch.setattr(on_arrays, "fingerprint", lambda *parts: asked.append(str(parts[4:6])) or "f" * 64)
    try:
        for change in ("", "# Another.\n"):
            (tmp_path / "inside.py").write_text(WEIGHTS + change)
            sglr.train(*images(), method=method, changes=SMALL_OF_NO_METHOD, snapshots=tmp_path / "kept")
    finally:
        weights.REGISTRY._types.pop("tested_inside")
    assert len(set(asked)) == 2


def test_the_interval_of_snapshots_is_asked_for_where_there_are_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SGLR_SNAPSHOT_SECONDS", "often")
    sglr.train(*images(), changes=SMALL)
    with pytest.raises(ConfigError, match="SGLR_SNAPSHOT_SECONDS='often' is not a number"):
        sglr.train(*images(), changes=SMALL, snapshots=tmp_path)


def test_two_trainings_do_not_share_snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    x, y = images()
    messages: list[str] = []

    def again(*arguments: Any, **keywords: Any) -> Any:
        if not messages:
            messages.append("")
            with pytest.raises(FileError, match="another training with the same arguments holds"):
                sglr.train(x, y, changes=SMALL, snapshots=tmp_path)
        return fit(*arguments, **keywords)

    fit = on_arrays.fit
    monkeypatch.setattr(on_arrays, "fit", again)
    sglr.train(x, y, changes=SMALL, snapshots=tmp_path)
    assert messages


@pytest.mark.parametrize("seed", [None, 1.5, -1, True])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(ValueError, match="seed must be a whole number"):
        sglr.train(*images(), changes=SMALL, seed=seed)


def test_channels_may_come_last():
    x, y = images(20)
    x = np.repeat(x, 3, axis=1)
    first, last = (sglr.train(form, y, changes=SMALL) for form in (x, x.transpose(0, 2, 3, 1)))
    assert last.spec["shape"] == first.spec["shape"] == [3, 6, 6]
    assert all(
        torch.equal(one, other) for one, other in zip(first.last.parameters(), last.last.parameters(), strict=True)
    )


def test_a_device_that_is_not_there_is_named():
    for wrong in ("gpu", "cuda:77"):
        with pytest.raises(sglr.config.ConfigError, match=f"^device='{wrong}' "):
            sglr.train(*images(), threat=THREAT, device=wrong)


def test_a_method_of_ones_own_takes_no_changes_of_declared_ones():
    own = {"objective": "at", "labels": "hard", "weights": "none"}
    with pytest.raises(sglr.config.ConfigError, match=r"methods\.sglr\.labels\.alpha would have no effect"):
        sglr.train(*images(), method=own, threat=THREAT, changes={"methods.sglr.labels.alpha": 0.5})


def test_changes_that_play_a_part_reach_the_training():
    """One key of each section that is used, by key and as a section."""
    used = {
        "data.augment": {"crop_padding": 1, "flip": True}, "threat.eps_255": 4, "warmup.epochs": 1,
        "methods.sglr.labels.alpha": 0.5,
    }  # fmt: skip
    config, name = on_arrays._config("sglr", None, None, SMALL | used, validated=False, warm=True)
    assert (config.data.augment.flip, config.threat.eps_255, config.warmup.epochs) == (True, 4, 1)
    assert config.methods[name].labels.alpha == 0.5


def test_sizes_are_those_of_the_arrays():
    """Not those of the shipped data set, which has fewer images than this batch."""
    with pytest.raises(training.TrainingError, match=r"train\.batch_size 1500 is larger than .* \(40 examples\)"):
        sglr.train(*images(), changes=SMALL | {"train.batch_size": 1500})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"^sglr\.train: give the threat model, such as threat=sglr\.threat\.Linf\(8 / 255\), or params="),
        ({"threat": THREAT, "changes": {"threat.eps_255": 8}}, "the threat model is given twice"),
        ({"changes": {"threat.norm": "l2"}}, "give the threat model"),
        ({"threat": 8 / 255}, r"threat must be sglr\.threat\.Linf or sglr\.threat\.L2, found 0\.03"),
    ],
)
def test_there_is_no_radius_by_default(given: dict, message: str):
    with pytest.raises(sglr.config.ConfigError, match=message):
        sglr.train(*images(), **given)


def test_the_threat_model_that_is_given_is_trained_against(params: dict, tmp_path: Path):
    """Of the shipped params what depends on the radius follows it; of a file of one's own nothing does."""
    found = on_arrays._config("at", sglr.threat.L2(0.5), None, {}, validated=False, warm=True)[0]
    assert (found.threat.norm, found.threat.eps_255, found.train.attack.step_size(0.5)) == ("l2", 127.5, 0.125)
    params["train"]["attack"]["step_size_255"] = 6.375
    path, threat = tmp_path / "params.yaml", sglr.threat.Linf(8 / 255)
    write_text(path, yaml.safe_dump(params))
    own = on_arrays._config("at", threat, path, {}, validated=False, warm=True)[0]
    assert (own.threat.eps_255 / 255, own.train.attack.step_size_255) == (8 / 255, 6.375)
    for changes in ({"threat.eps_255": 8}, {"threat": {"norm": "linf", "eps_255": 8}}):
        same = on_arrays._config("at", None, None, changes, validated=False, warm=True)[0]
        assert (same.threat, same.train.attack.step_size_255) == (own.threat, None)
    both = {"threat.eps_255": 8, "train.attack.step_size_255": 1}
    assert on_arrays._config("at", None, None, both, validated=False, warm=True)[0].train.attack.step_size_255 == 1


def test_what_is_probably_not_meant_is_a_warning_at_the_call():
    changes = SMALL | {"threat.eps_255": 8 / 255, "train.schedule.milestones": [3, 30]}
    with pytest.warns(UserWarning, match="less than one step of a byte") as said:
        sglr.train(*images(), changes=changes)
    assert {warning.filename for warning in said} == {__file__}
    assert any("milestones 30 come after the last of 3 epochs" in str(warning.message) for warning in said)


@pytest.mark.parametrize(
    ("arguments", "kind", "expected"),
    [
        (
            {"method": "slgr", "changes": {"methods.sglr.labels.alpha": 0.5}},
            ConfigError,
            "not declared under methods. Did you mean 'sglr'?",
        ),
        ({"method": "SGLR"}, ConfigError, "not declared under methods. Did you mean 'sglr'?"),
        ({"changes": {"train": {"epochs": 3}}}, ConfigError, "name single values instead, such as 'train.epochs'"),
        (
            {"changes": {"train.attack": {"name": "fgsm", "steps": 1}}},
            ConfigError,
            "name single values instead, such as 'train.attack.steps'",
        ),
        ({"changes": ["train.epochs=3"]}, TypeError, "changes must be a dict"),
        ({"changes": {3: 3}}, TypeError, "changes name values by dotted keys such as 'train.epochs', found 3"),
        ({"num_classes": "4"}, TypeError, "num_classes must be a whole number, found '4'"),
        ({"validation": np.zeros((5, 1, 8, 8))}, TypeError, "validation must be a pair, images and labels"),
        ({"x": torch.utils.data.TensorDataset(torch.zeros(3))}, TypeError, "x is a TensorDataset; give"),
    ],
)
def test_slips_of_a_first_call_are_named(arguments, kind, expected):
    x, y = images()
    with pytest.raises(kind, match=re.escape(expected)):
        sglr.train(**{"x": x, "y": y, "threat": THREAT} | arguments)


class Unfit(augmentations.AugmentationOptions):
    """It cannot be built for the images of this test."""

    def build(self, shape: tuple[int, int, int]) -> augmentations.Augmentation:
        raise AssertionError("it was built")

    def misfit(self, shape: tuple[int, int, int]) -> str | None:
        return "they are small"


def test_an_augmentation_that_does_not_fit_is_refused_with_snapshots_too(tmp_path: Path):
    call: dict[str, Any] = {"changes": SMALL | {"data.augment.more": [Unfit(name="unfit")]}, "snapshots": tmp_path}
    with pytest.raises(sglr.UserError, match=r"unfit cannot augment images of .*: they are small"):
        sglr.train(*images(), **call)


def small_model(seed: int) -> torch.nn.Module:
    return sglr.models.build(
        "small_cnn", num_classes=4, shape=(1, 6, 6), generator_seed=seed, channels=(2, 4), hidden=8
    )


def test_training_begins_with_the_weights_that_are_given(tmp_path: Path):
    """A module, however wrapped, or the folder of a saved one, which are left as they are; and there is no warm-up."""
    x, y = images()
    begun = sglr.train(x, y, changes=SMALL | {"warmup.epochs": 3}, seed=5)
    begun.save(tmp_path)
    before = {name: value.clone() for name, value in begun.last.state_dict().items()}
    compiled = torch.compile(begun.last, backend="eager")
    tuned = [sglr.train(x, y, changes=SMALL, initial=one) for one in (begun.last, tmp_path / "last", compiled)]
    for name, value in before.items():
        assert torch.equal(begun.last.state_dict()[name], value)
        assert all(torch.equal(one.last.state_dict()[name], tuned[0].last.state_dict()[name]) for one in tuned)
    # Those of the seed itself are what a training without a warm-up begins with.
    cold = sglr.train(x, y, changes=SMALL | {"warmup.epochs": 0})
    assert tuned[0].history != cold.history
    own = sglr.models.initial(cold.spec, 0)
    assert sglr.train(x, y, changes=SMALL, initial=own).history == cold.history


HALF = {"mean": [0.5], "std": [0.5]}


class Extra(torch.nn.Linear):
    def get_extra_state(self) -> dict[str, int]:
        return {"version": 2}


def unusual(what: str, value: Any) -> torch.nn.Module:
    if what == "normalization":
        kind = {"num_classes": 4, "shape": (1, 6, 6), "channels": (2, 4), "hidden": 8}
        return sglr.models.build("small_cnn", normalization=value, **kind)
    model = small_model(1)
    if what == "nan":
        model.head.bias.data[0] = torch.nan
    else:
        model.head.__class__ = Extra
    return model


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        (
            {"changes": {"model.hidden": 9}},
            ValueError,
            "^initial is not the network 'small_cnn' of the params .*hidden",
        ),
        ({"changes": {"model.normalization": HALF}}, ValueError, "^initial is not .*: missing: normalize.mean, norm"),
        ({"initial": ("normalization", HALF | {"std": [0.25]})}, ValueError, "it normalises images otherwise"),
        ({"initial": ("nan", None)}, ValueError, "^initial: head.bias is NaN or infinite"),
        ({"initial": ("extra", None)}, ValueError, r"^initial has more in its state than weights: head\._extra_state"),
        ({"changes": {"warmup.epochs": 2}}, ConfigError, r"warmup\.epochs"),
        ({"initial": {}}, TypeError, "^initial must be a model or the folder of one, found dict"),
        ({"initial": "nowhere"}, FileError, "there is no model at nowhere"),
    ],
)
def test_weights_that_cannot_be_begun_with_are_refused(tmp_path: Path, given: dict, kind: type, message: str):
    changes, initial = SMALL | given.get("changes", {}), given.get("initial", small_model(1))
    if isinstance(initial, tuple):
        initial = unusual(*initial)
        changes |= {"model.normalization": HALF} if hasattr(initial.normalize, "mean") else {}
    with pytest.raises(kind, match=message):
        sglr.train(*images(), snapshots=tmp_path, initial=initial, changes=changes)
    assert not list(tmp_path.iterdir())


def test_initial_weights_of_another_activation_are_refused():
    """Their names are the same."""
    model = {"name": "wrn", "depth": 10, "width": 1}
    smooth = sglr.models.build("wrn", num_classes=4, shape=(1, 6, 6), depth=10, width=1, activation="silu")
    changes = {key: value for key, value in SMALL.items() if not key.startswith("model.")} | {"train.epochs": 3}
    with pytest.raises(ValueError, match="with the same weights it gives other logits, as with another activation"):
        sglr.train(*images(), initial=smooth, changes=changes | {"model": model})
    sglr.train(*images(), initial=smooth, changes=changes | {"model": model | {"activation": "silu"}})


def test_a_model_that_draws_may_be_begun_with_and_leaves_the_callers_random_numbers():
    class Drawing(type(small_model(1))):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + torch.rand(())

    model = small_model(1)
    model.__class__ = Drawing
    before = torch.get_rng_state()
    fitted = sglr.train(*images(), initial=model, changes=SMALL)
    assert torch.equal(torch.get_rng_state(), before)
    assert fitted.history == sglr.train(*images(), initial=small_model(1), changes=SMALL).history


def test_snapshots_tell_initial_weights_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[str] = []

    def run(self: Any, folder: Path) -> None:
        seen.append(folder.name)
        raise InterruptedError

    monkeypatch.setattr(on_arrays._Training, "run", run)
    for model in (None, small_model(1), small_model(1), small_model(2)):
        with pytest.raises(InterruptedError):
            sglr.train(*images(), snapshots=tmp_path, initial=model, changes=SMALL)
    assert seen[1] == seen[2]
    assert len(set(seen)) == 3
