"""`sglr export`: files that load without this project, RobustBench's description and call, the model card."""

import contextlib
import importlib.util
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

import sglr
from sglr import data, evaluation, files, models
from sglr.cli import main
from sglr.config.reader import validate
from sglr.exchange import load_foreign, model_card
from sglr.exchange.provenance import Provenance, gather
from sglr.tracking import registering

# RobustBench 1.1.1, robustbench/utils.py, class ModelInfo: the fields that concern Lp threat models.
MODEL_INFO = {
    "link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture", "eps",
    "clean_acc", "reported", "autoattack_acc", "footnote",
}  # fmt: skip
CIFAR = {"num_classes": 10, "shape": (3, 32, 32)}


def call(*arguments: object):
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


@pytest.fixture
def study(params, tmp_path, monkeypatch):
    """A project with data, an at-0 with a best and a last model, its evaluation, and dvc.lock about them."""
    monkeypatch.chdir(tmp_path)
    params["data"] |= {"source": {"name": "digits", "test_size": 40}, "train_size": 60, "validation_size": 20}
    params["model"] |= {"channels": [4, 8], "hidden": 16}
    params["train"]["batch_size"] = 60
    params["evaluate"] |= {"batch_size": 20, "sanity": None, "attacks": {"fgsm": "fgsm"}}
    params["evaluate"]["sweep"] = {"eps_255": [5.0, 25.5], "steps": 2}
    config = validate(params)
    artifacts = tmp_path / "artifacts"
    data.prepare(config.data, artifacts / "data")
    trained = artifacts / "train" / "sglr-0"
    kind = {"num_classes": 10, "shape": (1, 8, 8)}
    for seed, name in enumerate(("best", "last", "checkpoints/10")):
        models.save(
            models.build(config.model, **kind, generator_seed=seed), trained / name, models.spec(config.model, **kind)
        )
    files.write_json(trained / "metrics.json", {"best_epoch": 7, "epochs": 60, "best": {}, "last": {}})
    result = evaluation.evaluate(config, data.open_folder(artifacts / "data"), trained, device=torch.device("cpu"))
    result.flags.append("best/fgsm: a doubt")
    evaluation.write(result, artifacts / "evaluate" / "sglr-0")
    write_lock(tmp_path, params)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    return tmp_path


def write_lock(project: Path, params: dict) -> None:
    """What DVC writes, in the part that is read: params, and the MD5 of a listing of each output folder."""
    from dvc_data.hashfile.build import build as build_object
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.fs.local import LocalFileSystem

    filesystem = LocalFileSystem()
    store = HashFileDB(filesystem, str(project / "store"))

    def entry(path: str) -> dict[str, str]:
        _, _, found = build_object(store, str(project / path), filesystem, "md5", dry_run=True)
        return {"path": path, "hash": "md5", "md5": found.hash_info.value}

    evaluated = [entry(f"artifacts/train/sglr-0/{name}") for name in ("best", "last")]
    outs = [*evaluated, entry("artifacts/train/sglr-0/checkpoints")]
    used = {key: params[key] for key in ("threat", "evaluate")}
    values = {"methods.sglr": params["methods"]["sglr_mixed"], "threat": params["threat"], "train": params["train"]}
    stages = {
        "train@sglr-0": {"deps": [entry("artifacts/data")], "params": {"params.yaml": values}, "outs": outs},
        "evaluate@sglr-0": {"deps": evaluated, "params": {"params.yaml": used}, "outs": []},
    }
    (project / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


def cifar(tmp_path: Path, name: str = "small_cnn", **options: Any) -> Path:
    """A network for CIFAR images with batch-norm statistics of its own, saved as a checkpoint."""
    model = models.build(name, **CIFAR, generator_seed=0, **options)
    model(torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    models.save(model, tmp_path / "checkpoint", models.spec(name, **CIFAR, **options))
    return tmp_path / "checkpoint"


def imported(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[path.stem]
    return module


def test_all_files_are_written_and_load(study):
    result = call("artifacts/train/sglr-0", "--output", "out")
    assert result.exit_code == 0, result.output
    names = ["model.safetensors", "model.json", "sglr_0_best.pt", "sglr_0_best.py", "model_info.json", "README.md"]
    assert [Path(line).name for line in result.output.split()] == names
    assert {path.name for path in (study / "out").iterdir()} == set(names)
    original = models.load_model(study / "artifacts" / "train" / "sglr-0" / "best")
    state = torch.load(study / "out" / "sglr_0_best.pt", weights_only=True)
    assert all(torch.equal(state[name], value) for name, value in original.state_dict().items())
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(sglr.load_model(study / "out")(x), original(x))
    reloaded = load_foreign(
        study / "out" / "sglr_0_best.pt", "small_cnn", num_classes=10, shape=(1, 8, 8), channels=[4, 8], hidden=16
    )
    assert torch.equal(reloaded.model(x), original(x))


ARCHITECTURES: list[tuple[str, dict[str, Any]]] = [
    ("small_cnn", {"batch_norm": False}),
    ("resnet18", {}),
    ("preact_resnet18", {"normalization": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}}),
    ("wrn", {"depth": 10, "width": 1, "activation": "silu"}),
]


@pytest.mark.slow
def test_the_python_file_needs_nothing_of_this_project(tmp_path):
    """In a process of its own where importing sglr or pydantic fails, it gives the logits of the original."""
    x = torch.rand(2, 3, 32, 32)
    torch.save(x, tmp_path / "x.pt")
    expected, lines = {}, ["import sys", "sys.modules['sglr'] = sys.modules['pydantic'] = None", "import torch"]
    for name, options in ARCHITECTURES:
        checkpoint = cifar(tmp_path / name, name, **options)
        folder = tmp_path / "out" / name
        assert call(checkpoint, "--output", folder, "--name", f"mine_{name}").exit_code == 0
        expected[name] = models.load_model(checkpoint)(x)
        lines += [
            f"sys.path.insert(0, {name!r})",
            f"import mine_{name}",
            f"model = mine_{name}.load()",
            "assert not model.training",
        ]
        lines += [f"torch.save(model(torch.load('../x.pt')).detach(), '{name}.logits')"]
    lines.insert(3, "torch.set_num_threads(1)")
    subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=tmp_path / "out", check=True, timeout=120)
    for name, logits in expected.items():
        assert torch.equal(torch.load(tmp_path / "out" / f"{name}.logits"), logits), name


OWN_FILE = """
import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from sglr.models.registry import REGISTRY, Classifier, ModelOptions, Shape


@dataclass(frozen=True)
class Stage:
    width: int


class Plan(NamedTuple):
    stages: list[Stage]


@torch.no_grad()
def halved(layer: nn.Linear) -> nn.Linear:
    layer.weight.div_(2)
    return layer


class Mine(Classifier):
    def __init__(self, options: "MineOptions", num_classes: int, shape: Shape) -> None:
        super().__init__(options.normalization, shape[0])
        plan = Plan([Stage(options.width)])
        self.hidden = halved(nn.Linear(math.prod(shape), plan.stages[0].width))
        self.head = nn.Linear(plan.stages[0].width, num_classes)

    def features(self, x: Tensor) -> Tensor:
        return self.hidden(self.normalize(x).flatten(1)).relu()


@REGISTRY.register("mine")
class MineOptions(ModelOptions):
    width: Annotated[int, Field(ge=1)] = 3

    def build(self, num_classes: int, shape: Shape) -> Mine:
        return Mine(self, num_classes, shape)
"""


@pytest.mark.parametrize("works", [True, False])
def test_a_model_of_ones_own_is_exported_with_what_its_file_uses(tmp_path, monkeypatch, works):
    monkeypatch.setattr(models.REGISTRY, "_types", dict(models.REGISTRY._types))
    path = tmp_path / "mine_alone.py"
    # What is in another file of this project is not taken along.
    path.write_text(OWN_FILE if works else OWN_FILE.replace("math.prod(shape)", "Shape and math.prod(shape)"))
    spec = importlib.util.spec_from_file_location("mine_alone", path)
    assert spec is not None
    assert spec.loader is not None
    monkeypatch.setitem(sys.modules, "mine_alone", module := importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    kind = {"num_classes": 4, "shape": (1, 4, 4)}
    models.save(original := models.build("mine", **kind).eval(), tmp_path / "last", models.spec("mine", **kind))
    result = call(tmp_path / "last", "--output", tmp_path / "out", "--name", "alone")
    if works:
        assert result.exit_code == 0, result.output
        x = torch.rand(3, 1, 4, 4)
        assert torch.equal(imported(tmp_path / "out" / "alone.py").load()(x), original(x))
    else:
        assert result.exit_code == 1
        assert "alone.py, the source of the model's own file, does not work alone (NameError:" in result.output
        assert not (tmp_path / "out").exists()


def test_model_info_has_robustbenchs_fields_and_claims_nothing_that_was_not_measured(study):
    assert call("artifacts/train/sglr-0", "--output", "out").exit_code == 0
    info = json.loads((study / "out" / "model_info.json").read_text())
    assert set(info) == MODEL_INFO
    measured = files.read_json(study / "artifacts" / "evaluate" / "sglr-0" / "metrics.json")["best"]["natural"]
    assert info["clean_acc"] == f"{100 * measured:.2f}"
    assert info["eps"] == "25.5/255"
    assert info["autoattack_acc"] is info["reported"] is None
    assert info["footnote"] == "AutoAttack's standard version was not run on the whole test split."


def test_autoattack_is_reported_when_it_ran_on_the_whole_test_split(study):
    lock, metrics = study / "dvc.lock", study / "artifacts" / "evaluate" / "sglr-0" / "metrics.json"
    values, found = yaml.safe_load(lock.read_text()), files.read_json(metrics)
    values["stages"]["evaluate@sglr-0"]["params"]["params.yaml"]["evaluate"]["attacks"]["aa"] = "autoattack"
    lock.write_text(yaml.safe_dump(values))
    found["best"]["aa"], found["interval"]["best"]["aa"] = 0.25, {"low": 0.1, "high": 0.4}
    for examples, expected in ((40, "25.00"), (39, None)):
        files.write_json(metrics, found | {"n_examples": {"natural": 40, "fgsm": 40, "aa": examples}})
        assert call("artifacts/train/sglr-0", "--output", "out").exit_code == 0
        assert json.loads((study / "out" / "model_info.json").read_text())["autoattack_acc"] == expected


@pytest.mark.parametrize(("classes", "expected"), [(10, "25.00"), (9, None)])
def test_with_fewer_targets_autoattack_is_not_the_standard_version(classes, expected):
    found = Provenance(
        Path("best"), "best", results={"best": {"aa": 0.25}, "n_examples": {"aa": 40}},
        data={"sizes": {"test": 40}, "source": {"name": "mine"}}, suite={"evaluate": {"attacks": {"aa": "autoattack"}}},
    )  # fmt: skip
    spec = models.spec("small_cnn", num_classes=classes, shape=(1, 8, 8))
    assert model_card.info(found, spec)["autoattack_acc"] == expected


def test_the_model_card_says_what_is_on_record(study):
    assert call("artifacts/train/sglr-0", "--output", "out", "--checkpoint", "last").exit_code == 0
    card = (study / "out" / "README.md").read_text()
    metrics = files.read_json(study / "artifacts" / "evaluate" / "sglr-0" / "metrics.json")
    interval = metrics["interval"]["last"]["fgsm"]
    assert f"| fgsm | 40 | {metrics['last']['fgsm']:.2%} | {interval['low']:.2%} to {interval['high']:.2%} |" in card
    interval = metrics["sweep"]["interval"]["last"]["25.5"]
    accuracy = metrics["sweep"]["last"]["25.5"]
    assert f"| 25.5 | 40 | {accuracy:.2%} | {interval['low']:.2%} to {interval['high']:.2%} |" in card
    for text in (
        "# sglr_0_last", "**last** checkpoint of `sglr-0`", "Linf, eps = 25.5/255", "symmetric noise at rate 0.3",
        "60 train, 20 validation, 40 test", '"milestones": [30, 45]', "Flag of the evaluation: best/fgsm: a doubt",
        "Reconstruction: the published code has no refinement ratio below 1", sglr.__version__, torch.__version__,
    ):  # fmt: skip
        assert text in card
    assert str(study) not in card


@pytest.mark.parametrize(
    ("where", "path", "checkpoint"),
    [
        ("artifacts/train/sglr-0", ".", "best"), ("artifacts/train/sglr-0", "last", "last"),
        ("artifacts/train/sglr-0/last", ".", "last"), ("artifacts/train/sglr-0/last", "model.safetensors", "last"),
        ("artifacts/train/sglr-0/checkpoints", "10", "10"), (".", "latest", "last"), (".", "newest", "best"),
    ],
)  # fmt: skip
def test_records_are_found_whatever_a_checkpoint_is_called(study, where, path, checkpoint):
    (study / "latest").symlink_to("artifacts/train/sglr-0/last")
    (study / "newest").symlink_to("artifacts/train/sglr-0")
    with contextlib.chdir(study / where):
        found = gather(path)
    assert (found.item, found.checkpoint) == ("sglr-0", checkpoint)
    assert found.params is not None
    assert (found.results is not None) == (checkpoint != "10")


def test_a_file_of_another_kind_beside_a_model_is_no_record(study):
    shutil.copytree(study / "artifacts/train/sglr-0/last", study / "mine/model/last")
    files.write_json(study / "mine/source.json", {"url": "https://example.org"})
    found = gather(study / "mine/model/last")
    assert (found.source, found.results, found.checkpoint) == (None, None, "last")


@pytest.mark.parametrize(
    "changes",
    [
        {"data": 2}, {"data": {"source": {"name": "npz"}, "sizes": {}}}, {"threat": {"norm": "l7", "eps_255": 8}},
        {"threat": {"norm": "linf", "eps_255": "8); import os"}}, {"notes": ["one\n## Heading"]}, {"weights": "a.pt"},
        {"weights": {"file": "a\n## Heading", "sha256": "0"}},
        {"data": {"source": {"name": "npz"}, "sizes": {"test": 3}, "classes": ["\x1b[2J"] * 3}}, {"evaluate": 3},
    ],
    ids=str,
)  # fmt: skip
def test_a_record_that_evaluate_did_not_write_is_none(study, changes):
    shutil.copytree(study / "artifacts/train/sglr-0/last", study / "mine/model/last")
    source = {
        "weights": {"file": "x.pt", "sha256": "0"}, "notes": ["read"], "threat": {"norm": "linf", "eps_255": 8.0},
        "evaluate": {"attacks": {}}, "data": {"source": {"name": "npz"}, "sizes": {"test": 3}, "classes": None},
    }  # fmt: skip
    files.write_json(study / "mine/source.json", source)
    assert gather(study / "mine/model/last").source == source
    files.write_json(study / "mine/source.json", source | changes)
    assert gather(study / "mine/model/last").source is None


def test_records_of_other_weights_are_not_taken_for_these(study):
    """dvc.lock describes what DVC put there; weights changed since are not described by it."""
    kind = {"num_classes": 10, "shape": (1, 8, 8), "channels": [4, 8], "hidden": 16}
    best = study / "artifacts" / "train" / "sglr-0" / "best"
    models.save(models.build("small_cnn", **kind, generator_seed=9), best, models.spec("small_cnn", **kind))
    assert call("artifacts/train/sglr-0", "--output", "out").exit_code == 0
    card = (study / "out" / "README.md").read_text()
    assert "dvc.lock does not describe these weights" in card
    assert "milestones" not in card
    assert "## Results\n\nNot evaluated, or not on record." in card
    assert set(registering.tags_of(best, "digits", "sglr-0")) == {"experiment", "item", "checkpoint", "md5"}


def test_values_are_those_that_dvc_recorded(study):
    """In DVC's own writing, without the point that PyYAML wants in a number."""
    lock = study / "dvc.lock"
    lock.write_text(lock.read_text().replace("weight_decay: 0.0005", "weight_decay: 2e-05"))
    params = gather("artifacts/train/sglr-0").params
    assert params is not None
    assert params["train"]["optimizer"]["weight_decay"] == 2e-5


def test_other_data_is_not_taken_for_what_a_model_was_trained_on(study, params):
    """Another data set was prepared since."""
    params["data"] |= {"source": {"name": "digits", "test_size": 30}, "train_size": 60, "validation_size": 20}
    data.prepare(validate(params).data, study / "artifacts" / "data")
    assert call("artifacts/train/sglr-0", "--output", "out").exit_code == 0
    card = (study / "out" / "README.md").read_text()
    assert "## Data\n\nNot on record: artifacts/data is not, or not known to be, the data that this model" in card
    assert "30 test" not in card
    assert "milestones" in card
    info = json.loads((study / "out" / "model_info.json").read_text())
    assert info["dataset"] is info["clean_acc"] is None


def test_results_of_earlier_weights_are_not_taken_for_those_of_these(study, params):
    """Trained again, not yet evaluated again: dvc.lock has new weights as outs, old ones as what was measured."""
    entry = yaml.safe_load((study / "dvc.lock").read_text())["stages"]["evaluate@sglr-0"]
    kind = {"num_classes": 10, "shape": (1, 8, 8), "channels": [4, 8], "hidden": 16}
    best = study / "artifacts" / "train" / "sglr-0" / "best"
    models.save(models.build("small_cnn", **kind, generator_seed=9), best, models.spec("small_cnn", **kind))
    write_lock(study, params)
    lock = yaml.safe_load((study / "dvc.lock").read_text())
    lock["stages"]["evaluate@sglr-0"] = entry
    (study / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert call("artifacts/train/sglr-0", "--output", "out").exit_code == 0
    card = (study / "out" / "README.md").read_text()
    assert "## Results\n\nNot evaluated, or not on record." in card
    assert "milestones" in card
    assert json.loads((study / "out" / "model_info.json").read_text())["clean_acc"] is None
    assert set(registering.tags_of(best, "digits", "sglr-0")) == {"experiment", "item", "checkpoint", "md5"}
    assert "test/natural" in registering.tags_of(best.parent / "last", "digits", "sglr-0")
    assert call("artifacts/train/sglr-0", "--output", "last", "--checkpoint", "last").exit_code == 0
    assert "| natural | 40 |" in (study / "last" / "README.md").read_text()


def test_what_dvc_does_not_look_at_changes_no_record(study):
    (study / "artifacts" / "train" / "sglr-0" / "best" / ".gitignore").write_text("/model.json\n")
    assert call("artifacts/train/sglr-0", "--output", "out").exit_code == 0
    assert "milestones" in (study / "out" / "README.md").read_text()


def test_a_model_from_elsewhere_keeps_its_origin(study):
    x = np.zeros((4, 1, 8, 8), dtype=np.uint8)
    np.savez("own.npz", x_test=x, y_test=np.arange(4))
    torch.save(models.build("small_cnn", num_classes=4, shape=(1, 8, 8), generator_seed=0).state_dict(), "author.pt")
    arguments = ["evaluate", "--weights", "author.pt", "--model", "small_cnn", "--npz", "own.npz", "--output", "found"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert call("found", "--output", "out").exit_code == 0
    assert (study / "out" / "found.py").is_file()
    card = (study / "out" / "README.md").read_text()
    assert "Trained elsewhere: `author.pt`" in card
    assert "| natural | 4 |" in card
    assert "Training data: not on record" in card


def test_the_weights_of_a_kept_epoch_are_known_and_not_evaluated(study):
    assert call("artifacts/train/sglr-0/checkpoints/10", "--output", "out").exit_code == 0
    card = (study / "out/README.md").read_text()
    assert (study / "out/sglr_0_10.py").is_file()
    assert "- weights as they were after epoch 10" in card
    assert "`train`: " in card
    assert "Training data: not on record" not in card
    assert "Not evaluated" in card


def test_without_validation_last_is_exported(study):
    best = study / "artifacts" / "train" / "sglr-0" / "best"
    for path in best.iterdir():
        path.unlink()
    assert call("artifacts/train/sglr-0", "--output", "out").exit_code == 0
    assert (study / "out" / "sglr_0_last.pt").is_file()
    result = call("artifacts/train/sglr-0", "--output", "out", "--checkpoint", "best")
    assert result.exit_code == 1
    assert "there is no best model" in result.output


def test_a_folder_that_holds_another_export_is_refused(study):
    arguments = ("artifacts/train/sglr-0", "--output", "out")
    assert call(*arguments).exit_code == 0
    before = files.digest(study / "out")
    for more, message in (
        (("--checkpoint", "last"), "out holds another model (sglr_0_best): name another folder with --output"),
        (("--checkpoint", "last", "--name", "sglr_0_best"), "out holds another model (sglr_0_best)"),
        (("--name", "mine"), "out holds an export by the name sglr_0_best"),
    ):
        result = call(*arguments, *more)
        assert (result.exit_code, message in result.output) == (1, True), result.output
        assert files.digest(study / "out") == before
    (study / "out" / "README.md").unlink()
    assert call(*arguments).exit_code == 0
    assert files.digest(study / "out") == before


@pytest.mark.parametrize("file", ["README.md", "model_info.json", "model.json", "sglr_0_best.py", "sglr_0_best.pt"])
@pytest.mark.parametrize("beside", ["nothing", "a copy of the model"])
def test_a_file_that_no_export_left_is_not_written_over(study, file, beside):
    if beside != "nothing":
        shutil.copytree(study / "artifacts" / "train" / "sglr-0" / "best", study / "out")
    (study / "out").mkdir(exist_ok=True)
    (study / "out" / file).write_text("mine")
    before = files.digest(study / "out")
    result = call("artifacts/train/sglr-0", "--output", "out")
    assert (result.exit_code, f"out/{file} would be overwritten" in result.output) == (1, True), result.output
    assert files.digest(study / "out") == before


def test_a_readme_beside_parts_of_an_export_is_not_taken_for_its_card(study):
    assert call("artifacts/train/sglr-0", "--output", "out").exit_code == 0
    (study / "out" / "model_info.json").unlink()
    (study / "out" / "README.md").write_text("mine")
    result = call("artifacts/train/sglr-0", "--output", "out")
    assert (result.exit_code, "out/README.md would be overwritten" in result.output) == (1, True), result.output


@pytest.mark.parametrize("left", range(7))
def test_an_interrupted_export_is_completed_and_renewed(study, left):
    """Killed after any file; with another evaluation on record by then, card and description change."""
    arguments = ("artifacts/train/sglr-0", "--output", "out")
    names = [study / line for line in call(*arguments).output.split()]
    for path in names[left:]:
        path.unlink()
    metrics = study / "artifacts" / "evaluate" / "sglr-0" / "metrics.json"
    files.write_json(metrics, files.read_json(metrics) | {"flags": ["a new doubt"]})
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    assert "a new doubt" in names[-1].read_text()


def test_no_other_checkpoint_is_written_over(study):
    before = files.digest(study / "artifacts")
    result = call("artifacts/train/sglr-0/best", "--output", "artifacts/train/sglr-0/last")
    assert (result.exit_code, "artifacts/train/sglr-0/last holds another model" in result.output) == (1, True)
    assert files.digest(study / "artifacts") == before


@pytest.mark.parametrize("name", ["torch", "class", "json", "a-b", "../x", "1a", "sglr", "numpy"])
def test_a_name_that_cannot_be_imported_is_refused(name, study):
    result = call("artifacts/train/sglr-0", "--output", "out", "--name", name)
    assert result.exit_code == 1
    assert "cannot name the Python file" in result.output
    assert not (study / "out").exists()


def test_a_file_beside_a_model_is_not_taken_for_it(study):
    trained = study / "artifacts" / "train" / "sglr-0"
    (trained / "best" / "mine.safetensors").write_bytes((trained / "last" / "model.safetensors").read_bytes())
    result = call("artifacts/train/sglr-0/best/mine.safetensors", "--output", "out")
    assert (result.exit_code, "there is no model in artifacts/train/sglr-0/best/mine" in result.output) == (1, True)


def test_nothing_to_export_is_said(study):
    result = call("artifacts/data", "--output", "out")
    assert result.exit_code == 1
    assert "there is no model in artifacts/data" in result.output
    result = call("artifacts/train/sglr-0/best", "--output", "artifacts/train/sglr-0/best")
    assert "is the folder of the checkpoint itself" in result.output


def of_cifar10(tmp_path: Path) -> Path:
    """A network on record as evaluated on CIFAR-10 under Linf, 8/255, exported as Mine2026Robust."""
    cifar(tmp_path).rename(tmp_path / "last")
    (tmp_path / "found" / "model").mkdir(parents=True)
    (tmp_path / "last").rename(tmp_path / "found" / "model" / "last")
    source = {
        "weights": {"file": "x.pt", "sha256": "0"}, "notes": [], "threat": {"norm": "linf", "eps_255": 8.0},
        "evaluate": {"attacks": {}}, "data": {"source": {"name": "cifar10"}, "sizes": {"test": 10000}},
    }  # fmt: skip
    files.write_json(tmp_path / "found" / "source.json", source)
    result = call(tmp_path / "found", "--output", tmp_path / "out", "--name", "Mine2026Robust")
    assert result.exit_code == 0, result.output
    return tmp_path / "out"


def correct_images(model, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random CIFAR-sized images with the classes the model sees in them."""
    x = torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return x, model(x).argmax(1)


class AutoAttackOfRobustbench:
    """The interface of the package autoattack that robustbench calls, on pyautoattack; one attack, to save time."""

    def __init__(self, model, norm, eps, version, device, log_path=None) -> None:
        from pyautoattack import AutoAttack

        self.runner = AutoAttack(model, norm=norm, eps=eps, version=version, device=device, seed=0)
        self.runner.attacks_to_run = ["apgd-ce"]

    def run_standard_evaluation(self, x, y, bs=250, state_path=None):
        return self.runner.run_standard_evaluation(x, y, batch_size=bs)[0]


def benchmark_as_documented(model, x, y, *, batch_size: int, eps: float) -> tuple[float, float]:
    """What robustbench.benchmark does with a model, in its order (version 1.1.1, robustbench/eval.py and utils.py)."""
    assert not model.training
    model = model.to(torch.device("cpu"))

    def clean_accuracy(images):
        right = 0.0
        with torch.no_grad():
            for part, labels in zip(images.split(batch_size), y.split(batch_size), strict=True):
                right += (model(part).max(1)[1] == labels).float().sum()
        return right.item() / len(images)

    adversary = AutoAttackOfRobustbench(model, norm="Linf", eps=eps, version="standard", device=torch.device("cpu"))
    return clean_accuracy(x), clean_accuracy(adversary.run_standard_evaluation(x, y, bs=batch_size))


def test_an_exported_model_takes_the_calls_of_robustbenchs_benchmark(tmp_path):
    """Its documented interface; the test below runs the function itself where robustbench is installed."""
    model = imported(of_cifar10(tmp_path) / "Mine2026Robust.py").load()
    x, y = correct_images(model, 6)
    assert benchmark_as_documented(model, x, y, batch_size=4, eps=1e-6) == (1.0, 1.0)
    assert benchmark_as_documented(model, x, y, batch_size=4, eps=0.5) == (1.0, 0.0)


def test_robustbenchs_own_benchmark_and_load_model(tmp_path, monkeypatch):
    """robustbench imports the package autoattack, which no registry has; pyautoattack stands in for it."""
    if importlib.util.find_spec("robustbench") is None:
        pytest.skip("robustbench is not installed")
    import pyautoattack.state

    stand_in = types.ModuleType("autoattack")
    stand_in.AutoAttack = AutoAttackOfRobustbench
    monkeypatch.setitem(sys.modules, "autoattack", stand_in)
    monkeypatch.setitem(sys.modules, "autoattack.state", pyautoattack.state)
    import robustbench
    import robustbench.eval as robustbench_eval

    exported = of_cifar10(tmp_path)
    module = imported(exported / "Mine2026Robust.py")
    module.register()
    zoo = tmp_path / "models" / "cifar10" / "Linf"
    zoo.mkdir(parents=True)
    (exported / "Mine2026Robust.pt").rename(zoo / "Mine2026Robust.pt")
    model = robustbench.load_model("Mine2026Robust", tmp_path / "models", dataset="cifar10", threat_model="Linf")
    original = models.load_model(tmp_path / "found" / "model" / "last")
    x, y = correct_images(original, 6)
    assert torch.equal(model(x), original(x))
    monkeypatch.setattr(robustbench_eval, "load_clean_dataset", lambda *_: (x, y))
    monkeypatch.chdir(tmp_path)
    for eps, robust in ((1e-6, 1.0), (0.5, 0.0)):
        found = robustbench.benchmark(
            model, 6, dataset="cifar10", threat_model="Linf", eps=eps, batch_size=4, model_name="Mine2026Robust",
            to_disk=True,
        )  # fmt: skip
        assert found == (1.0, robust)
    written = json.loads((tmp_path / "model_info" / "cifar10" / "Linf" / "Mine2026Robust.json").read_text())
    ours = json.loads((exported / "model_info.json").read_text())
    assert set(ours) <= set(written)
    assert type(robustbench.utils.ModelInfo(**ours)) is robustbench.utils.ModelInfo
