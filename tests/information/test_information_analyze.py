import csv
import json
import math
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerator import DEVICE, accelerator
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.metrics import log_loss
from torch.nn import functional as F

from sglr import data, files, models, objectives, threat
from sglr.attacks import pgd
from sglr.config import Config, parse
from sglr.config.reader import validate
from sglr.data import Split
from sglr.files import FileError, load_state, read_rows, save_state, write_json, write_rows
from sglr.information import activations, analyze, write
from sglr.information.analyze import TABLES
from sglr.information.analyzed_run import _checkpoints
from sglr.information.hessian import largest_eigenvalue
from sglr.information.memorization import ACCURACIES
from sglr.information.on_training import _differentiable_twice
from sglr.training.items import initial_model

CPU = torch.device("cpu")
SEED, METHOD = 3, "sglr"
KINDS = ("natural", "adversarial")
REFINEMENT = {"name": "refinement", "start_epoch": 2, "refinement_ratio": 0.8}


def small(params: dict, rate: float = 0.3, labels: dict = REFINEMENT) -> Config:
    params["methods"][METHOD]["labels"] = labels
    params["data"] |= {"source": {"name": "digits", "test_size": 150}, "train_size": 80, "validation_size": 20}
    params["data"]["noise"] |= {"kind": "symmetric" if rate else "none", "rate": rate}
    params["model"] = {"name": "small_cnn", "channels": [4, 8], "hidden": 16, "normalization": None}
    params["train"] |= {"batch_size": 20}
    params["analyze"] = {
        "n_examples": 60, "batch_size": 25, "seed": 0, "ece_bins": 10, "probe": {"folds": 3, "l2": 1.0},
        "index_noise": [0.3, 1.0], "gradients": {"n_examples": 30, "chunk": 20},
        "sharpness": {"n_examples": 20, "iterations": 5, "radius": 0.5, "points": 3},
        "attack": {"steps": 2, "step_size_255": 12.75, "random_start": True},
    }  # fmt: skip
    return validate(params)


def trained_folder(config: Config, prepared: data.Prepared, folder):
    """A training folder as the train stage leaves it, around two untrained models with lively batch norm."""
    train = prepared.train(SEED)
    shape = {"num_classes": 10, "shape": prepared.shape}
    for number, name in enumerate(("best", "last")):
        model = models.build(config.model, generator_seed=number, **shape)
        with torch.no_grad():
            for _ in range(5):
                model(train.images())
            model.head.weight.mul_(4)
        models.save(model, folder / name, models.spec(config.model, **shape))
    measured = [key for key in ACCURACIES if train.noisy.any() or not key.startswith("noisy")]
    rows = [
        {"phase": "train", "epoch": epoch, **{key: epoch / 10 + ACCURACIES.index(key) / 100 for key in measured}}
        for epoch in (1, 2, 3)
    ]
    write_rows(folder / "history.csv", rows)
    write_json(folder / "metrics.json", {"best_epoch": 2, "epochs": 3})
    guess = F.one_hot(train.true.roll(1), 10).float()
    p = 0.5 * F.one_hot(train.true, 10) + 0.3 * guess + 0.2 / 10
    np.savez(folder / "labels.npz", p=p.numpy(), given=train.given.numpy(), true=train.true.numpy())
    states = {name: {"p": refined(train, epoch), "epoch": epoch} for name, epoch in (("best", 2), ("last", 3))}
    save_state(folder / "labels.state", states)
    return folder


def refined(train, epoch: int) -> torch.Tensor:
    """Some refined labels."""
    return 0.5 * F.one_hot(train.true, 10) + 0.3 * F.one_hot((train.true + epoch) % 10, 10) + 0.2 / 10


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(config, prepared data, training folder, result), made once; tests that change the folder copy it."""
    torch.set_num_threads(1)  # as the tests themselves: the last bits depend on it
    config = small(parse((Path(__file__).parents[2] / "params.yaml").read_text()))
    root = tmp_path_factory.mktemp("analysis")
    data.prepare(config.data, root / "data")
    prepared = data.open_folder(root / "data")
    folder = trained_folder(config, prepared, root / "train")
    return config, prepared, folder, analyze(config, prepared, folder, METHOD, SEED, CPU)


@pytest.fixture
def copied(made, tmp_path):
    config, prepared, folder, _ = made
    shutil.copytree(folder, tmp_path / "train")
    return config, prepared, tmp_path / "train"


def test_numbers_on_test_images_against_an_independent_computation(made):
    _, prepared, folder, result = made
    test = prepared.test()
    with torch.no_grad():
        logits = models.load_model(folder / "last")(test.images(slice(0, 60))).double()
    probs, y = logits.softmax(1).numpy(), test.true[:60].numpy()
    found = result["last"]
    assert found["natural/nll"] == pytest.approx(log_loss(y, probs, labels=range(10)), abs=1e-6)
    assert found["natural/entropy"] == pytest.approx(-(probs * np.log(probs)).sum(1).mean(), abs=1e-6)
    assert found["natural/brier"] == pytest.approx(((probs - np.eye(10)[y]) ** 2).sum(1).mean(), abs=1e-6)
    assert found["adversarial/nll"] > found["natural/nll"]
    assert result["best"]["natural/nll"] != found["natural/nll"]


def test_the_temperature_is_fitted_on_the_validation_labels_that_are_given(made, tmp_path):
    """By SciPy's search; untrained networks suit the one labels as badly as the other, but not alike."""
    config, _, folder, _ = made
    noisy = config.model_copy(update={"data": config.data.model_copy(update={"noisy_validation": True})})
    data.prepare(noisy.data, tmp_path / "data")
    prepared = data.open_folder(tmp_path / "data")
    validation = prepared.validation(SEED)
    assert validation.noisy.any()
    found = analyze(noisy, prepared, folder, METHOD, SEED, CPU)["last"]["temperature"]
    with torch.no_grad():
        logits = models.load_model(folder / "last")(validation.images()).double().numpy()

    def nll(labels: torch.Tensor, log_t: float) -> float:
        scaled = logits / np.exp(log_t)
        return log_loss(labels, np.exp(scaled - logsumexp(scaled, axis=1, keepdims=True)), labels=range(10))

    given, true = (
        np.exp(minimize_scalar(partial(nll, labels), bounds=(-6, 6), method="bounded", options={"xatol": 1e-9}).x)
        for labels in (validation.given, validation.true)
    )
    assert found == pytest.approx(given, rel=1e-3)
    assert abs(given - true) > 0.01 * given


def test_the_attack_starts_where_it_is_told_to(made):
    """Without a random start it is the plain ascent from the image."""
    config, prepared, folder, _ = made
    model, test = models.load_model(folder / "last").eval(), prepared.test()
    index = torch.arange(6)
    seen = []
    for random_start in (True, False):
        attack = config.analyze.attack.model_copy(update={"random_start": random_start})
        chosen = config.model_copy(update={"analyze": config.analyze.model_copy(update={"attack": attack})})
        found = activations.observe(model, test, index, test.true[index], chosen, purpose="analyze test", keep=6)
        seen.append(found["adversarial"].images)
    ball = threat.of(config.threat)
    plain = pgd(
        model, test.images(index), test.true[index], threat=ball, steps=2, step_size=12.75 / 255, random_start=False
    )
    assert torch.equal(seen[1], plain)
    assert not torch.equal(seen[0], plain)


def test_calibration_table_accounts_for_the_reported_error(made):
    *_, result = made
    for checkpoint in ("best", "last"):
        for kind in KINDS:
            wanted = {"checkpoint": checkpoint, "input": kind, "scaled": 0}
            chosen = [row for row in result["tables"]["calibration"] if row.items() >= wanted.items()]
            assert len(chosen) == 10
            assert sum(row["count"] for row in chosen) == 60
            error = sum(row["count"] * abs(row["accuracy"] - row["confidence"]) for row in chosen if row["count"]) / 60
            assert result[checkpoint][f"{kind}/ece"] == pytest.approx(error, abs=1e-12)
    refined = [row for row in result["tables"]["calibration"] if row["input"] == "refined" and row["count"]]
    assert {(row["checkpoint"], row["scaled"]) for row in refined} == {("last", 0)}
    assert sum(row["count"] for row in refined) == 80
    error = sum(row["count"] * abs(row["accuracy"] - row["confidence"]) for row in refined) / 80
    assert result["run"]["refined/ece"] == pytest.approx(error, abs=1e-12)


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_gradients_against_autograd_with_the_targets_of_each_checkpoint(made, checkpoint):
    _, prepared, folder, result = made
    train, model = prepared.train(SEED), models.load_model(folder / checkpoint).double()
    targets = 0.8 * refined(train, {"best": 2, "last": 3}[checkpoint]) + 0.2 * F.one_hot(train.given, 10)
    rows = [row for row in result["tables"]["gradients"] if row["checkpoint"] == checkpoint]
    assert len(rows) == len({row["index"] for row in rows}) == 60
    against_given = []
    for row in rows:
        i = row["index"]
        expected = []
        for target in (targets[i], F.one_hot(train.given[i], 10)):
            loss = -(target.double() * model(train.images([i]).double())[0].log_softmax(0)).sum()
            gradients = torch.autograd.grad(loss, list(model.head.parameters()))
            expected.append(torch.cat([gradient.flatten() for gradient in gradients]).norm().item())
        assert row["natural"] == pytest.approx(expected[0], rel=1e-4)  # the network ran in float32
        assert row["noisy"] == int(train.noisy[i])
        against_given.append(expected[1])
    noisy = np.array([row["noisy"] for row in rows], dtype=bool)
    found = result[checkpoint]["gradient/natural/given/noisy"]
    assert found == pytest.approx(np.array(against_given)[noisy].mean(), rel=1e-4)
    assert found > 1.01 * result[checkpoint]["gradient/natural/noisy"]
    for kind in KINDS:
        norms = np.array([row[kind] for row in rows])
        found = {key: result[checkpoint][f"gradient/{kind}/{key}"] for key in ("noisy", "clean", "noisy_share")}
        assert found["noisy"] == pytest.approx(norms[noisy].mean())
        assert found["clean"] == pytest.approx(norms[~noisy].mean())
        assert found["noisy_share"] == pytest.approx(norms[noisy].sum() / norms.sum())


def test_memorisation_is_that_of_the_checkpoints_epoch(made):
    *_, result = made
    assert result["best"]["noisy/natural_given"] == 0.2
    assert result["last"]["clean/pgd"] == 0.35
    assert [row["epoch"] for row in result["tables"]["memorization"]] == [1, 2, 3]


def test_refined_labels_by_hand(made):
    # Every target is 0.52 on the true class, or 0.82 where the other guess is the same class: all noise is recovered.
    _, prepared, _, result = made
    train = prepared.train(SEED)
    same = (train.true.roll(1) == train.true).numpy()
    found = result["run"]
    assert found["refined/recovered"] == 1
    assert found["refined/corrupted"] == 0
    # Wilson's interval of no cases in n is [0, z^2 / (n + z^2)]; a bootstrap's has no width.
    clean, z = int((~train.noisy).sum()), norm.ppf(0.975)
    bounds = result["interval"]["run"]["refined/corrupted"]
    assert (bounds["low"], bounds["high"]) == (0, pytest.approx(z**2 / (clean + z**2)))
    assert found["refined/nll"] == pytest.approx(-np.where(same, np.log(0.82), np.log(0.52)).mean(), abs=1e-6)
    shares = np.bincount(train.true) / len(train)
    assert found["refined/information"] == pytest.approx(-(shares * np.log(shares)).sum(), abs=1e-9)
    assert 0 < found["given/channel_information"] < found["given/information"] < found["refined/information"]
    assert result["n_examples"] == {
        "test": 60, "train": 60, "train_noisy": sum(r["noisy"] for r in result["tables"]["gradients"]) // 2,
        "labels": 80, "labels_noisy": int(train.noisy.sum()),
    }  # fmt: skip


def test_intervals_stand_beside_the_means_and_hold_them(made):
    *_, result = made
    for part in ("best", "last", "run"):
        for name, bounds in result["interval"][part].items():
            if name.endswith(("ece", "ece_scaled")) or name in ("refined/information", "given/information"):
                continue  # biased upwards: the interval makes up for it, and may lie below the estimate
            assert bounds["low"] <= result[part][name] <= bounds["high"]
    expected = {f"{kind}/{name}" for kind in KINDS for name in ("entropy", "nll", "brier", "information")}
    assert expected <= set(result["interval"]["last"])
    assert result["last"]["natural/information"] < result["run"]["labels/entropy"]


def test_the_first_examples_of_those_drawn_are_drawn_too(made):
    *_, result = made
    rows = [row["index"] for row in result["tables"]["gradients"] if row["checkpoint"] == "last"]
    assert len(set(rows)) == len(rows) == 60
    assert rows != sorted(rows)


def test_files_are_the_same_bytes_again(made, tmp_path):
    config, prepared, folder, result = made
    write(result, tmp_path / "one")
    write(analyze(config, prepared, folder, METHOD, SEED, CPU), tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted([*(f"{table}.csv" for table in TABLES), "metrics.json", "notes.json"])
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    metrics = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert metrics["last"] == result["last"]
    assert json.loads((tmp_path / "one" / "notes.json").read_text()) == result["notes"]
    assert set(metrics) == {"best", "last", "run", "interval", "n_examples"}
    with (tmp_path / "one" / "gradients.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["checkpoint", "epoch", "index", "noisy", "natural", "adversarial"]
    assert len(rows) == 120


def test_without_a_validation_split_there_is_no_best(copied):
    config, prepared, folder = copied
    shutil.rmtree(folder / "best")
    (folder / "best").mkdir()
    write_json(folder / "metrics.json", {"best_epoch": None, "epochs": 3})
    result = analyze(config, prepared, folder, METHOD, SEED, CPU)
    assert "best" not in result
    assert "best" not in result["interval"]
    assert "no best checkpoint" in result["notes"]["best"]


def test_hard_labels_have_no_finite_likelihood_of_the_truth(copied):
    config, prepared, folder = copied
    stored = dict(np.load(folder / "labels.npz"))
    np.savez(folder / "labels.npz", **stored | {"p": np.eye(10, dtype=np.float32)[stored["given"]]})
    result = analyze(config, prepared, folder, METHOD, SEED, CPU)
    assert "refined/nll" not in result["run"]
    assert "infinite" in result["notes"]["refined/nll"]
    assert result["run"]["refined/recovered"] == 0
    assert result["run"]["refined/entropy"] == 0
    assert result["run"]["refined/information"] == result["run"]["given/information"]


def test_without_injected_noise_its_quantities_are_absent_with_the_reason(params, tmp_path):
    config = small(params, rate=0.0)
    data.prepare(config.data, tmp_path / "data")
    prepared = data.open_folder(tmp_path / "data")
    result = analyze(config, prepared, trained_folder(config, prepared, tmp_path / "train"), METHOD, SEED, CPU)
    keys = {key for part in ("best", "last", "run") for key in result[part]}
    assert not [key for key in keys if "noisy" in key or "recovered" in key or "label_information" in key]
    assert "label_information" not in result["notes"]
    assert {"gradient/natural/clean", "clean/natural", "refined/corrupted"} <= keys
    assert "noise kind none" in result["notes"]["noise"]
    assert "noisy/pgd_given" not in result["tables"]["memorization"][0]


def test_of_wrong_labels_that_come_with_the_data_no_entropy_is_known(params, tmp_path):
    small(params, rate=0.0)
    digits = data.REGISTRY.options("digits", test_size=150).read(None)
    given = np.where(np.arange(len(digits.y_train)) % 4 == 0, (digits.y_train + 1) % 10, digits.y_train)
    arrays = {name: getattr(digits, name) for name in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(tmp_path / "own.npz", **arrays, given_train=given)
    params["data"]["source"] = {"name": "npz", "path": str(tmp_path / "own.npz")}
    config = validate(params)
    data.prepare(config.data, tmp_path / "data")
    prepared = data.open_folder(tmp_path / "data")
    result = analyze(config, prepared, trained_folder(config, prepared, tmp_path / "train"), METHOD, SEED, CPU)
    assert {"gradient/natural/noisy", "noisy/natural_given"} <= set(result["last"])
    assert "refined/recovered" in result["run"]
    assert not [key for key in result["last"] if "label_information" in key]
    assert "come with the data" in result["notes"]["noise"]


def test_too_small_a_sample_leaves_out_the_probe_with_the_reason(copied):
    config, prepared, folder = copied
    tiny = config.model_copy(update={"analyze": config.analyze.model_copy(update={"n_examples": 6})})
    result = analyze(tiny, prepared, folder, METHOD, SEED, CPU)
    assert "natural/information" not in result["last"]
    assert "Left out here: a probe in 3 folds" in result["notes"]["probe"]
    assert "natural/entropy" in result["last"]


def test_labels_of_other_data_are_refused(made):
    config, prepared, folder, _ = made
    with pytest.raises(FileError, match=r"labels\.npz: the given labels are not those"):
        analyze(config, prepared, folder, METHOD, SEED + 1, CPU)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels.npz", b"PK\x03\x04 cut short", "labels.npz"),
        ("labels.npz", None, "labels.npz"),
        ("labels.state", b"cut short", "labels.state"),
        ("labels.state", None, "labels.state"),
        ("history.csv", b"phase,epoch\ntrain,1\n", "no row for epoch"),
        ("history.csv", None, "history.csv"),
        ("metrics.json", b"[]", "metrics.json must give epochs"),
        ("last/model.safetensors", b"no weights", "model.safetensors"),
    ],
)
def test_missing_and_damaged_files_are_named(copied, name, content, message):
    config, prepared, folder = copied
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(FileError, match=message):
        analyze(config, prepared, folder, METHOD, SEED, CPU)


def test_labels_that_no_state_tells_are_named(started):
    config, prepared, folder, _ = started
    states = load_state(folder / "labels.state")
    for wrong in (
        {"best": states["best"], "last": states["last"]},
        states | {"3": {"p": torch.ones(79, 10), "epoch": 3}},
    ):
        save_state(folder / "labels.state", wrong)
        with pytest.raises(FileError, match=r"labels\.state does not say what the labels were at epoch-3"):
            analyze(config, prepared, folder, METHOD, SEED, CPU)


def test_the_whole_loss_is_cross_entropy_for_refinement_and_more_for_ensembling(made, params):
    _, prepared, folder, result = made
    for checkpoint in ("best", "last"):
        for group in ("clean", "noisy"):
            found = result[checkpoint]
            assert found[f"full_gradient/objective/{group}"] == found[f"full_gradient/adversarial/{group}"]
    ensembling = small(params, labels={"name": "ensembling", "start_epoch": 1, "ramp_epochs": 1})
    found = analyze(ensembling, prepared, folder, METHOD, SEED, CPU)["last"]
    assert found["full_gradient/adversarial/clean"] != result["last"]["full_gradient/adversarial/clean"]
    assert found["full_gradient/objective/clean"] > 2 * found["full_gradient/adversarial/clean"]


@pytest.mark.parametrize("change", [{"p": np.ones((80, 10))}, {"given": np.full(80, 10)}, {"true": np.zeros(79, int)}])
def test_targets_that_are_none_are_refused(copied, change):
    config, prepared, folder = copied
    np.savez(folder / "labels.npz", **dict(np.load(folder / "labels.npz")) | change)
    with pytest.raises(FileError, match=r"cannot use .*labels\.npz"):
        analyze(config, prepared, folder, METHOD, SEED, CPU)


@pytest.fixture
def started(copied):
    """As ``copied``, with the weights training began with and a kept epoch; (config, data, folder, warm-up model)."""
    config, prepared, folder = copied
    shape = {"num_classes": 10, "shape": prepared.shape}
    for seed, path in ((7, folder.parent / "start"), (8, folder / "checkpoints" / "3")):
        models.save(models.build(config.model, generator_seed=seed, **shape), path, models.spec(config.model, **shape))
    states = load_state(folder / "labels.state")
    save_state(folder / "labels.state", states | {"3": states["last"]})
    return config, prepared, folder, folder.parent / "start"


def with_start(folder):
    """Put the warm-up's last row before the history."""
    rows = read_rows(folder / "history.csv")
    write_rows(folder / "history.csv", [dict.fromkeys(rows[0]) | {"phase": "warmup", "epoch": 0}, *rows])


def test_every_checkpoint_has_all_quantities(started):
    config, prepared, folder, start = started
    with_start(folder)
    result = analyze(config, prepared, folder, METHOD, SEED, CPU, warmup=start)
    found = {}
    for row in result["tables"]["quantities"]:
        found.setdefault((row["checkpoint"], row["epoch"]), {})[row["quantity"]] = row
    assert list(found) == [("start", 0), ("epoch-3", 3), ("best", 2), ("last", 3)]
    measured = {name for name in found["last", 3] if not name.startswith(("noisy/", "clean/"))}
    # Until the policy refines, its targets are the given labels.
    measured -= {name for name in measured if "/given/" in name} - set(found["start", 0])
    for quantities in found.values():
        assert measured <= set(quantities)
        assert quantities["natural/nll"]["n"] == 60
        assert quantities["label_information/bound"]["n"] == 80
        assert quantities["sharpness/natural"]["low"] <= quantities["sharpness/natural"]["value"]
    assert found["start", 0]["weights/information"]["value"] == 0
    assert "had seen the same data in warm-up" in result["notes"]["weights"]
    assert found["last", 3]["weights/information"]["value"] > 0
    layers = {row["layer"] for row in result["tables"]["weights"]}
    assert {"total", "head"} < layers
    walked = {(row["checkpoint"], row["radius"]) for row in result["tables"]["landscape"]}
    assert walked >= {("last", 0.0), ("start", -0.5)}
    noises = [row["noise"] for row in result["tables"]["index_information"] if row["checkpoint"] == "last"]
    assert noises == [0.3, 1.0] * 2


def test_label_information_against_an_independent_computation(made):
    _, prepared, folder, result = made
    train = prepared.train(SEED)
    with torch.no_grad():
        nll = F.cross_entropy(models.load_model(folder / "last")(train.images()).double(), train.given).item()
    rate = 0.27  # of redrawn labels 3 in 10, of which a tenth stay what they were
    entropy = -rate * np.log(rate) - (1 - rate) * np.log(1 - rate) + rate * np.log(9)
    found = result["last"]["label_information/noise_entropy"]
    # 24 of 80 labels are redrawn, not each by itself: the number m of changed ones has variance 2.16 instead of 15.8,
    # which takes log(15.8 / 2.16) / 2 off its entropy and gives back 13.6 / 2 (1/21.6 + 1/58.4) for where they are.
    assert found == pytest.approx(entropy - (0.994 - 0.431) / 80, abs=0.002)
    assert result["last"]["label_information/bound"] == pytest.approx(found - nll, abs=1e-6)


def test_the_headlines_noise_is_the_middle_one_in_whatever_order_they_stand(copied):
    config, prepared, folder = copied
    mixed = config.analyze.model_copy(update={"index_noise": (1.0, 0.1, 0.3), "sharpness": None})
    result = analyze(config.model_copy(update={"analyze": mixed}), prepared, folder, METHOD, SEED, CPU)
    rows = [row for row in result["tables"]["index_information"] if row["checkpoint"] == "last"]
    (middle,) = (row for row in rows if (row["input"], row["noise"]) == ("natural", 0.3))
    assert result["last"]["natural/index_information/lower"] == pytest.approx(middle["lower"], abs=1e-12)


def test_a_start_of_another_architecture_is_named(started):
    config, prepared, folder, start = started
    shape = {"num_classes": 10, "shape": prepared.shape}
    wider = {"channels": [4, 8], "hidden": 24}
    shutil.rmtree(start)
    models.save(models.build("small_cnn", **wider, **shape), start, models.spec("small_cnn", **wider, **shape))
    with_start(folder)
    with pytest.raises(FileError, match=r"does not continue .*start: the weights .* are"):
        analyze(config, prepared, folder, METHOD, SEED, CPU, warmup=start)


def test_without_the_start_the_information_in_weights_is_absent_with_the_reason(made):
    *_, result = made
    assert "weights/information" not in result["last"]
    assert "Left out" in result["notes"]["weights"]
    assert result["tables"]["weights"] == []


def test_a_start_without_warm_up_has_no_row_in_the_history(started):
    config, prepared, folder, start = started
    config = config.model_copy(update={"warmup": config.warmup.model_copy(update={"epochs": 0})})
    result = analyze(config, prepared, folder, METHOD, SEED, CPU, warmup=start)
    assert "initial weights, which saw no data" in result["notes"]["weights"]
    assert "warm-up" not in result["notes"]["weights"]
    found = {row["quantity"] for row in result["tables"]["quantities"] if row["checkpoint"] == "start"}
    assert "natural/nll" in found
    assert not [name for name in found if name.startswith(("noisy/", "clean/"))]


def test_initial_weights_are_built_again_and_are_what_a_run_begins_with(started, tmp_path):
    config, prepared, folder, start = started
    method = config.methods[METHOD].model_copy(update={"start": "initial"})
    config = config.model_copy(update={"methods": config.methods | {METHOD: method}})
    result = analyze(config, prepared, folder, METHOD, SEED, CPU, warmup=start)
    begun = initial_model(config, SEED, prepared, CPU).state_dict()
    last = models.load_model(folder / "last").state_dict()
    names = [name for name, _ in models.load_model(folder / "last").named_parameters()]
    length = math.sqrt(sum(float(((last[name] - begun[name]) ** 2).sum()) for name in names))
    assert result["last"]["weights/distance"] == pytest.approx(length, rel=1e-5)
    assert "initial weights, which saw no data" in result["notes"]["weights"]
    (distance,) = [
        row["value"] for row in result["tables"]["quantities"]
        if (row["checkpoint"], row["quantity"]) == ("start", "weights/distance")
    ]  # fmt: skip
    assert distance == 0


@pytest.mark.slow
def test_it_finds_the_same_on_another_device(made):
    """But for the curvature: the accelerator cannot do nested forward-mode derivatives."""
    config, prepared, folder, _ = made
    flat = config.model_copy(update={"analyze": config.analyze.model_copy(update={"sharpness": None})})
    expected = analyze(flat, prepared, folder, METHOD, SEED, CPU)
    with accelerator():
        found = analyze(flat, prepared, folder, METHOD, SEED, DEVICE)
    assert found == expected


def test_it_computes_in_full_precision(made, monkeypatch):
    config, prepared, folder, _ = made
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen, load = set(), models.load_model

    def watched(path):
        model = load(path)
        model.register_forward_pre_hook(lambda module, inputs: seen.add(torch.backends.cudnn.allow_tf32))
        return model

    monkeypatch.setattr(models, "load_model", watched)
    analyze(config, prepared, folder, METHOD, SEED, CPU)
    assert seen == {False}
    assert torch.backends.cudnn.allow_tf32


def test_a_network_without_second_derivatives_has_no_curvature_and_all_the_rest(copied, monkeypatch):
    """As with the older weight_norm."""
    config, prepared, folder = copied

    def refuse(*arguments, **keywords):
        raise NotImplementedError("Trying to use forward AD with weight_norm that does not support it\nmore")

    monkeypatch.setattr("sglr.information.hessian.jvp", refuse)
    result = analyze(config, prepared, folder, METHOD, SEED, CPU)
    assert "forward AD with weight_norm that does not support it)." in result["notes"]["sharpness"]
    assert not any(name.startswith("sharpness") for name in result["last"])
    assert {row["checkpoint"] for row in result["tables"]["landscape"]} >= {"best", "last"}

    for error in (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: operation not supported")):

        def fail(*arguments, error=error, **keywords):
            raise error

        monkeypatch.setattr("sglr.information.hessian.jvp", fail)
        with pytest.raises(RuntimeError, match=str(error)):
            analyze(config, prepared, folder, METHOD, SEED, CPU)


def test_a_network_whose_second_derivatives_overflow_has_no_curvature_and_all_the_rest(copied):
    """As of one that diverged, with finite logits."""
    config, prepared, folder = copied
    model = models.load_model(folder / "last")
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(1e6)
    models.save(model, folder / "last", files.read_json(folder / "last" / "model.json"))
    assert model(prepared.test().images()).isfinite().all()
    result = analyze(config, prepared, folder, METHOD, SEED, CPU)
    assert "beyond what float32 holds" in result["notes"]["sharpness/finite"]
    assert not any(name.startswith("sharpness") for name in result["last"])
    assert any(name.startswith("sharpness") for name in result["best"])
    assert np.isfinite(list(result["last"].values())).all()


class Moving(type(objectives.REGISTRY.options("at").build())):
    """It moves what it holds in the first attack."""

    moved = False

    def attack_loss(self, model, x):
        self.moved = True
        return super().attack_loss(model, x)

    def forward(self, model, x, x_adv):
        assert self.moved
        return super().forward(model, x, x_adv)


def test_an_objective_is_asked_for_its_attack_before_its_loss(copied, monkeypatch):
    config, prepared, folder = copied
    monkeypatch.setattr(type(config.methods[METHOD].objective), "build", lambda self: Moving())
    found = analyze(config, prepared, folder, METHOD, SEED, CPU)["last"]
    assert any(name.startswith("full_gradient/objective") for name in found)


class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.mix, self.head = torch.nn.MultiheadAttention(4, 2, batch_first=True), torch.nn.Linear(4, 3)

    def forward(self, x):
        x = x.flatten(2)
        return self.head(self.mix(x, x, x, need_weights=False)[0].mean(1))


def test_attention_has_a_curvature():
    """By the plain operations: its faster forms have no second derivative."""
    model, x = Attention().eval(), torch.rand(4, 3, 2, 2)
    asked = {"iterations": 2, "chunk": 4, "generator": torch.Generator().manual_seed(0)}
    targets = torch.eye(3)[[0, 1, 2, 0]]
    with pytest.raises(RuntimeError, match=r"not implemented|does not support"):
        largest_eigenvalue(model, x, targets, **asked)
    before = torch.backends.mha.get_fastpath_enabled()
    with _differentiable_twice():
        assert largest_eigenvalue(model, x, targets, **asked).value > 0
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_kept_epochs_are_in_the_order_of_training(tmp_path):
    for epoch in (2, 10, 100):
        (tmp_path / "checkpoints" / str(epoch)).mkdir(parents=True)
    trained = SimpleNamespace(history=[{"epoch": epoch} for epoch in range(101)], epoch_of=lambda name: None)
    config = SimpleNamespace(methods={"at": SimpleNamespace(start="warmup")})
    found = _checkpoints(config, trained, tmp_path, "at", 0, None)
    assert [checkpoint.epoch for checkpoint in found] == [2, 10, 100]


def test_accuracies_of_a_group_say_how_many_examples_it_has(started):
    config, prepared, folder, start = started
    result = analyze(config, prepared, folder, METHOD, SEED, CPU, warmup=start)
    noisy = result["n_examples"]["labels_noisy"]
    clean = result["n_examples"]["labels"] - noisy
    assert noisy != clean
    for row in result["tables"]["quantities"]:
        if row["quantity"] in ACCURACIES:
            assert row["n"] == (noisy if row["quantity"].startswith("noisy") else clean)


def test_every_batch_is_attacked_from_starts_of_its_own(params, monkeypatch):
    config = small(params)
    starts = []

    def attack(model, x, y, *, generator, **_):
        starts.append(torch.rand(3, generator=generator).tolist())
        return x

    monkeypatch.setattr(activations, "pgd", attack)
    labels = torch.zeros(60, dtype=torch.long)
    split = Split(torch.zeros(60, 1, 8, 8), labels, labels)
    model = models.build(config.model, num_classes=10, shape=(1, 8, 8), generator_seed=0).eval()
    activations.observe(model, split, torch.arange(60), labels, config, purpose="test")
    assert len(starts) == 3
    assert starts[0] != starts[1] != starts[2] != starts[0]


def test_an_attack_that_does_not_know_the_label_writes_none_of_it(made, monkeypatch):
    """Labels that have nothing to do with the images, and an attack that writes the label it leads away from."""
    config, prepared, folder, _ = made
    test = prepared.test()
    drawn = torch.randint(0, 10, (len(test),), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(type(prepared), "test", lambda self, device: Split(test.x, drawn, drawn))
    patterns = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(activations, "pgd", lambda model, x, y, **_: patterns[y])
    found = analyze(config, prepared, folder, METHOD, SEED, CPU)["last"]
    assert found["adversarial/information"] > 0.5
    assert found["adversarial/information_without_label"] < 0


def test_the_gap_is_between_given_labels_trained_on_and_true_ones_tested_on(started):
    config, prepared, folder, start = started
    result = analyze(config, prepared, folder, METHOD, SEED, CPU, warmup=start)
    rows = [row for row in result["tables"]["gradients"] if row["checkpoint"] == "last"]
    index = [row["index"] for row in rows]
    train = prepared.train(SEED)
    assert train.noisy[index].any()
    with torch.no_grad():
        predicted = models.load_model(folder / "last").eval()(train.images(torch.tensor(index))).argmax(1)
    trained = (predicted == train.given[index]).double().mean().item()
    assert result["last"]["gap/natural"] == pytest.approx(trained - result["last"]["natural/accuracy"], abs=1e-9)
    clean = ~train.noisy[index]
    right = (predicted == train.true[index])[clean].double().mean().item()
    assert result["last"]["gap/natural/clean"] == pytest.approx(right - result["last"]["natural/accuracy"], abs=1e-9)


def test_faster_attention_is_as_it_was_afterwards():
    fast = torch.backends.mha.get_fastpath_enabled()
    assert fast
    try:
        with _differentiable_twice():
            assert not torch.backends.mha.get_fastpath_enabled()
        assert torch.backends.mha.get_fastpath_enabled()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
