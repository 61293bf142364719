"""Several processes on one evaluation: the same bytes, one error, no orphans."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from evaluation_study import CPU, make

from sglr import evaluation, files, models, processes
from sglr.config import ConfigError
from sglr.config.errors import ModelError

ATTACKS = {"fgsm": "fgsm", "apgd": {"name": "apgd", "steps": 3, "n_examples": 24}}


def test_the_number_of_processes_changes_no_byte(params, tmp_path):
    sweep = {"eps_255": [5.0], "steps": 2}
    study = make(params, tmp_path, attacks=ATTACKS, batch_size=8, sweep=sweep)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for nproc in (1, 2):
            folder = tmp_path / str(nproc)
            result = evaluation.evaluate(*study, device=CPU, pieces=folder / "pieces", nproc=nproc)
            evaluation.write(result, folder)
    finally:
        torch.set_num_threads(before)
    for name in ("metrics.json", "outcomes.npz", "worst.npz"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    pieces = [sorted(path.name for path in (tmp_path / n / "pieces").rglob("*.npz")) for n in "12"]
    assert pieces[0] == pieces[1]


def test_resuming_is_said(params, tmp_path):
    study = make(params, tmp_path)
    said = []
    for _ in range(2):
        evaluation.evaluate(*study, device=CPU, pieces=tmp_path / "pieces", on_resume=said.append)
    assert said == [len(list((tmp_path / "pieces").rglob("*.npz")))]
    assert said[0] > 2 * 3  # the natural predictions, and attacks


@pytest.mark.parametrize("nproc", [1, 2])
def test_natural_accuracy_is_said_once_per_checkpoint_before_its_attacks(params, tmp_path, nproc):
    """Before any of its attacks is on disk; of all examples, whichever process takes them."""
    study, folder = make(params, tmp_path, attacks={"fgsm": "fgsm"}, batch_size=8), tmp_path / "pieces"
    said = []

    def say(checkpoint, accuracy, examples):
        said.append((checkpoint, accuracy, examples))
        if nproc == 1:
            assert not list((folder / checkpoint / "fgsm").glob("*.npz"))
        assert len(list((folder / checkpoint / "natural").glob("*.npz"))) == 5

    result = evaluation.evaluate(*study, device=CPU, pieces=folder, nproc=nproc, on_natural=say)
    assert said == [(name, result.accuracy("natural", name), 40) for name in ("best", "last")]


def say_and_fail(rank, message):
    if rank == 2:
        raise files.FileError(message)


def wait(rank, here):
    here.touch()
    time.sleep(60)


def exit_with(rank, status):
    os._exit(status)


def test_what_one_of_them_says_is_the_error():
    with (
        pytest.raises(processes.ProcessError, match=r"process 2 of 3 failed: the disk is full\. Run it again"),
        processes.alongside(2, say_and_fail, "the disk is full"),
    ):
        pass
    with (
        pytest.raises(processes.ProcessError, match=r"process 1 of 2 failed with status 7"),
        processes.alongside(1, exit_with, 7),
    ):
        pass


def fail_at_length(rank, length):
    raise RuntimeError("x" * length)


def test_a_long_error_holds_nothing_up():
    """A compiler's may be longer than a pipe holds, which nobody reads before the process has ended."""
    with (
        pytest.raises(processes.ProcessError, match=r"process 1 of 2 failed: x{4000}\. Run it again"),
        processes.alongside(1, fail_at_length, 100_000),
    ):
        pass


def helpers(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children() if "spawn_main" in " ".join(child.cmdline())]


def until(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_they_end_when_the_first_process_fails(tmp_path):
    def fail():
        with processes.alongside(1, wait, tmp_path / "here"):
            until(tmp_path / "here")
            started.extend(helpers(psutil.Process()))
            raise KeyError

    started: list[psutil.Process] = []
    with pytest.raises(KeyError):
        fail()
    assert len(started) == 1
    assert not started[0].is_running()


PARENT = """
import sys, time, pathlib
sys.path.insert(0, {folder!r})
from test_evaluation_shared import wait
from sglr import processes
if __name__ == "__main__":
    with processes.alongside(1, wait, pathlib.Path({here!r})):
        time.sleep(60)
"""


@pytest.mark.slow
def test_they_end_when_the_first_process_is_killed(tmp_path):
    script, here = tmp_path / "parent.py", tmp_path / "here"
    script.write_text(PARENT.format(folder=str(Path(__file__).parent), here=str(here)))
    parent = subprocess.Popen([sys.executable, str(script)])
    until(here)
    left = helpers(psutil.Process(parent.pid))
    assert len(left) == 1
    parent.send_signal(signal.SIGKILL)
    parent.wait(10)
    _gone, alive = psutil.wait_procs(left, timeout=20)
    assert not alive


STARTING = """
import pathlib, sys, time
from sglr import processes
def work(rank):
    pathlib.Path({works!r}).touch()
    time.sleep(60)
if __name__ == "__mp_main__":  # in a helper, before its work
    pathlib.Path({starts!r}).touch()
    time.sleep(1)
if __name__ == "__main__":
    try:
        with processes.alongside(1, work):
            time.sleep(60)
    except KeyboardInterrupt:
        sys.exit("stopped")
"""


def test_ctrl_c_while_they_start_reaches_the_first_process_alone(tmp_path):
    script, starts, works = (tmp_path / name for name in ("parent.py", "starts", "works"))
    script.write_text(STARTING.format(starts=str(starts), works=str(works)))
    parent = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE, text=True)
    until(starts)
    (helper,) = helpers(psutil.Process(parent.pid))
    for number in (signal.SIGINT, signal.SIGTERM):
        helper.send_signal(number)
    until(works)
    parent.send_signal(signal.SIGINT)
    assert parent.communicate(timeout=20) == (None, "stopped\n")
    assert not helper.is_running()


def test_ctrl_c_in_the_middle_of_a_start_is_not_lost(tmp_path, monkeypatch):
    """It comes once the helper is known, so that it is ended."""

    def start(process):
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        unchanged(process)
        started.append(process)

    def interrupted():
        with processes.alongside(1, wait, tmp_path / "here"):
            pytest.fail("the block began")

    started, unchanged = [], multiprocessing.context.SpawnProcess.start
    monkeypatch.setattr(multiprocessing.context.SpawnProcess, "start", start)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [process.exitcode for process in started] == [-signal.SIGKILL]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_how_many():
    assert processes.count("auto", CPU) == 1
    assert processes.count("3", CPU) == 3
    for wrong in ("0", "-1", "two", "1.5", ""):
        with pytest.raises(ConfigError, match="SGLR_NPROC"):
            processes.count(wrong, CPU)
    assert processes.device_of(3, CPU) == CPU


def test_gpus_are_taken_in_turns(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = [processes.device_of(rank, torch.device("cuda")) for rank in range(3)]
    assert [device.index for device in found] == [0, 1, 0]
    assert processes.device_of(2, torch.device("cuda:1")).index == 1
    assert processes.count("auto", torch.device("cuda")) == 2
    assert processes.count("auto", torch.device("cuda:1")) == 1


def test_a_model_that_gives_nan_is_named_before_others_begin(params, tmp_path, monkeypatch):
    config, prepared, trained = make(params, tmp_path)
    model = models.load_model(trained / "last")
    model.head.weight.data.fill_(float("nan"))
    models.save(model, trained / "last", files.read_json(trained / "last/model.json"))
    monkeypatch.setattr(processes, "alongside", None)
    with pytest.raises(ModelError, match=r"the model at .*last gives NaN or infinite logits"):
        evaluation.evaluate(config, prepared, trained, device=CPU, pieces=tmp_path / "pieces", nproc=2)
    assert not (tmp_path / "pieces").exists()


def test_a_model_that_does_not_fit_is_said_before_any_work(params, tmp_path):
    config, data, trained = make(params, tmp_path)
    (trained / "last" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(files.FileError, match="last"):
        evaluation.evaluate(config, data, trained, device=CPU, pieces=tmp_path / "pieces", nproc=2)
    assert not list(tmp_path.glob("pieces/**/*.npz"))
    assert models.load_model(trained / "best")
