"""Several processes that train one model: the same result as one, one error, nothing lost."""

import contextlib
import dataclasses
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from tiny_training import plan

from sglr import models, processes
from sglr.attacks.accuracy import LogitsError
from sglr.config import ConfigError
from sglr.config.sections import Method
from sglr.data import Split
from sglr.labels import Step
from sglr.labels.hard import FixedLabels, HardOptions
from sglr.objectives import InnerMaximisation
from sglr.objectives.at import AdversarialTraining, AtOptions
from sglr.training import Hooks, Interrupted, Plan, Snapshots, TrainingError, TrainingResult, distributed, fit, history
from sglr.training.distributed import ALONE, Team, _require_own_gpu, shared, together
from sglr.training.hooks import NO_HOOKS

CPU = torch.device("cpu")
# Every objective, label policy and weight policy that shares something between processes.
METHODS = {
    "sglr": {"objective": "at", "labels": {"name": "refinement", "start_epoch": 2, "refinement_ratio": 0.7}},
    "trades_sat": {"objective": "trades", "labels": {"name": "self_adaptive", "start_epoch": 2}},
    "mart_ensembling": {"objective": "mart", "labels": {"name": "ensembling", "start_epoch": 2, "ramp_epochs": 1}},
    "adr": {"objective": "at", "labels": "self_distillation", "weights": {"name": "ema", "decay": 0.5}},
    "awp": {"objective": "at", "labels": "hard", "weights": "awp"},
    "ema": {"objective": "standard", "labels": "hard", "weights": {"name": "ema", "decay": 0.5}},
}


def chosen(params: dict, method: str, **train: Any) -> Plan:
    """Three epochs of batches of 7, 7, 7 and 3: shares of 3 and 4, of 1 and 2."""
    params["data"]["augment"] = {"crop_padding": 1, "flip": True, "more": [{"name": "cutout", "size": 3}]}
    return plan(params, {"weights": "none"} | METHODS[method], batch_size=7, **train)


def splits() -> tuple[Split, Split]:
    """24 training and 10 validation images; some labels are wrong."""
    generator = torch.Generator().manual_seed(5)
    x, true = torch.rand(34, 1, 8, 8, generator=generator), torch.arange(34) % 4
    given = torch.where(torch.arange(34) % 3 == 0, (true + 1) % 4, true)
    return Split(x[:24], given[:24], true[:24]), Split(x[24:], true[24:], true[24:])


def network() -> torch.nn.Module:
    """Without batch norm, which processes on CPUs cannot share."""
    kind = {"num_classes": 4, "shape": (1, 8, 8), "generator_seed": 0}
    return models.build("small_cnn", **kind, channels=(4, 8), hidden=16, batch_norm=False)


def train(chosen: Plan, team: Team = ALONE, hooks: Hooks = NO_HOOKS) -> TrainingResult:
    return fit(chosen, network(), *splits(), hooks=hooks, team=team)


def work(team: Team, device: torch.device, plans: list[Plan]) -> list[TrainingResult]:
    found = [train(one, team) for one in plans]
    compare(team, found[0])
    return found


def compare(team: Team, trained: TrainingResult) -> None:
    """What one process knows of the others: the very same bits, every flag, all rows."""
    own = torch.stack([part.double().abs().sum() for part in (*trained.last.values(), trained.refined)])[None]
    both = team.whole(own, team.size)
    assert torch.equal(both[0], both[-1])
    assert both.abs().sum() > 0
    if team.size > 1:
        assert team.any(False, team.leads) == (False, True)
        assert team.agrees(7)
        assert not team.agrees(team.rank)
    rows = team.fill(torch.zeros(5, dtype=torch.int64), 2, lambda number, index: 10 * number + index)
    assert rows.tolist() == [0, 1, 12, 13, 24]


def test_two_processes_end_where_one_does(params):
    """The same label table, history and weights, but for the order of additions; the very same in both processes."""
    plans = [chosen(params, method) for method in METHODS]
    with together(2, CPU, work, plans) as (team, device):
        found = work(team, device, plans)
    for name, one, expected in zip(METHODS, found, work(ALONE, CPU, plans), strict=True):
        torch.testing.assert_close(one.refined, expected.refined, rtol=1e-4, atol=1e-5, msg=name)
        for weight, value in expected.last.items():
            torch.testing.assert_close(one.last[weight], value, rtol=1e-3, atol=1e-5, msg=f"{name} {weight}")
        for row, wanted in zip(one.history, expected.history, strict=True):
            assert row.keys() == wanted.keys()
            known = [key for key, value in wanted.items() if value is not None]
            assert [row[key] for key in known] == pytest.approx([wanted[key] for key in known], rel=1e-4, abs=1e-6), (
                name
            )


class Bright(FixedLabels):
    """The brighter an adversarial image, the softer its target."""

    def update(self, step: Step) -> torch.Tensor:
        natural, adversarial = step.images()
        assert len(natural) == len(adversarial) == len(step.index)
        share = adversarial.mean((1, 2, 3))[:, None]
        self._targets[step.index] = (1 - share) * self._targets[step.index] + share / self._targets.shape[1]
        return self._targets[step.index]

    def state_dict(self) -> dict[str, Any]:
        return {"targets": self._targets}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._targets.copy_(state["targets"])


class BrightOptions(HardOptions):
    """No options."""

    def build(self, given: torch.Tensor, num_classes: int, epochs: int) -> Bright:
        return Bright(torch.nn.functional.one_hot(given, num_classes).float())


def bright(team: Team, device: torch.device, one: Plan) -> TrainingResult:
    return train(one, team)


@pytest.mark.slow
def test_a_policy_sees_the_images_of_the_whole_batch(params):
    method = Method.model_validate({"objective": "at", "labels": BrightOptions(name="bright"), "weights": "none"})
    one = dataclasses.replace(chosen(params, "sglr"), method=method)
    with together(2, CPU, bright, one) as (team, device):
        found = bright(team, device, one)
    expected = bright(ALONE, CPU, one)
    assert not torch.equal(expected.refined, expected.refined.round())
    torch.testing.assert_close(found.refined, expected.refined, rtol=1e-4, atol=1e-5)


class Strayed(AdversarialTraining):
    """Beyond the ball, from noise that is drawn for the whole batch."""

    def attack(self, inner: InnerMaximisation) -> torch.Tensor:
        wider = dataclasses.replace(inner.threat, eps=3 * inner.threat.eps)
        noisy = inner.random_start(wider)
        return (noisy + inner.threat.step(inner.x - noisy, inner.threat.eps)).clamp(0, 1)


class StrayedOptions(AtOptions):
    """No options."""

    def build(self) -> Strayed:
        return Strayed()


@pytest.mark.slow
def test_an_attack_of_ones_own_draws_for_the_whole_batch(params):
    method = Method.model_validate({"objective": StrayedOptions(name="own"), "labels": "hard", "weights": "none"})
    one = dataclasses.replace(chosen(params, "sglr"), method=method)
    with together(2, CPU, bright, one) as (team, device):
        found = bright(team, device, one)
    expected = bright(ALONE, CPU, one)
    for weight, value in expected.last.items():
        torch.testing.assert_close(found.last[weight], value, rtol=1e-3, atol=1e-5)


def broken_at(team: Team, device: torch.device, one: Plan, rank: int, monkeypatch: Any = None) -> None:
    """The logits of validation images that one process looks at are not finite."""
    history._EVALUATION_BATCH = 5  # of ten: one piece for each
    found = history.finite_logits

    def finite_logits(*arguments: Any) -> torch.Tensor:
        if team.rank == rank:
            raise LogitsError("those of 3 of 5 images are NaN")
        return found(*arguments)

    history.finite_logits = finite_logits
    try:
        with pytest.raises(TrainingError, match=r"after epoch 1 (those of 3 of 5 images are NaN|the logits of valid)"):
            train(one, team)
    finally:
        history._EVALUATION_BATCH, history.finite_logits = 500, found


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_what_one_of_them_cannot_measure_ends_them_all(params, rank):
    one = chosen(params, "sglr")
    with together(2, CPU, broken_at, one, rank) as (team, device):
        broken_at(team, device, one, rank)


def fails_and_is_held(team: Team, device: torch.device) -> None:
    """As on a GPU: leaving the process group waits for the others."""
    distributed._LEAVING = 0.1
    dist.destroy_process_group = lambda: threading.Event().wait()
    raise TrainingError("this process has no memory left")


def test_an_error_is_told_though_no_process_can_leave(monkeypatch):
    leave, ended = dist.destroy_process_group, threading.Event()
    monkeypatch.setattr(distributed, "_LEAVING", 0.1)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: ended.wait() and leave())
    try:
        with (
            pytest.raises(processes.ProcessError, match="process 1 of 2 failed: this process has no memory left"),
            together(2, CPU, fails_and_is_held) as (team, _),
        ):
            team.any(False)
    finally:
        ended.set()
        while dist.is_initialized():
            time.sleep(0.01)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_are_a_whole_in_equal_parts(size):
    for n in (size, size + 1, 128, 130):
        parts = [range(n)[Team(rank, size).share(n)] for rank in range(size)]
        assert [i for part in parts for i in part] == list(range(n))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def follow(team: Team, device: torch.device, one: Plan, folder: Path, killed_after: int | None) -> None:
    """Beside the leader; the end of its process comes after so many steps."""
    calls = iter(range(1, 100))

    def end() -> bool:
        if next(calls) == killed_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    with contextlib.suppress(Interrupted):
        train(one, team, Hooks(Snapshots(folder), should_stop=end))


@pytest.mark.slow
def test_killed_and_stopped_it_continues(params, tmp_path):
    """The other process is killed in the second epoch; then the first is asked to stop; then it goes to the end."""
    one = chosen(params, "sglr")
    whole, said = train(one), []

    def go_on(killed_after: int | None = None, stop_at: int = 0) -> TrainingResult:
        calls = iter(range(1, 100))
        with together(2, CPU, follow, one, tmp_path, killed_after) as (team, _):
            snapshots = Snapshots(tmp_path, every_seconds=0)
            resumed, stop = (lambda *place: said.append(place)), (lambda: next(calls) == stop_at)
            return train(one, team, Hooks(snapshots, resumed, should_stop=stop))

    with pytest.raises(
        processes.ProcessError, match=r"process 1 of 2 failed with status -9\. Run it again to continue"
    ):
        go_on(killed_after=6)
    with pytest.raises(Interrupted):
        go_on(stop_at=2)
    found = go_on()
    assert said == [(2, 2), (2, 4)]
    torch.testing.assert_close(found.refined, whole.refined, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.last["head.weight"], whole.last["head.weight"], rtol=1e-3, atol=1e-5)
    assert len(found.history) == 3


def elsewhere(team: Team, device: torch.device, one: Plan, folder: Path) -> None:
    with pytest.raises(TrainingError):
        train(one, team, Hooks(Snapshots(folder / "of another machine")))


@pytest.mark.slow
def test_snapshots_that_not_all_see_are_refused(params, tmp_path):
    one = chosen(params, "sglr")
    calls = iter(range(1, 100))
    with pytest.raises(Interrupted):
        train(one, hooks=Hooks(Snapshots(tmp_path), should_stop=lambda: next(calls) == 2))
    with (
        together(2, CPU, elsewhere, one, tmp_path) as (team, _),
        pytest.raises(TrainingError, match="do not see the same snapshots"),
    ):
        train(one, team, Hooks(Snapshots(tmp_path)))


def test_batch_norm_on_cpus_is_refused():
    model = models.build("small_cnn", num_classes=4, shape=(1, 8, 8))
    with pytest.raises(ConfigError, match=r"2 processes cannot train a model with batch norm on a CPU.*SGLR_NPROC=1"):
        shared(model, 2, CPU)
    assert shared(model, 1, CPU) is model
    assert shared(network(), 2, CPU)


def test_batch_norm_on_gpus_is_that_of_all_and_folds():
    model = shared(models.build("small_cnn", num_classes=4, shape=(1, 8, 8)), 2, torch.device("cuda"))
    assert isinstance(model.bn1, torch.nn.SyncBatchNorm)
    assert list(model.state_dict()) == list(models.build("small_cnn", num_classes=4, shape=(1, 8, 8)).state_dict())
    assert models.folding.Folded(model).folds == 2


@pytest.mark.parametrize(("device", "size", "found"), [("cuda", 3, 2), ("cuda:1", 2, 1)])
def test_more_processes_than_gpus_are_refused(monkeypatch, device, size, found):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with (
        pytest.raises(ConfigError, match=f"{size} training processes need one GPU each, there are {found}"),
        together(size, torch.device(device), work),
    ):
        pass


def test_a_batch_smaller_than_the_team_is_refused(params):
    with pytest.raises(TrainingError, match="4 processes cannot share a batch of 3, the last of an epoch of 24"):
        train(chosen(params, "sglr"), Team(0, 4))


@pytest.mark.parametrize(
    ("device", "gpus", "beside", "message"),
    [
        ("cuda:0", 2, 2, "2 training processes need one GPU each: SGLR_DEVICE=cuda:0 is one for all of them"),
        ("cuda", 2, 4, "4 training processes on this machine need one GPU each, there are 2: start fewer"),
        ("cuda", 4, 4, None),
        ("cuda", 1, 4, None),  # each process is shown one of its own
        ("cuda:0", 1, 4, None),
        ("cpu", 0, 4, None),
    ],
)
def test_processes_of_a_launcher_share_no_gpu(monkeypatch, device, gpus, beside, message):
    for name, value in (("RANK", 0), ("WORLD_SIZE", 8), ("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", beside)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(ConfigError, match=message) if message else contextlib.nullcontext():
        _require_own_gpu(processes.launched(), torch.device(device))
