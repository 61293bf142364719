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
from sglr.evaluation.measurement import Measurement
from sglr.evaluation.outcome import Outcome
from sglr.evaluation.pieces import Pieces
from sglr.threat import L2, Linf

REPOSITORY = Path(__file__).parents[2]


def network(classes: int = 6) -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 24), nn.ReLU(), nn.Linear(24, classes))
    model[1].weight.data.mul_(2)
    return model.eval()


def images(n: int) -> torch.Tensor:
    return torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("norm", "threat"), [("Linf", Linf(0.03)), pytest.param("L2", L2(0.12), marks=pytest.mark.slow)]
)
def test_each_chunk_is_what_pyautoattack_finds_when_called_on_it(short, norm, threat, tmp_path):
    from pyautoattack import AutoAttack

    model, x = network(10), images(12)
    y = model(x).argmax(1)
    y[::7] = (y[::7] + 1) % 10  # examples that are wrong without an attack
    options = REGISTRY.options("autoattack")
    found = Measurement(model, x, y, options, threat, seed=4, chunk=6, pieces=Pieces(tmp_path), keep=9).whole()
    for number, (part, labels) in enumerate(zip(x.split(6), y.split(6), strict=True)):
        reference = AutoAttack(model, norm=norm, eps=threat.eps, version="standard", seed=4 + number)
        x_adv, _ = reference.run_standard_evaluation(part, labels, batch_size=6)
        expected = (model(x_adv).argmax(1) == labels).numpy()
        np.testing.assert_array_equal(found.correct[6 * number : 6 * (number + 1)], expected)
    assert 0 < found.correct.sum() < 10
    assert len(found.images) == 9
    kept = model(torch.from_numpy(found.images)).argmax(1) == y[:9]
    np.testing.assert_array_equal(kept.numpy(), found.correct[:9])


def test_members_are_those_of_the_versions():
    from pyautoattack import AutoAttack

    for version, members in MEMBERS.items():
        runner = AutoAttack(network(), eps=0.1, version=version, seed=0)
        assert tuple(runner.attacks_to_run) == members
        assert list(REGISTRY.options("autoattack", version=version).members(Linf(0.1))) == list(members)


def test_finished_members_and_chunks_are_not_repeated(short, tmp_path):
    model, x = network(), images(10)
    y = model(x).argmax(1)
    options = REGISTRY.options("autoattack")
    arguments = {"options": options, "threat": Linf(0.02), "seed": 0, "chunk": 5, "keep": 7}
    whole = Measurement(model, x, y, **arguments).whole()
    assert any("5 targets instead of 9" in warning for warning in whole.warnings)
    pieces = Pieces(tmp_path)
    Measurement(model, x, y, **arguments, pieces=pieces).whole()
    written = sorted(path.name for path in tmp_path.glob("*.npz"))
    assert written == [f"{chunk:06d}-{member}.npz" for chunk in (0, 1) for member in sorted(MEMBERS["standard"])]
    assert len(pieces) == 8
    # As after a kill during the second chunk's third member.
    for member in ("fab-t", "square"):
        (tmp_path / f"000001-{member}.npz").unlink()
    calls = Calls(model)
    again = Measurement(calls, x, y, **arguments, pieces=pieces).whole()
    same(again, whole)
    assert calls.number > 2
    calls.number = 0
    same(Measurement(calls, x, y, **arguments, pieces=pieces).whole(), whole)
    assert calls.number == 2  # the natural predictions of two chunks


def same(found: Outcome, expected: Outcome) -> None:
    assert found.warnings == expected.warnings
    for name in ("correct", "images", "margin"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


class Calls(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.number = model, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.number += 1
        return self.model(x)


def test_chunks_do_not_depend_on_those_before_even_for_a_random_model():
    model, x = network(), images(30)
    random = nn.Sequential(model, AlwaysDropout()).eval()
    y = model(x).argmax(1)
    options = REGISTRY.options("pgd", steps=2)
    whole = Measurement(random, x, y, options, Linf(0.01), seed=5, chunk=10).whole()
    part = Measurement(random, x[10:20], y[10:20], options, Linf(0.01), seed=6, chunk=10).whole()
    assert whole.correct[10:20].tolist() == part.correct.tolist()


class AlwaysDropout(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x, 0.5, training=True)


def test_chunks_equal_a_direct_call():
    model, x = network(), images(25)
    y = model(x).argmax(1)
    options = REGISTRY.options("apgd", steps=5)
    found = Measurement(model, x, y, options, Linf(0.02), seed=3, chunk=10).whole()
    expected = correct_under(model, x, y, options.build(Linf(0.02)), seed=3, batch_size=10)
    assert found.correct.tolist() == expected.tolist()
    assert found.warnings == ()


@pytest.mark.parametrize("damage", ["text", "cut", "of another size", "of numbers", "without images"])
def test_a_damaged_piece_is_done_again(tmp_path, damage):
    images = torch.rand(2, 1, 2, 2).numpy()
    piece = Outcome(np.array([True, False, True]), ("careful",), images, np.array([-0.5, 0.25], dtype=np.float32))
    pieces, path = Pieces(tmp_path).below("last", "pgd"), tmp_path / "last/pgd/000000.npz"
    same(pieces.once("000000", 3, lambda: piece), piece)
    arrays = files.read_arrays(path)
    if damage == "text":
        path.write_text("{")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    elif damage == "of another size":
        files.write_arrays(path, arrays | {"correct": np.array([True, False])})
    elif damage == "of numbers":
        files.write_arrays(path, arrays | {"correct": np.array([1, 0, 1])})
    else:
        files.write_arrays(path, {name: array for name, array in arrays.items() if name != "images"})
    for work in (lambda: piece, lambda: pytest.fail("done twice")):
        same(pieces.once("000000", 3, work), piece)


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
result = evaluation.evaluate(*study, device=CPU, pieces=folder / "pieces")
evaluation.write(result, folder / "out")
"""


def start(folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    paths = [str(REPOSITORY), str(REPOSITORY / "tests/evaluation")]
    code = SCRIPT.format(paths=paths, repository=repr(str(REPOSITORY)))
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_killed_in_the_middle_of_autoattack_it_continues_to_the_same_bytes(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait(120) == 0
    process = start(killed)
    deadline = time.monotonic() + 60
    while not (first := list(killed.glob("pieces/*/autoattack/*-apgd-ce.npz"))) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in (killed / "pieces").rglob("*.npz")}
    assert not list((killed / "pieces").rglob("*-square.npz"))
    assert start(killed).wait(120) == 0
    assert first[0] in kept
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())
    for name in ("metrics.json", "outcomes.npz", "worst.npz"):
        assert (killed / "out" / name).read_bytes() == (whole / "out" / name).read_bytes()


def test_keeping_pieces_changes_nothing(params, tmp_path):
    study = make(params, tmp_path)
    plain = evaluation.evaluate(*study, device=CPU)
    for _ in range(2):
        kept = evaluation.evaluate(*study, device=CPU, pieces=tmp_path / "pieces")
        assert kept.metrics() == plain.metrics()
    natural = files.read_arrays(tmp_path / "pieces/last/natural/000001.npz")
    attacked = files.read_arrays(tmp_path / "pieces/last/pgd3/000001-attack.npz")
    assert len(natural["correct"]) == len(natural["images"]) == 16
    assert len(attacked["correct"]) == len(attacked["images"]) == 8


def test_a_piece_of_other_kind_is_done_again(tmp_path):
    none = {"images": np.empty((0, 1)), "margin": np.empty(0), "warnings": np.array([], dtype=np.str_)}
    files.write_arrays(tmp_path / "0.npz", {"correct": np.array([2, 2]), **none})
    right = Outcome(np.array([True, False]), (), none["images"], none["margin"])
    assert Pieces(tmp_path).once("0", 2, lambda: right).correct.tolist() == [True, False]


def test_all_warnings_of_a_piece_come_back(tmp_path):
    done = Outcome(np.array([True, False]), ("one thing", "another"), np.empty((0, 1)), np.empty(0))
    assert Pieces(tmp_path).once("0", 2, lambda: done).warnings == done.warnings
    assert Pieces(tmp_path).once("0", 2, lambda: pytest.fail("it is kept")).warnings == done.warnings
