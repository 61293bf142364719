"""The audit of kept images: honest ones pass, and everything that is wrong with others is said."""

import shutil

import numpy as np
import pytest
import torch
from evaluation_study import CPU, Output, make

from sglr import evaluation, files, models
from sglr.config.reader import validate
from sglr.evaluation.suite import KEPT

ATTACKS = {"pgd5": {"name": "pgd", "steps": 5}, "apgd": {"name": "apgd", "steps": 5, "n_examples": 24}}


@pytest.fixture
def audited(params, tmp_path):
    """Config, data and artifacts of two methods with one seed, evaluated on 40 digits."""
    config, prepared, trained = make(params, tmp_path, attacks=ATTACKS)
    params["experiment"] |= {"methods": ["at", "sglr"], "seeds": [0]}
    config = validate(params)
    for method in config.experiment.methods:
        (tmp_path / "train-of").mkdir(exist_ok=True)
        folder = tmp_path / "artifacts/train" / f"{method}-0"
        for name in ("best", "last"):
            spec = files.read_json(trained / name / "model.json")
            description = {"num_classes": 10, "shape": prepared.shape}
            seed = {"at": 0, "sglr": 10}[method] + (name == "last")
            models.save(models.build(config.model, **description, generator_seed=seed), folder / name, spec)
        result = evaluation.evaluate(config, prepared, folder, device=CPU)
        evaluation.write(result, tmp_path / "artifacts/evaluate" / f"{method}-0")
    return config, prepared, tmp_path / "artifacts"


def change(artifacts, edit, item="at-0"):
    path = artifacts / "evaluate" / item / "worst.npz"
    arrays = files.read_arrays(path)
    edit(arrays)
    files.write_arrays(path, arrays)


def test_kept_images_are_the_worst_case(audited):
    config, data, artifacts = audited
    outcomes = files.read_arrays(artifacts / "evaluate/at-0/outcomes.npz")
    worst = files.read_arrays(artifacts / "evaluate/at-0/worst.npz")
    every = outcomes["last/natural"] & outcomes["last/pgd5"]
    every[:24] &= outcomes["last/apgd"]
    np.testing.assert_array_equal(worst["last/correct"], every)
    assert len(every) == 40 < KEPT
    model, test = models.load_model(artifacts / "train/at-0/last"), data.test()
    images = torch.from_numpy(worst["last/images"])
    np.testing.assert_array_equal((model(images).argmax(1) == test.true[:40]).numpy(), every)
    assert float((images - test.images(slice(0, 40))).abs().max()) <= config.threat.eps_255 / 255 + 1e-6


def test_honest_images_pass(audited, tmp_path):
    result = evaluation.audit(*audited, device=CPU)
    assert result.flags == []
    assert set(result.items) == {"at-0", "sglr-0"}
    for found in result.items.values():
        for checkpoint in ("best", "last"):
            assert found[checkpoint]["examples"] == 40
            assert found[checkpoint]["differing"] == 0
            assert found[checkpoint]["with_transfer"] <= found[checkpoint]["worst"]
    own = [row for row in result.transfer if row["model"] == row["images_of"]]
    assert len(own) == 4
    assert len(result.transfer) == 8
    assert all(row["accuracy"] == result.items[f"{row['model']}-0"][row["checkpoint"]]["worst"] for row in own)
    for row in result.transfer:
        if row["model"] == row["images_of"]:
            assert (row["broken_by_these_only"], row["broken_by_own_only"]) == (0, 0)
        else:
            # What only these images break is taken off the share "worst", what only its own break is put on.
            change = (row["broken_by_own_only"] - row["broken_by_these_only"]) / 40
            worst = result.items[f"{row['model']}-0"][row["checkpoint"]]["worst"]
            assert row["accuracy"] == pytest.approx(worst + change)
    evaluation.write_audit(result, tmp_path / "out")
    assert files.read_json(tmp_path / "out/metrics.json")["flags"] == []
    assert files.read_rows(tmp_path / "out/transfer.csv") == result.transfer


def test_images_scored_otherwise_are_a_flag(audited):
    def turn(arrays):
        arrays["last/correct"][:3] = ~arrays["last/correct"][:3]
        arrays["last/margin"][:3] = 1.0
        arrays["last/margin"][2] = 1e-4  # a tie: no flag, but counted

    change(audited[2], turn)
    result = evaluation.audit(*audited, device=CPU)
    assert "at-0/last: 2 of 40 worst-case images are scored otherwise in a new process" in result.flags
    assert result.items["at-0"]["last"]["differing"] == 3


def test_images_outside_the_ball_are_a_flag(audited):
    def move(arrays):
        arrays["best/images"][5] = 1 - arrays["best/images"][5]

    change(audited[2], move)
    assert any(
        "at-0/best: worst-case images: 1 of 40 perturbations" in flag
        for flag in evaluation.audit(*audited, device=CPU).flags
    )


def test_images_of_another_method_that_break_more_are_a_flag(audited, monkeypatch):
    """Two equal models; what is said to be the second one's worst case are images that no attack touched."""
    config, data, artifacts = audited
    x, y = data.test().images(slice(0, 40)), data.test().true[:40]
    model = Output()
    target = torch.nn.functional.one_hot(y, 10).float()
    model.weight.data = torch.linalg.lstsq(x.flatten(1) - 0.5, target, driver="gelsd").solution
    monkeypatch.setattr(models, "load_model", lambda path: model.eval())
    evaluation.write(
        evaluation.evaluate(config, data, artifacts / "train/at-0", device=CPU), artifacts / "evaluate/at-0"
    )

    def untouched(arrays):
        for checkpoint in ("best", "last"):
            arrays |= {f"{checkpoint}/images": x.numpy(), f"{checkpoint}/correct": np.ones(40, dtype=bool)}
            arrays[f"{checkpoint}/margin"] = np.full(40, -1, dtype=np.float32)

    change(artifacts, untouched, "sglr-0")
    found = evaluation.audit(config, data, artifacts, device=CPU)
    assert len(found.flags) == 2
    for checkpoint, flag in zip(("best", "last"), found.flags, strict=True):
        assert flag.startswith(f"sglr-0/{checkpoint}: what was made for at breaks")
        numbers = found.items["sglr-0"][checkpoint]
        assert numbers["worst"] == 1
        assert numbers["with_transfer"] == found.items["at-0"][checkpoint]["worst"] < 0.5


SHAPES = {
    "smaller images": {"images": np.zeros((40, 1, 7, 8), dtype=np.float32)},
    "fewer margins": {"margin": np.zeros(39, dtype=np.float32)},
    "margins without images": {"images": np.zeros((0, 1, 8, 8), dtype=np.float32), "correct": np.zeros(0, dtype=bool)},
    "columns": {"correct": np.zeros((40, 1), dtype=bool), "margin": np.zeros((40, 1), dtype=np.float32)},
    "one number": {"correct": np.array(True)},
}


@pytest.mark.parametrize("damage", ["missing", "no checkpoint", *SHAPES])
def test_files_that_do_not_go_together(audited, damage):
    def edit(arrays):
        if damage == "no checkpoint":
            del arrays["last/margin"]
        else:
            arrays |= {f"last/{name}": value for name, value in SHAPES[damage].items()}

    if damage == "missing":
        (audited[2] / "evaluate/at-0/worst.npz").unlink()
    else:
        change(audited[2], edit)
    with pytest.raises(files.FileError, match=r"at-0.worst\.npz"):
        evaluation.audit(*audited, device=CPU)


def test_a_training_that_is_not_there_is_named(audited):
    shutil.rmtree(audited[2] / "train" / "sglr-0")
    with pytest.raises(files.FileError, match=r"sglr-0.best is not there"):
        evaluation.audit(*audited, device=CPU)


def test_only_near_ties_may_be_scored_otherwise(audited):
    def edit(arrays):
        arrays["last/correct"][:2] ^= True
        arrays["last/margin"][:2] = (0.0009, -0.0011)

    change(audited[2], edit)
    flags = evaluation.audit(*audited, device=CPU).flags
    assert "at-0/last: 1 of 40 worst-case images are scored otherwise in a new process" in flags


def test_more_images_than_the_test_split_has_are_refused(audited):
    size = audited[1].meta["sizes"]["test"]

    def edit(arrays):
        for name in ("images", "correct", "margin"):
            value = arrays[f"last/{name}"]
            arrays[f"last/{name}"] = np.resize(value, (size + 1, *value.shape[1:]))

    change(audited[2], edit)
    with pytest.raises(files.FileError, match=r"worst\.npz does not go with the data"):
        evaluation.audit(*audited, device=CPU)
