"""Helper processes: one error, no orphans."""

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
from waiting import until

from sglr import files, processes


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


@pytest.mark.slow
def test_they_end_when_the_first_process_fails(tmp_path):
    def fail():
        with processes.alongside(1, wait, tmp_path / "here"):
            until((tmp_path / "here").exists)
            started.extend(helpers(psutil.Process()))
            raise KeyError

    started: list[psutil.Process] = []
    with pytest.raises(KeyError):
        fail()
    assert len(started) == 1
    assert not started[0].is_running()


PARENT = """
import sys, time, pathlib
sys.path[:0] = {folders!r}
from test_processes_helpers import wait
from sglr import processes
if __name__ == "__main__":
    with processes.alongside(1, wait, pathlib.Path({here!r})):
        time.sleep(60)
"""


@pytest.mark.slow
def test_they_end_when_the_first_process_is_killed(tmp_path):
    script, here = tmp_path / "parent.py", tmp_path / "here"
    script.write_text(PARENT.format(folders=list(map(str, Path(__file__).parents[:2])), here=str(here)))
    parent = subprocess.Popen([sys.executable, str(script)])
    until(here.exists)
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
    until(starts.exists)
    (helper,) = helpers(psutil.Process(parent.pid))
    for number in (signal.SIGINT, signal.SIGTERM):
        helper.send_signal(number)
    until(works.exists)
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
