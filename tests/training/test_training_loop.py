"""The training loop: what an epoch counts, what is kept, where it stops, and that it goes on as if it had not."""

import copy
import dataclasses
import math
import re
from fractions import Fraction
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from accelerator import DEVICE, accelerator
from by_hand import C, Net
from tiny_training import assert_resumes, assert_same, equal, net, plan, splits
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from sglr import config, data, files, training
from sglr.attacks import correct_under
from sglr.attacks.pgd import PgdOptions
from sglr.config.reader import validate
from sglr.data import Split, batches, order
from sglr.labels import LabelPolicy
from sglr.random import derive
from sglr.schedules import ScheduleOptions
from sglr.training import Hooks, Interrupted, Plan, Snapshots, TrainingError, fit, history, loop
from sglr.training import step as training_step
from sglr.training.history import describe
from sglr.training.learner import Learner
from sglr.training.state import copied
from sglr.training.step import Taken
from sglr.weights import WeightPolicy

CPU = torch.device("cpu")

AT = {"objective": "at", "labels": "hard", "weights": "none"}
SGLR = {"objective": "at", "labels": {"name": "refinement", "start_epoch": 2}, "weights": "none"}
SHIPPED = list(config.parse((Path(__file__).parents[2] / "params.yaml").read_text())["methods"])


class Place(NamedTuple):
    epoch: int
    step: int


class Said:
    """Where a training said that it resumed."""

    def __init__(self) -> None:
        self.at: list[tuple[int, int]] = []

    def resumed(self, epoch: int, step: int) -> None:
        self.at.append((epoch, step))


def lean_on(module: Any, monkeypatch: pytest.MonkeyPatch, losses: list[float], predict: Any) -> list[torch.Tensor]:
    """Replace the step: it trains nothing, gives these losses and predictions. Returns the batches it was asked for."""
    asked: list[torch.Tensor] = []
    values = iter(losses)

    def take(plan, learner, x, y, index, epoch, step):
        asked.append(index)
        return Taken(torch.tensor(next(values)), predict(index), nn.functional.one_hot(y, C).float())

    monkeypatch.setattr(module, "take", take)
    return asked


def test_an_epoch_counts_examples_not_batches(params, monkeypatch):
    """24 examples in batches of 9, 9 and 6; an attack under which all are seen as what they truly are."""
    train, validation = splits()
    losses = [1.0, 2.0, 4.0]
    asked = lean_on(loop, monkeypatch, losses, lambda index: train.true[index])
    (row,) = fit(plan(params, AT, epochs=1, batch_size=9), net(), train, validation).history
    assert [len(index) for index in asked] == [9, 9, 6]
    assert torch.cat(asked).sort().values.tolist() == list(range(24))
    assert row["train/loss"] == pytest.approx((9 * 1 + 9 * 2 + 6 * 4) / 24, abs=1e-12)
    assert row["train/pgd"] == pytest.approx(16 / 24)  # a third of the given labels is wrong
    assert (row["noisy/pgd_given"], row["noisy/pgd_true"], row["clean/pgd"]) == (0, 1, 1)
    natural = net().eval()(train.images()).argmax(1)
    assert row["train/natural"] == pytest.approx((natural == train.given).float().mean().item())
    assert row["noisy/natural_true"] == pytest.approx((natural == train.true)[train.noisy].float().mean().item())
    assert row["clean/natural"] == pytest.approx((natural == train.true)[~train.noisy].float().mean().item())
    on_validation = net().eval()(validation.x).argmax(1)
    assert row["val/natural"] == pytest.approx((on_validation == validation.true).float().mean().item())
    assert (row["refined/entropy"], row["refined/recovered"], row["refined/corrupted"]) == (0, 0, 0)


def test_natural_training_has_no_attacked_predictions(params):
    params["warmup"]["epochs"] = 2
    warm_up = Plan.warm_up(_config(params), 1)
    trained = fit(warm_up, net(), *splits())
    for row in trained.history:
        assert row["train/pgd"] is row["noisy/pgd_given"] is row["clean/pgd"] is None
        assert row["lr"] == 0.05
    natural = [row["val/natural"] for row in trained.history]
    assert trained.best_epoch == 1 + natural.index(max(natural))


def _config(params: dict) -> Any:
    """Three epochs of three batches."""
    params["train"] |= {"epochs": 3, "batch_size": 8}
    params["methods"]["sglr"]["labels"]["start_epoch"] = 2
    params["train"]["attack"]["steps"] = params["train"]["selection"]["steps"] = 2
    return validate(params)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ({"name": "step", "milestones": [2, 3], "factor": 0.5}, [0.1] * 3 + [0.05] * 3 + [0.025] * 3),
        ({"name": "constant"}, [0.1] * 9),
        ({"name": "linear", "rise_epochs": 1}, [0, 0.1 / 3, 0.2 / 3, *(0.1 * (1 - step / 6) for step in range(6))]),
        ({"name": "cosine"}, [0.05 * (1 + math.cos(math.pi * step / 9)) for step in range(9)]),
    ],
)
def test_every_step_is_made_at_the_rate_of_its_schedule(params, monkeypatch, schedule, rates):
    used: list[float] = []
    original = loop.take

    def take(plan, learner, *arguments):
        used.append(learner.optimizer.param_groups[0]["lr"])
        return original(plan, learner, *arguments)

    monkeypatch.setattr(loop, "take", take)
    history = fit(plan(params, AT, schedule=schedule), net(), *splits()).history
    assert used == pytest.approx(rates)
    assert [row["lr"] for row in history] == pytest.approx(rates[2::3])


class Given(ScheduleOptions):
    """The full rate until the middle of epoch 2, then what is given."""

    name: str = "mine"
    given: Any

    def rate(self, progress: float, epochs: int) -> Any:
        return self.given if progress > 1.3 else 1


@pytest.mark.parametrize("given", [math.nan, math.inf, -0.1, 1e300, None, "1", torch.tensor(1.0)])
def test_what_is_no_rate_ends_the_training(params, given):
    mine = dataclasses.replace(plan(params, AT), schedule=Given.model_construct(given=given))
    said = f"train.schedule 'mine' multiplies the learning rate by {given!r} in epoch 2, batch 2 of 3: the rate must be"
    with pytest.raises(TrainingError, match=re.escape(said)):
        fit(mine, net(), *splits())


def test_a_rate_may_be_any_number(params):
    mine = plan(params, AT)
    expected = fit(dataclasses.replace(mine, schedule=Given(given=0.5)), net(), *splits()).history
    for half in (np.float32(0.5), np.float64(0.5), Fraction(1, 2)):
        found = fit(dataclasses.replace(mine, schedule=Given(given=half)), net(), *splits()).history
        assert found == expected
        assert {type(row["lr"]) for row in found} == {float}


@pytest.mark.parametrize("augmented", [True, False])
def test_every_step_draws_its_own_crops_and_starts(params, monkeypatch, augmented):
    """All images are one image: what tells two steps apart is what they drew."""
    if augmented:
        params["data"]["augment"] = {"crop_padding": 1, "flip": True}
    train, validation = splits()
    train.x[:] = train.x[0]
    attack, seen = training_step.adversarial, []

    def watched(plan, learner, x, y, epoch, goal, penalty, random_start):
        seen.append((x if augmented else random_start(plan.threat)).clone())
        return attack(plan, learner, x, y, epoch, goal, penalty, random_start)

    monkeypatch.setattr(training_step, "adversarial", watched)
    fit(plan(params, AT), net(), train, validation)
    assert len(seen) == 9
    assert not any(torch.equal(one, other) for one, other in combinations(seen, 2))


@pytest.mark.parametrize("every", [1, 2])
def test_best_is_the_first_epoch_of_highest_robust_validation_accuracy(params, every):
    epochs = list(range(1, 13))
    chosen = plan(params, AT, epochs=12, keep_epochs=epochs, selection={"steps": 2, "every": every})
    trained = fit(chosen, net(), *splits())
    robust = {row["epoch"]: row["val/pgd"] for row in trained.history if row["val/pgd"] is not None}
    assert list(robust) == [epoch for epoch in epochs if epoch % every == 0]
    assert len(set(robust.values())) < len(robust), "some are equal, so that the first counts"
    highest = max(robust.values())
    assert trained.best_epoch == min(epoch for epoch, value in robust.items() if value == highest)
    assert trained.best_epoch != 12
    assert equal(trained.best, trained.kept[trained.best_epoch])
    assert equal(trained.last, trained.kept[12])
    assert not equal(trained.best, trained.last)


def test_the_last_epoch_is_measured_whatever_the_interval(params):
    history = fit(plan(params, AT, selection={"steps": 2, "every": 2}), net(), *splits()).history
    assert [row["val/pgd"] is not None for row in history] == [False, True, True]


def test_without_validation_there_is_no_best(params):
    trained = fit(plan(params, AT), net(), splits()[0])
    assert trained.best is trained.best_epoch is None
    assert all(row["val/pgd"] is row["val/natural"] is None for row in trained.history)


def test_the_trace_follows_noisy_and_clean_examples(params):
    train, validation = splits()
    trained = fit(plan(params, SGLR), net(), train, validation)
    index, p = trained.trace["index"], trained.trace["p"]
    assert index.tolist() == list(range(24)), "fewer than 64: all of them"
    assert p.shape == (3, 24, C)
    assert torch.equal(p[0], torch.eye(C)[train.given]), "refinement starts with epoch 2"
    assert torch.equal(p[2], trained.refined)
    assert not torch.equal(p[1], p[2])
    many = Split(torch.zeros(400, 1, 4, 4), torch.zeros(400, dtype=torch.long), (torch.arange(400) < 50).long())
    index = fit(plan(params, AT, epochs=1, batch_size=100), net(), many).trace["index"]
    assert len(index) == 64
    assert int(many.noisy[index].sum()) == 32
    assert index.tolist() == sorted(set(index.tolist()))
    few = Split(torch.zeros(400, 1, 4, 4), torch.zeros(400, dtype=torch.long), (torch.arange(400) < 5).long())
    index = fit(plan(params, AT, epochs=1, batch_size=100), net(), few).trace["index"]
    assert (len(index), int(few.noisy[index].sum())) == (64, 5)


def test_kept_epochs_come_back_from_a_resumed_training(params, tmp_path):
    chosen = plan(params, SGLR, keep_epochs=[1, 3])
    whole = fit(chosen, net(), *splits())
    assert list(whole.kept) == [1, 3]
    calls = iter(range(1, 100))
    with pytest.raises(Interrupted):
        fit(chosen, net(), *splits(), hooks=Hooks(Snapshots(tmp_path), should_stop=lambda: next(calls) == 5))
    again = fit(chosen, net(), *splits(), hooks=Hooks(Snapshots(tmp_path)))
    assert equal(again.kept, whole.kept)
    assert equal(again.labels, whole.labels)


def test_a_training_goes_on_inside_an_epoch_that_it_is_to_keep(params, tmp_path):
    chosen = plan(params, SGLR, keep_epochs=[2])
    calls = iter(range(1, 100))
    with pytest.raises(Interrupted, match="stopped in epoch 2"):
        fit(chosen, net(), *splits(), hooks=Hooks(Snapshots(tmp_path), should_stop=lambda: next(calls) == 5))
    assert list(fit(chosen, net(), *splits(), hooks=Hooks(Snapshots(tmp_path))).kept) == [2]


def test_of_an_epoch_the_average_is_kept_that_is_evaluated(params):
    method = AT | {"weights": {"name": "ema", "decay": 0.9}}
    trained = fit(plan(params, method, keep_epochs=[3]), net(), *splits())
    assert equal(trained.kept[3], trained.last)
    live = fit(plan(params, AT, keep_epochs=[3]), net(), *splits())
    assert not equal(trained.kept[3], live.kept[3])


def test_what_training_leaves_is_no_part_of_the_model(params):
    model = net()
    trained = fit(plan(params, AT, keep_epochs=[3]), model, *splits())
    before = copy.deepcopy((trained.last, trained.best, trained.kept))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
    assert all(map(equal, before, (trained.last, trained.best, trained.kept)))


def test_the_attack_on_validation_images_steps_as_training_does(params):
    """From the same random start: very short steps are all but none, a quarter of a large radius breaks more."""
    params["threat"]["eps_255"] = 100
    shares = []
    for step_size in (1e-6, None):
        params["train"]["attack"]["step_size_255"] = step_size
        chosen, model, (train, validation) = plan(params, AT), net(), splits()
        (*_, row) = fit(chosen, model, train, validation).history
        attack = PgdOptions(name="pgd", steps=2, step_size_255=step_size).build(chosen.threat)
        seed = derive(chosen.seed, "selection")
        correct = correct_under(
            model.eval(), validation.x, validation.true, attack, seed=seed, batch_size=len(validation)
        )
        shares.append(row["val/pgd"])
        assert row["val/pgd"] == pytest.approx(correct.float().mean().item())
    assert shares[0] > shares[1]


def test_the_best_epoch_is_chosen_by_the_given_labels_of_validation_images(params):
    """Where these are wrong, natural and robust accuracy are those against them."""
    chosen, model, (train, validation) = plan(params, AT), net(), splits()
    wrong = Split(validation.x, (validation.true + 1) % C, validation.true)
    (*_, row) = fit(chosen, model, train, wrong).history
    attack = PgdOptions(name="pgd", steps=2).build(chosen.threat)
    found = correct_under(
        model.eval(), wrong.x, wrong.given, attack, seed=derive(chosen.seed, "selection"), batch_size=len(wrong)
    )
    assert row["val/pgd"] == pytest.approx(found.float().mean().item())
    with torch.no_grad():
        classes = model(wrong.x).argmax(1)
    assert row["val/natural"] == pytest.approx((classes == wrong.given).float().mean().item())
    assert (classes == wrong.given).sum() != (classes == wrong.true).sum()


def test_single_step_training_is_validated_by_steps_that_fit_the_ball(params):
    """PGD with steps longer than the radius breaks less: the best epoch would be chosen by a weak attack."""
    params["threat"]["eps_255"] = 100
    params["train"]["attack"] |= {"steps": 1, "step_size_255": 125.0}
    chosen, model, (train, validation) = plan(params, AT), net(), splits()
    (*_, row) = fit(chosen, model, train, validation).history
    attack = PgdOptions(name="pgd", steps=2, step_size_255=25.0).build(chosen.threat)
    seed = derive(chosen.seed, "selection")
    correct = correct_under(model.eval(), validation.x, validation.true, attack, seed=seed, batch_size=len(validation))
    assert row["val/pgd"] == pytest.approx(correct.float().mean().item())


@pytest.mark.parametrize(("content", "reason"), [(None, "cannot be read"), (b"cut", "is damaged")])
def test_a_kept_epoch_that_is_gone_is_said_before_training_goes_on(params, tmp_path, content, reason):
    chosen = plan(params, SGLR, keep_epochs=[1])
    calls = iter(range(1, 100))
    with pytest.raises(Interrupted):
        fit(chosen, net(), *splits(), hooks=Hooks(Snapshots(tmp_path), should_stop=lambda: next(calls) == 5))
    kept = tmp_path / "kept" / "1"
    kept.unlink() if content is None else kept.write_bytes(content)
    rows: list[dict] = []
    wrong = rf"epoch 1 \(train\.keep_epochs\), {reason}, .* remove {tmp_path} to train from the beginning"
    with pytest.raises(files.FileError, match=wrong):
        fit(chosen, net(), *splits(), hooks=Hooks(Snapshots(tmp_path), on_epoch=rows.append))
    assert rows == []


def test_labels_are_kept_as_they_were_with_each_of_the_models(params):
    assert fit(plan(params, AT), net(), *splits()).labels == {"last": {}, "best": {}}
    chosen = plan(params, SGLR, epochs=4, keep_epochs=[1, 2, 3, 4])
    trained = fit(chosen, net(), *splits())
    assert list(trained.labels) == ["last", "1", "2", "3", "4", "best"]
    assert equal(trained.labels["best"], trained.labels[str(trained.best_epoch)])
    assert equal(trained.labels["last"], trained.labels["4"])
    tables = [trained.labels[str(epoch)]["p"] for epoch in (1, 2, 3, 4)]
    assert all(not torch.equal(one, other) for one, other in pairwise(tables[1:]))
    assert torch.equal(tables[3][trained.trace["index"]], trained.trace["p"][3])


def test_the_optimizer_is_the_one_that_is_asked_for(params):
    asked = {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01}
    learner = Learner.build(plan(params, AT, optimizer=asked), net(), splits()[0].given, C)
    assert isinstance(learner.optimizer, torch.optim.SGD)
    assert asked.items() <= learner.optimizer.param_groups[0].items()


def test_a_training_without_snapshots_is_stopped_all_the_same(params):
    rows: list[dict] = []
    with pytest.raises(Interrupted, match=r"^stopped in epoch 1$"):
        fit(plan(params, AT), net(), *splits(), hooks=Hooks(should_stop=lambda: True, on_epoch=rows.append))
    assert rows == []


def test_a_copy_of_a_state_shares_nothing_with_it():
    value = torch.zeros(2)
    made = copied({"list": [value], "tuple": (value, {"inner": value})})
    value.add_(1)
    assert equal(made["list"][0], torch.zeros(2))
    assert all(equal(part, torch.zeros(2)) for part in (made["tuple"][0], made["tuple"][1]["inner"]))
    assert isinstance(made["tuple"], tuple)


def test_a_batch_larger_than_the_data_is_refused(params):
    with pytest.raises(TrainingError, match=r"train\.batch_size 25 is larger than the training set \(24 examples\)"):
        fit(plan(params, AT, batch_size=25), net(), *splits())


def test_a_loss_that_is_not_finite_is_placed_and_never_saved(params, tmp_path):
    train, validation = splits()
    second = list(batches(24, 8, order(24, seed=1, epoch=1)))[1]
    train.x[second[3]] = float("nan")
    with pytest.raises(TrainingError, match=r"not finite from epoch 1, batch 2 of 3 on\. Likely .*0\.1.*bad values"):
        fit(plan(params, AT), net(), train, validation, hooks=Hooks(Snapshots(tmp_path, 0)))
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot-000001-00000001"]
    train.x[order(24, seed=1, epoch=1)[0]] = float("nan")
    with pytest.raises(TrainingError, match=r"not finite from epoch 1, batch 1 of 3 on"):
        fit(plan(params, AT), net(), train, validation)
    diverging = plan(params, AT, optimizer={"lr": 1e38, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0})
    with pytest.raises(TrainingError, match=r"not finite from epoch 1, batch [23] of 3 on\. Likely causes: .*1e\+38"):
        fit(diverging, net(), *splits())


def test_a_network_that_gives_nan_after_an_epoch_is_no_model(params, monkeypatch, tmp_path):
    """The last update overflowed, and no loss was computed after it: argmax would take NaN for the first class."""

    def take(plan, learner, x, y, index, epoch, step):
        if step == 2:
            learner.model.head.weight.data.fill_(float("nan"))
        return Taken(torch.tensor(1.0), y, nn.functional.one_hot(y, C).float())

    monkeypatch.setattr(loop, "take", take)
    wrong = r"after epoch 1 the logits of training images are NaN or infinite\. Likely causes: .* gives them\."
    with pytest.raises(TrainingError, match=wrong + "$"):
        fit(plan(params, AT), net(), *splits())
    with pytest.raises(TrainingError, match=wrong + " Snapshots from before are kept"):
        fit(plan(params, AT), net(), *splits(), hooks=Hooks(Snapshots(tmp_path, 0)))


class Wrapped(nn.Module):
    """As timm's ModelEma: a module that holds the average, under names of its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(model)

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


def test_what_could_not_be_saved_is_refused_after_the_first_epoch(params, monkeypatch):
    """Not after the last, when it is to be saved."""
    monkeypatch.setattr(WeightPolicy, "evaluated", lambda self, model: Wrapped(model))
    rows: list[dict] = []
    with pytest.raises(TrainingError, match=r"Wrapped, which the weight policy gives to evaluate, has not the names"):
        fit(plan(params, AT), net(), *splits(), hooks=Hooks(on_epoch=rows.append))
    assert rows == []
    monkeypatch.setattr(WeightPolicy, "evaluated", lambda self, model: AveragedModel(model))
    assert fit(plan(params, AT), net(), *splits()).last.keys() == net().state_dict().keys()


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({(1, 2): 3}, r"cannot store a key \(1, 2\) in a state file, a tuple"),
        ({"a": [np.zeros(2)]}, "cannot store a ndarray in a state file"),
        ({"a": {"b": np.float32(2)}}, "cannot store a float32 in a state file"),
        ({"a": Place(1, 2)}, "cannot store a Place in a state file"),
    ],
)
def test_state_that_cannot_be_kept_is_refused_before_the_first_step(params, monkeypatch, state, said):
    monkeypatch.setattr(LabelPolicy, "state_dict", lambda self: state)
    monkeypatch.setattr(loop, "take", None)
    with pytest.raises(TrainingError, match=rf"the state_dict of the label policy, FixedLabels: {said}"):
        fit(plan(params, AT), net(), *splits())


@pytest.mark.parametrize("stop_at", range(1, 10))
def test_a_training_resumed_at_any_step_ends_as_if_it_had_not_stopped(params, tmp_path, stop_at):
    assert_resumes(params, SGLR, tmp_path, stop_at)


@pytest.mark.parametrize("method", SHIPPED)
def test_every_shipped_method_resumes_bit_for_bit(params, tmp_path, method):
    chosen = params["methods"][method]
    for part in ("labels", "weights"):
        if isinstance(chosen[part], dict):
            # Under way when the training stops in epoch 2, and not from its beginning.
            chosen[part] |= {key: 2 for key in ("start_epoch", "natural_forward_from") if key in chosen[part]}
    assert_resumes(params, chosen, tmp_path)


def test_what_a_resumed_training_says(params, tmp_path):
    chosen, said = plan(params, SGLR), Said()
    calls = iter(range(1, 100))
    with pytest.raises(Interrupted, match="stopped in epoch 2"):
        fit(chosen, net(), *splits(), hooks=Hooks(Snapshots(tmp_path), should_stop=lambda: next(calls) == 5))
    rows: list[dict] = []
    trained = fit(
        chosen, net(), *splits(), hooks=Hooks(Snapshots(tmp_path), on_resume=said.resumed, on_epoch=rows.append)
    )
    assert said.at == [(2, 3)], "two of three steps were done"
    assert rows == trained.history, "the epochs from before are told again"
    assert [row["epoch"] for row in rows] == [1, 2, 3]


def test_a_snapshot_that_cannot_be_read_is_not_taken_for_a_damaged_one(params, tmp_path, monkeypatch):
    """A disk that does not answer is no reason to remove it."""
    snapshots = Snapshots(tmp_path)
    snapshots.save({"progress": {}}, 1, 1)

    def unreadable(path):
        raise files.FileError(f"cannot read {path}")

    monkeypatch.setattr(files, "load_state", unreadable)
    with pytest.raises(files.FileError, match="cannot read"):
        snapshots.load()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_snapshot_is_passed_over(params, tmp_path):
    chosen = plan(params, SGLR)
    whole = fit(chosen, net(), *splits())
    calls = iter(range(1, 100))
    with pytest.raises(Interrupted):
        fit(chosen, net(), *splits(), hooks=Hooks(Snapshots(tmp_path, 0), should_stop=lambda: next(calls) == 6))
    older, newest = sorted(tmp_path.glob("snapshot-*"))
    assert (older.name, newest.name) == ("snapshot-000002-00000002", "snapshot-000003-00000000")
    newest.write_bytes(newest.read_bytes()[:1000])
    warnings: list[str] = []
    said, snapshots = Said(), Snapshots(tmp_path, warn=warnings.append)
    assert_same(fit(chosen, net(), *splits(), hooks=Hooks(snapshots, on_resume=said.resumed)), whole)
    assert said.at == [(2, 3)]
    (warning,) = warnings
    assert str(newest) in warning
    assert not newest.exists()


def test_without_a_whole_snapshot_it_starts_anew(params, tmp_path):
    chosen = plan(params, SGLR)
    (tmp_path / "snapshot-000002-00000001").write_bytes(b"")
    (tmp_path / "snapshot-000002-00000002").write_bytes(b"\0" * 100)
    warnings: list[str] = []
    trained = fit(chosen, net(), *splits(), hooks=Hooks(Snapshots(tmp_path, warn=warnings.append)))
    assert len(warnings) == 2
    assert_same(trained, fit(chosen, net(), *splits()))


def test_refinement_is_plain_adversarial_training_until_it_starts(params):
    kept = {}
    for name, method in (("at", AT), ("sglr", SGLR | {"labels": {"name": "refinement", "start_epoch": 3}})):
        chosen = plan(params, method, epochs=4, keep_epochs=[1, 2, 3])
        kept[name] = fit(chosen, net(), *splits())
    assert equal(kept["sglr"].history[:2], kept["at"].history[:2])
    for epoch in (1, 2):
        assert equal(kept["sglr"].kept[epoch], kept["at"].kept[epoch]), epoch
    assert not equal(kept["sglr"].kept[3], kept["at"].kept[3])


CONTINUED = {
    "at": AT,
    "sglr": SGLR | {"labels": {"name": "refinement", "start_epoch": 3}},
    "ensembling": AT | {"labels": {"name": "ensembling", "start_epoch": 3, "ramp_epochs": 2}},
    "control": AT | {"labels": {"name": "hard", "natural_forward_from": 3}},
    "ema": AT | {"weights": {"name": "ema", "start_epoch": 3, "decay": 0.9}},
    "swa": AT | {"weights": {"name": "swa", "start_epoch": 3}},
    "awp": AT | {"weights": {"name": "awp", "start_epoch": 3}},
}


@pytest.mark.parametrize("name", CONTINUED)
def test_an_adversarial_warm_up_is_the_first_part_of_training(params, tmp_path, name):
    """Two epochs of it, through a file, then the method: the same as four epochs of the method."""
    params["warmup"] |= {"objective": "adversarial", "epochs": 2}
    chosen = plan(params, CONTINUED[name], epochs=4)
    whole = fit(chosen, net(), *splits())
    shared = fit(Plan.warm_up(validate(params), seed=1), net(), *splits())
    assert [row["epoch"] for row in shared.history] == [1, 2]
    files.save_state(tmp_path / "state", shared.state)
    said, state = Said(), files.load_state(tmp_path / "state")
    torch.manual_seed(99)
    assert_same(fit(chosen, Net(), *splits(), continue_from=state, hooks=Hooks(on_resume=said.resumed)), whole)
    assert said.at == [], "that is no resumed training"


def test_a_snapshot_goes_before_the_warm_up_it_continued(params, tmp_path):
    params["warmup"] |= {"objective": "adversarial", "epochs": 1}
    chosen = plan(params, SGLR)
    whole = fit(chosen, net(), *splits())
    state = fit(Plan.warm_up(validate(params), seed=1), net(), *splits()).state
    calls = iter(range(1, 100))
    stopping = Hooks(Snapshots(tmp_path), should_stop=lambda: next(calls) == 4)
    with pytest.raises(Interrupted):
        fit(chosen, net(), *splits(), hooks=stopping, continue_from=state)
    said = Said()
    resuming = Hooks(Snapshots(tmp_path), said.resumed)
    assert_same(fit(chosen, Net(), *splits(), hooks=resuming, continue_from=state), whole)
    assert said.at == [(3, 2)]


@pytest.fixture
def digits(params, tmp_path) -> tuple[dict, Any]:
    """Params of a tiny training on digits, and the prepared data."""
    params["data"] |= {"source": {"name": "digits", "test_size": 100}, "train_size": 60, "validation_size": 30}
    params["model"] |= {"channels": [4, 8], "hidden": 16}
    params["train"] |= {"epochs": 4, "batch_size": 30, "keep_epochs": [4]}
    params["train"]["attack"]["steps"] = params["train"]["selection"]["steps"] = 2
    params["methods"]["sglr"]["labels"]["start_epoch"] = 3
    data.prepare(validate(params).data, tmp_path / "data")
    return params, data.open_folder(tmp_path / "data")


def _item(
    params: dict, prepared: Any, method: str, folder: Path, device: torch.device = CPU
) -> tuple[dict[str, bytes], list[dict]]:
    """Warm-up and training of one method as the stages do it: its weights and labels, and its history."""
    settings = validate(params)
    training.warm_up(settings, 0, prepared, folder / "warmup", device=device)
    training.train(settings, method, 0, prepared, folder / "warmup", folder / "train", device=device)
    weights = [f"{part}/model.safetensors" for part in ("last", "best", "checkpoints/4")]
    names = (*weights, "labels.npz", "labels.state", "labels_trace.npz")
    folder = folder / "train"
    return {name: (folder / name).read_bytes() for name in names}, files.read_rows(folder / "history.csv")


@pytest.mark.parametrize("method", ["at", "sglr"])
def test_the_items_of_a_study_with_an_adversarial_warm_up(digits, tmp_path, method):
    params, prepared = digits
    params["warmup"] |= {"objective": "adversarial", "epochs": 0}
    whole, history = _item(params, prepared, method, tmp_path / "whole")
    params["warmup"]["epochs"] = 2
    continued, with_warm_up = _item(params, prepared, method, tmp_path / "continued")
    assert continued == whole
    assert [row.pop("phase") for row in history] == ["train"] * 4
    assert [row.pop("phase") for row in with_warm_up] == ["warmup"] * 2 + ["train"] * 2
    assert with_warm_up == history


def test_the_items_of_a_study_with_a_natural_warm_up(digits, tmp_path):
    """Its epochs end at 0, training starts from its weights, and from the seed's where a method asks for that."""
    params, prepared = digits
    params["warmup"] |= {"objective": "standard", "epochs": 2}
    warmed, history = _item(params, prepared, "at", tmp_path / "warmed")
    assert [row["phase"] for row in history] == ["warmup"] * 2 + ["train"] * 4
    assert [row["epoch"] for row in history] == [-1, 0, 1, 2, 3, 4]
    params["methods"]["at"]["start"] = "initial"
    cold, own = _item(params, prepared, "at", tmp_path / "cold")
    assert [row["epoch"] for row in own] == [1, 2, 3, 4]
    assert cold["last/model.safetensors"] != warmed["last/model.safetensors"]
    params["methods"]["at"]["start"] = "warmup"
    params["warmup"]["epochs"] = 0
    assert _item(params, prepared, "at", tmp_path / "none")[0] == cold


def test_snapshots_are_due_by_the_clock(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("sglr.training.snapshots.time.monotonic", lambda: now[0])
    snapshots = Snapshots(tmp_path, every_seconds=30)
    assert not snapshots.due()
    now[0] = 130
    assert snapshots.due()
    for step in (1, 2, 3):
        snapshots.save({"step": step}, epoch=1, step=step)
    assert not snapshots.due()
    assert sorted(path.name[-3:] for path in tmp_path.iterdir()) == ["002", "003"], "the newest two stay"
    assert Snapshots(tmp_path).load() == {"step": 3}


@pytest.mark.parametrize(("every", "taken", "wait"), [(30, 0.1, 30), (30, 5, 500), (0, 5, 0)])
def test_writing_snapshots_takes_a_hundredth_of_the_time_at_most(tmp_path, monkeypatch, every, taken, wait):
    now = [100.0]
    monkeypatch.setattr("sglr.training.snapshots.time.monotonic", lambda: now[0])
    monkeypatch.setattr(files, "save_state", lambda path, state: now.__setitem__(0, now[0] + taken))
    snapshots = Snapshots(tmp_path, every_seconds=every)
    snapshots.save({}, epoch=1, step=1)
    written = now[0]
    now[0] = written + wait
    assert snapshots.due()
    if wait:
        now[0] = written + wait - 1
        assert not snapshots.due()


def test_the_items_of_a_study_on_another_device(digits, tmp_path):
    """With an adversarial warm-up, which hands on everything a training consists of."""
    params, prepared = digits
    params["warmup"] |= {"objective": "adversarial", "epochs": 2}
    here = _item(params, prepared, "sglr", tmp_path / "here")
    with accelerator():
        assert _item(params, prepared, "sglr", tmp_path / "there", DEVICE) == here


@pytest.mark.parametrize("schedule", [{"name": "cosine"}, {"name": "linear", "rise_epochs": 1}])
def test_a_warm_up_is_made_at_the_rates_of_the_whole_training(params, schedule):
    params["warmup"] |= {"objective": "adversarial", "epochs": 2}
    whole = fit(plan(params, AT, epochs=4, schedule=schedule), net(), *splits())
    shared = fit(Plan.warm_up(validate(params), seed=1), net(), *splits())
    assert shared.history == whole.history[:2]


def test_every_step_draws_its_own_dropout(params, monkeypatch):
    """What a layer draws from torch's global generator in the forward that is learned from."""
    drawn: list[float] = []

    class Drawing(Net):
        def forward(self, x):
            drawn.append(float(torch.rand(())))
            return super().forward(x)

    original, firsts = loop.take, []

    def take(*arguments):
        drawn.clear()
        found = original(*arguments)
        firsts.append(tuple(drawn))
        return found

    monkeypatch.setattr(loop, "take", take)
    fit(plan(params, AT), Drawing(), *splits())
    assert len(set(firsts)) == 9


def test_the_first_batch_whose_loss_is_not_finite_is_named(params, monkeypatch):
    lean_on(loop, monkeypatch, [1.0, math.inf, math.nan], lambda index: torch.zeros_like(index))
    with pytest.raises(TrainingError, match=r"not finite from epoch 1, batch 2 of 3 on"):
        fit(plan(params, AT, epochs=1), net(), *splits())


def test_the_cross_entropy_of_an_epoch_is_that_of_the_given_labels(params, monkeypatch):
    train, validation = splits()
    lean_on(loop, monkeypatch, [1.0, 1.0, 1.0], lambda index: train.given[index])
    (row,) = fit(plan(params, AT, epochs=1), net(), train, validation).history
    expected = nn.functional.cross_entropy(net().eval()(train.images()).double(), train.given).item()
    assert row["train/natural_nll"] == pytest.approx(expected, rel=1e-6)


def test_measuring_leaves_the_mode_as_it_is(params):
    """Of a model that goes on training, by hand, after the last epoch."""
    model = net()
    fit(plan(params, AT, epochs=1), model, *splits())
    assert all(module.training for module in model.modules())


def test_the_entropy_of_refined_labels_is_a_mean_over_examples():
    train = Split(torch.zeros(3, 1, 4, 4), torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]))
    refined = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]])
    found = describe(refined, train)
    one = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert found["refined/entropy"] == pytest.approx((math.log(2) + one) / 3)
    assert (found["refined/recovered"], found["refined/corrupted"]) == (0, 0.5)


def test_labels_with_a_best_epoch_of_the_warm_up_are_those_it_would_have_had(params, monkeypatch):
    original = loop.measure

    def falling(plan, model, refined, train, validation, epoch, *rest):
        return original(plan, model, refined, train, validation, epoch, *rest) | {"val/pgd": 1 / epoch}

    monkeypatch.setattr(loop, "measure", falling)
    params["warmup"] |= {"objective": "adversarial", "epochs": 2}
    chosen = plan(params, CONTINUED["sglr"], epochs=4)
    whole = fit(chosen, net(), *splits())
    shared = fit(Plan.warm_up(validate(params), seed=1), net(), *splits())
    continued = fit(chosen, net(), *splits(), continue_from=shared.state)
    assert whole.best_epoch == continued.best_epoch == 1
    assert equal(continued.labels, whole.labels)


def test_every_epoch_is_validated_from_the_same_starts(params, monkeypatch):
    seeds: list[int] = []
    original = history.correct_under

    def watched(*arguments, seed, **named):
        seeds.append(seed)
        return original(*arguments, seed=seed, **named)

    monkeypatch.setattr(history, "correct_under", watched)
    monkeypatch.setattr(history, "_EVALUATION_BATCH", 4)  # of 10 images
    fit(plan(params, AT), net(), *splits())
    assert len(seeds) == 9
    assert seeds[:3] == seeds[3:6] == seeds[6:] == [seeds[0], seeds[0] + 1, seeds[0] + 2]


def test_validation_is_attacked_with_steps_of_its_own(params, monkeypatch):
    made = []
    original = history.PgdOptions

    def watched(**options):
        made.append((options["steps"], options["step_size_255"]))
        return original(**options)

    monkeypatch.setattr(history, "PgdOptions", watched)
    chosen = plan(params, AT, epochs=1)
    chosen = dataclasses.replace(chosen, selection=chosen.selection.model_copy(update={"steps": 3}))
    assert chosen.attack.steps == 2
    fit(chosen, net(), *splits())
    assert made == [(3, chosen.attack.step_size_255)]


def test_the_mode_of_the_caller_does_not_matter(params):
    chosen, expected = plan(params, AT, epochs=1), fit(plan(params, AT, epochs=1), net(), *splits())
    model, (train, validation) = net(), splits()
    with torch.inference_mode():
        assert_same(fit(chosen, model, train, validation), expected)


def test_the_state_that_is_handed_on_is_not_the_models_own(params):
    """Whoever goes on with the model itself leaves the state of the warm-up as it was."""
    params["warmup"] |= {"objective": "adversarial", "epochs": 1}
    plan(params, AT)
    model = net()
    state = fit(Plan.warm_up(validate(params), seed=1), model, *splits()).state
    before = copy.deepcopy(state["model"])
    model.head.weight.data.fill_(7)
    assert equal(state["model"], before)
