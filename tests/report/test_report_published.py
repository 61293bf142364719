"""Published figures beside ours: only where the setting is theirs, and with what differs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from sglr import config, files, presets, report
from sglr.report.published import published
from sglr.report.results import collect
from sglr.report.study import read


def preset(name: str) -> Callable[[dict], None]:
    """All of a preset that says how models are trained."""

    def change(params: dict) -> None:
        theirs = config.parse(presets.render(name))
        params |= {key: theirs[key] for key in ("data", "model", "threat", "warmup", "train")}
        params["methods"] |= theirs["methods"]
        if params["model"]["normalization"]:  # the made-up study's images have one channel
            params["model"]["normalization"] = {"mean": [0.5], "std": [0.5]}

    return change


cifar = preset("cifar10-resnet18-sglr")


def rows(make: Callable, change=cifar) -> list[dict]:
    study = read(*make(change=change))
    return published(study, collect(study)["accuracy"])


def test_ours_stand_beside_theirs_where_the_same_was_measured(make):
    found = {(row["method"], row["checkpoint"], row["metric"], row["source"][:6]): row for row in rows(make)}
    theirs = found["at", "last", "natural", "README"]
    assert theirs["published"] == pytest.approx(0.824)
    # Of the made-up study: 100 and 110 of 200 under PGD, 40 more without attack.
    assert theirs["ours"]["mean"] == pytest.approx((140 + 150) / 400)
    assert theirs["mismatch"] == ""
    robust = found["sglr", "last", "robust", "README"]
    assert robust["published"] == pytest.approx(0.559)
    assert "their attack is not stated (their code has PGD-10), ours is pgd20" in robust["mismatch"]
    auto = found["at", "last", "autoattack", "README"]
    assert auto["ours"] is not None
    assert ("Addepalli2022Efficient_RN18", None, "autoattack", "Robust") in found
    assert not any(row["method"].startswith("trades") for row in found.values()), "not listed here"


@pytest.mark.parametrize(
    ("change", "value"), [("data", {"source": {"name": "svhn"}}), ("threat", {"norm": "l2", "eps_255": 128.0})]
)
def test_another_setting_has_no_rows(make, change, value):
    def edit(params):
        cifar(params)
        params[change] |= value

    assert rows(make, edit) == []


def test_label_noise_has_no_rows(make):
    def edit(params):
        cifar(params)
        params["data"]["noise"] = {"kind": "symmetric", "rate": 0.3, "seed": 0}

    assert rows(make, edit) == []


def test_another_radius_is_said(make):
    def edit(params):
        cifar(params)
        params["threat"]["eps_255"] = 4.0

    assert all("eps 4/255 (8/255)" in row["mismatch"] for row in rows(make, edit))


def test_another_training_is_said(make):
    def edit(params):
        cifar(params)
        params["train"] |= {"epochs": 6, "keep_epochs": [], "attack": params["train"]["attack"] | {"steps": 1}}
        params["train"]["schedule"]["milestones"] = [3, 5]
        params["warmup"]["epochs"] = 0
        params["data"]["augment"] = {"crop_padding": 0, "flip": True}
        params["methods"]["sglr"]["labels"]["start_epoch"] = 3

    for row in rows(make, edit):
        leaderboard = row["mismatch"].startswith("another method")
        said = "epochs 6 (200), attack steps 1 (10), crop padding 0 (4), schedule milestones 3 and 5 (100 and 150)"
        assert (said in row["mismatch"]) == (not leaderboard)
        assert ("start epoch 3 (90)" in row["mismatch"]) == (row["method"] == "sglr")


def test_further_augmentation_is_said(make):
    def edit(params):
        cifar(params)
        params["data"]["augment"]["more"] = [{"name": "cutout", "size": 16}]

    found = [row["mismatch"] for row in rows(make, edit)]
    assert any("ours also augmented with cutout" in said for said in found)
    assert all(("also augmented" in said) != said.startswith("another method") for said in found)


def test_every_setting_that_they_state_is_compared(make):
    def edit(params):
        cifar(params)
        train, sglr = params["train"], params["methods"]["sglr"]
        train["optimizer"] = {"lr": 0.01, "momentum": 0.5, "nesterov": True, "weight_decay": 0.0}
        train["attack"] = {"steps": 10, "step_size_255": 0.5, "random_start": False}
        train |= {"batch_size": 1024, "schedule": {"name": "cosine"}, "attack_bn": "train", "precision": "bf16"}
        params["model"]["normalization"] = {"mean": [0.5], "std": [0.2]}
        sglr["labels"] |= {
            "alpha": 0.5, "adversarial_weight": 0.2, "refinement_ratio": 0.5, "ratio_schedule": "linear",
            "natural_bn": "eval",
        }  # fmt: skip
        sglr["weights"] = {"name": "ema", "start_epoch": 90}
        params["methods"]["at"]["labels"] = {"name": "smoothing", "smoothing": 0.5}
        params["data"]["train_size"] = 40_000
        params["warmup"] = {"objective": "standard", "epochs": 2, "lr": 0.05}

    found = {row["method"]: row["mismatch"] for row in rows(make, edit) if row["metric"] == "natural"}
    train = (
        "batch size 1024 (128), lr 0.01 (0.1), momentum 0.5 (0.9), nesterov yes (no), weight decay 0 (0.0005),"
        " schedule cosine (step), attack step size 0.5/255 (2/255), attack random start no (yes), {}normalization mean"
        " and std (none), attack bn train (eval), {}; ours trained on 40,000 of 50,000 images; ours begins after"
        " natural training (warmup.epochs 2), theirs from scratch; ours trained in bf16, theirs in float32"
    )
    labels = (
        "alpha 0.5 (0.9), adversarial weight 0.2 (0.8), refinement ratio 0.5 (1), ratio schedule linear (constant),"
        " natural bn eval (train)"
    )
    assert found["at"] == train.format("", "labels smoothing (hard)")
    assert found["sglr"] == train.format("weights ema (none), ", labels)


def test_a_method_is_compared_by_what_it_is_not_by_its_name(make):
    def edit(params):
        cifar(params)
        params["methods"]["at"] |= {"objective": "trades", "start": "initial"}

    found = [row["mismatch"] for row in rows(make, edit) if row["method"] == "at" and row["metric"] == "natural"]
    assert found == ["objective trades (at)"]


@pytest.mark.parametrize(
    ("name", "cut"),
    [("cifar10-preact18-overfitting", "49,000 of 50,000"), ("svhn-preact18", "72,257 of 73,257"),
     ("cifar10-l2", "49,000 of 50,000")],
)  # fmt: skip
def test_presets_of_rice_et_al_differ_in_what_no_key_can_change(make, name, cut):
    found = {(row["checkpoint"], row["metric"]): row["mismatch"] for row in rows(make, preset(name))}
    always = f"ours trained on {cut} images; their batch-norm statistics hold the attack's and natural images too"
    padded = "" if "svhn" in name else "; their crops are padded by reflection"
    assert found["last", "natural"] == always + padded
    assert found["best", "natural"] == f"{always}{padded}; their best epoch was chosen on the test set"


def test_what_they_do_not_state_is_said_and_not_compared(make):
    methods = ("at_smoothing", "trades", "trades_sglr")

    def edit(params):
        preset("cifar10-resnet18-study")(params)
        params["methods"]["trades"]["objective"]["beta"] = 1.0

    falling = {"best": (140, 150), "last": (100, 110)}
    study = read(*make(methods, correct=dict.fromkeys(methods, falling), change=edit))
    found = {row["method"]: row["mismatch"] for row in published(study, []) if row["checkpoint"] == "last"}
    assert {method: said.split("; ")[-1] for method, said in found.items()} == {
        "at_smoothing": "their smoothing is not stated",
        "trades": "their beta is not stated, nor whether attack and batch norm are as for their other methods",
        "trades_sglr": "their beta is not stated, nor whether attack and batch norm are as for their other methods",
    }
    assert not any("(" in said for said in found.values()), found


def test_every_stated_key_is_one_of_params_yaml(make):
    params = make(change=cifar)[0].model_dump(mode="json")

    def keys(tree: dict, prefix: str = "") -> set[str]:
        inner = {key for name, value in tree.items() if isinstance(value, dict) for key in keys(value, f"{name}.")}
        return {prefix + key for key in {*tree, *inner}}

    known = keys(params) | {key for method in params["methods"].values() for key in keys(method, "method.")}
    settings = yaml.safe_load(Path(report.__file__).with_name("published.yaml").read_text())["settings"]
    assert {key for setting in settings for key in setting.get("params", {})} <= known


def test_accuracy_on_training_images_stands_beside_theirs(make):
    found = {row["method"]: row for row in rows(make) if row["metric"] == "train_robust"}
    assert found.keys() == {"at", "sglr"}
    # The last epoch's train/pgd of the made-up study.
    assert found["at"]["ours"] == {"mean": pytest.approx(0.6), "deviation": pytest.approx(0)}
    assert found["at"]["published"] == pytest.approx(0.905)
    assert found["at"]["mismatch"] == "ours is of the last epoch's training batches, as they were attacked"


def test_accuracies_of_steps_with_other_weights_are_not_set_beside_theirs(make):
    def edit(params):
        cifar(params)
        params["methods"]["sglr"] |= {"weights": "awp", "start": "initial"}

    found = {row["method"]: row for row in rows(make, edit) if row["metric"] == "train_robust"}
    assert found["at"]["ours"] is not None
    assert found["sglr"]["ours"] is None
    assert "not measured here" in found["sglr"]["mismatch"]


def test_another_attack_is_not_theirs(make):
    def edit(params):
        cifar(params)
        params["model"] = {"name": "preact_resnet18"}
        params["evaluate"]["attacks"] = {"pgd20": {"name": "pgd", "steps": 10, **attack}}

    for attack in ({}, {"loss": "cw"}, {"restarts": 2}, {"step_size_255": 0.1}):
        found = [row for row in rows(make, edit) if row["metric"] == "pgd10"]
        assert found
        assert all((row["ours"] is not None) == (attack == {}) for row in found)


@pytest.mark.usefixtures("undrawn")
def test_they_reach_the_report(make, tmp_path: Path, written: Path):
    report.write(*make(change=cifar), tmp_path / "report")
    assert "Published accuracies" in (tmp_path / "report/index.html").read_text()
    assert len(files.read_rows(tmp_path / "report/tables/published.csv")) == len(rows(make))
    assert not (written / "tables/published.csv").exists()


def test_tables_are_given_as_latex(written: Path):
    for path in written.glob("tables/*.tex"):
        text = path.read_text()
        assert text.startswith("\\begin{table}[htbp]"), path
        assert "\\toprule" in text
        assert not {"−", "±", "–", "‘", "’"} & set(text), path
        bare = text.replace(r"\%", "").replace(r"\_", "").replace("tab:", "")
        assert "%" not in bare, path
        body = bare[bare.index("\\midrule") : bare.index("\\bottomrule")]
        counts = {line.count(" & ") for line in body.splitlines() if line.endswith("\\\\")}
        assert len(counts) == 1, path
    assert {path.stem for path in written.glob("tables/*.tex")} == {path.stem for path in written.glob("tables/*.csv")}
