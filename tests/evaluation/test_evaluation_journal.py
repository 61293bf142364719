"""Chunks against direct calls, AutoAttack's members against the whole, and evaluations that were killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_study import CPU, make
from torch import nn

from sglr import evaluation, files
from sglr.attacks import REGISTRY, correct_under
from sglr.attacks.autoattack import MEMBERS, captured_warnings
from sglr.evaluation.chunks import outcomes
from sglr.evaluation.journal import Journal
from sglr.threat import L2, Linf

REPOSITORY = Path(__file__).parents[2]


def network(classes: int = 6) -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 24), nn.ReLU(), nn.Linear(24, classes))
    model[1].weight.data.mul_(2)
    return model.eval()


def pictures(n: int) -> torch.Tensor:
    return torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def short(monkeypatch):
    """AutoAttack with fewer queries and FAB steps: the same code in a tenth of the time."""
    from pyautoattack import AutoAttack

    set_version = AutoAttack._set_version

    def shortened(self, version="standard"):
        set_version(self, version)
        self.square.n_queries, self.fab.n_iter = 300, 10

    monkeypatch.setattr(AutoAttack, "_set_version", shortened)


@pytest.mark.parametrize(("norm", "threat"), [("Linf", Linf(0.03)), ("L2", L2(0.12))])
def test_each_chunk_is_what_pyautoattack_finds_when_called_on_it(short, norm, threat, tmp_path):
    from pyautoattack import AutoAttack

    model, x = network(10), pictures(12)
    y = model(x).argmax(1)
    y[::7] = (y[::7] + 1) % 10  # examples that are wrong without an attack
    options = REGISTRY.options("autoattack")
    found, _ = outcomes(model, x, y, options, threat=threat, seed=4, chunk=6, journal=Journal(tmp_path))
    for number, (part, labels) in enumerate(zip(x.split(6), y.split(6), strict=True)):
        reference = AutoAttack(model, norm=norm, eps=threat.eps, version="standard", seed=4 + number)
        x_adv, _ = reference.run_standard_evaluation(part, labels, batch_size=6)
        expected = (model(x_adv).argmax(1) == labels).numpy()
        np.testing.assert_array_equal(found[6 * number : 6 * (number + 1)], expected)
    assert 0 < found.sum() < 10


def test_members_are_those_of_the_versions():
    from pyautoattack import AutoAttack

    for version, members in MEMBERS.items():
        runner = AutoAttack(network(), eps=0.1, version=version, seed=0)
        assert tuple(runner.attacks_to_run) == members
        assert list(REGISTRY.options("autoattack", version=version).members(Linf(0.1))) == list(members)


def test_finished_members_and_chunks_are_not_repeated(short, tmp_path):
    model, x = network(), pictures(10)
    y = model(x).argmax(1)
    options = REGISTRY.options("autoattack")
    arguments = {"threat": Linf(0.02), "seed": 0, "chunk": 5}
    whole = outcomes(model, x, y, options, **arguments)
    assert any("5 targets instead of 9" in warning for warning in whole[1])
    outcomes(model, x, y, options, **arguments, journal=Journal(tmp_path))
    pieces = sorted(path.name for path in tmp_path.glob("*.json"))
    assert pieces == [f"{chunk:06d}-{member}.json" for chunk in (0, 1) for member in sorted(MEMBERS["standard"])]
    # As after a kill during the second chunk's third member.
    for member in ("fab-t", "square"):
        (tmp_path / f"000001-{member}.json").unlink()
    calls = Calls(model)
    again = outcomes(calls, x, y, options, **arguments, journal=Journal(tmp_path))
    assert again[0].tolist() == whole[0].tolist()
    assert again[1] == whole[1]
    assert calls.number > 2
    calls.number = 0
    assert outcomes(calls, x, y, options, **arguments, journal=Journal(tmp_path))[1] == whole[1]
    assert calls.number == 2  # the natural predictions of two chunks


class Calls(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.number = model, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.number += 1
        return self.model(x)


def test_chunks_do_not_depend_on_those_before_even_for_a_random_model():
    model, x = network(), pictures(30)
    random = nn.Sequential(model, AlwaysDropout()).eval()
    y = model(x).argmax(1)
    options = REGISTRY.options("pgd", steps=2)
    whole, _ = outcomes(random, x, y, options, threat=Linf(0.01), seed=5, chunk=10)
    part, _ = outcomes(random, x[10:20], y[10:20], options, threat=Linf(0.01), seed=6, chunk=10)
    assert whole[10:20].tolist() == part.tolist()


class AlwaysDropout(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x, 0.5, training=True)


def test_chunks_equal_a_direct_call():
    model, x = network(), pictures(25)
    y = model(x).argmax(1)
    options = REGISTRY.options("apgd", steps=5)
    found, said = outcomes(model, x, y, options, threat=Linf(0.02), seed=3, chunk=10)
    expected = correct_under(model, x, y, options.build(Linf(0.02)), seed=3, batch_size=10)
    assert found.tolist() == expected.tolist()
    assert said == []


@pytest.mark.parametrize(
    "damage",
    ["{", '{"correct": "01"}', '{"correct": "012", "warnings": []}', '{"correct": "0111", "warnings": []}', "[]"],
)
def test_a_damaged_piece_is_done_again(tmp_path, damage):
    piece = np.array([True, False, True]), ["careful"]
    journal = Journal(tmp_path).below("last", "pgd")
    (tmp_path / "last/pgd").mkdir(parents=True)
    (tmp_path / "last/pgd/000000.json").write_text(damage)
    for work in (lambda: piece, lambda: pytest.fail("done twice")):
        correct, warnings = journal.once("000000", 3, work)
        assert (correct.dtype, correct.tolist(), warnings) == (bool, [True, False, True], ["careful"])


def test_square_beating_the_others_is_a_warning():
    from sglr.attacks.autoattack import warn_of_square

    with captured_warnings() as warnings:
        warn_of_square({"clean": 0.9, "apgd-ce": 0.8, "square": 0.5})
        warn_of_square({"clean": 0.9, "apgd-ce": 0.8, "square": 0.8})
    assert len(warnings) == 1
    assert "Square Attack has decreased the robust accuracy of 30.00%" in warnings[0]


SCRIPT = """
import sys, pathlib, torch, json
sys.path[:0] = {paths}
torch.set_num_threads(1)
from evaluation_study import CPU, make
from sglr import evaluation
from sglr.config import parse
folder = pathlib.Path(sys.argv[1])
params = parse((pathlib.Path({repository}) / "params.yaml").read_text())
attacks = {{"pgd": {{"name": "pgd", "steps": 5}}, "autoattack": {{"name": "autoattack", "n_examples": 24}}}}
params["threat"]["eps_255"] = 0.1  # so small that every member has work left
study = make(params, folder, attacks=attacks, batch_size=12)
result = evaluation.evaluate(*study, device=CPU, journal=folder / "journal")
evaluation.write(result, folder / "out")
"""


def start(folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    paths = [str(REPOSITORY), str(REPOSITORY / "tests/evaluation")]
    code = SCRIPT.format(paths=paths, repository=repr(str(REPOSITORY)))
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_killed_in_the_middle_of_autoattack_it_continues_to_the_same_bytes(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait(120) == 0
    process = start(killed)
    deadline = time.monotonic() + 60
    while not (first := list(killed.glob("journal/*/autoattack/*-apgd-ce.json"))) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in (killed / "journal").rglob("*.json")}
    assert not list((killed / "journal").rglob("*-square.json"))
    assert start(killed).wait(120) == 0
    assert first[0] in kept
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())
    for name in ("metrics.json", "outcomes.npz"):
        assert (killed / "out" / name).read_bytes() == (whole / "out" / name).read_bytes()


def test_a_journal_changes_nothing(params, tmp_path):
    study = make(params, tmp_path)
    plain = evaluation.evaluate(*study, device=CPU)
    for _ in range(2):
        kept = evaluation.evaluate(*study, device=CPU, journal=tmp_path / "journal")
        assert kept.metrics() == plain.metrics()
    assert len(files.read_json(tmp_path / "journal/last/pgd3/000001.json")["correct"]) == 8
