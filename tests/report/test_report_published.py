"""Published figures beside ours: only where the setting is theirs, and with what differs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sglr import files, report
from sglr.report.published import published
from sglr.report.results import collect
from sglr.report.study import read


def cifar(params: dict) -> None:
    params["data"] |= {"source": {"name": "cifar10"}, "noise": {"kind": "none", "rate": 0.0, "seed": 0}}
    params["data"]["augment"] = {"crop_padding": 4, "flip": True}
    params["model"] = {"name": "resnet18"}
    params["threat"] = {"norm": "linf", "eps_255": 8.0}
    params["train"] |= {"epochs": 200}
    params["methods"]["sglr"]["labels"]["start_epoch"] = 90


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
    assert "their attack is not stated, ours is pgd20" in robust["mismatch"]
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

    assert all("our eps is 4/255, theirs 8/255" in row["mismatch"] for row in rows(make, edit))


def test_another_training_is_said(make):
    def edit(params):
        cifar(params)
        params["train"] |= {"epochs": 6, "attack": params["train"]["attack"] | {"steps": 1}}
        params["data"]["augment"] = {"crop_padding": 0, "flip": True}
        params["methods"]["sglr"]["labels"]["start_epoch"] = 3

    wanted = [
        "our training has 6 epochs, theirs 200", "our attack in training takes 1 steps, theirs 10",
        "ours without their random crops and flips",
    ]  # fmt: skip
    for row in rows(make, edit):
        said = row["mismatch"].split("; ")
        leaderboard = said[0] == "another method"
        assert [each in said for each in wanted] == [not leaderboard] * 3
        assert ("our labels change from epoch 3, theirs 90" in said) == (row["method"] == "sglr")


def test_another_attack_is_not_theirs(make):
    def edit(params):
        cifar(params)
        params["model"] = {"name": "preact_resnet18"}
        params["evaluate"]["attacks"] = {"pgd20": {"name": "pgd", "steps": 10, **attack}}

    for attack in ({}, {"loss": "cw"}, {"restarts": 2}):
        found = [row for row in rows(make, edit) if row["metric"] == "pgd10"]
        assert found
        assert all((row["ours"] is not None) == (attack == {}) for row in found)


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
