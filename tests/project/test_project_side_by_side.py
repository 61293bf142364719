"""Items of a study side by side, with a program in DVC's place that says when it begins and ends."""

import contextlib
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
import torch
import yaml
from waiting import until

from sglr import files
from sglr.config import ConfigError
from sglr.project import side_by_side
from sglr.project.side_by_side import Ended, Told

ROOT = Path(__file__).parents[2]
DVC = """
import os, pathlib, signal, sys, time
assert sys.argv[1:4] == ["--wait-for-lock", "repro", "--single-item"], sys.argv
item = sys.argv[4]
def say(what):
    with open("events", "a") as events:
        events.write(f"{what} {item}\\n")
def stop(*_):
    say("stopped")
    sys.exit(1)
signal.signal(signal.SIGINT, stop)
say("begun")
print(f"Running stage '{item}':\\ndevice", os.environ.get("SGLR_DEVICE"), flush=True)
time.sleep(float(os.environ.get("TAKES", "0.1")))
if item == os.environ.get("FAILS"):
    sys.exit("no luck with it")
say("over")
"""
STAGES = {
    "check": {"cmd": "check", "deps": ["params.yaml"], "outs": ["out/check"]},
    "train": {
        "matrix": {"method": "${methods}", "seed": "${seeds}"}, "cmd": "train", "deps": ["out/check"],
        "outs": ["out/train/${item.method}-${item.seed}"],
    },
    "evaluate": {
        "matrix": {"method": "${methods}", "seed": "${seeds}"}, "cmd": "evaluate",
        "deps": ["out/train/${item.method}-${item.seed}"], "outs": ["out/evaluate/${item.method}-${item.seed}"],
    },
    "report": {"cmd": "report", "deps": ["out/evaluate"], "outs": ["out/report"]},
}  # fmt: skip
ITEMS = ["check", "train@at-0", "train@sglr-0", "evaluate@at-0", "evaluate@sglr-0", "report"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root, fake = tmp_path / "project", tmp_path / "fake" / "dvc"
    for folder in (root, fake):
        folder.mkdir(parents=True)
    (fake / "__main__.py").write_text(DVC)
    (fake / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(fake.parent))
    monkeypatch.delenv("SGLR_DEVICE", raising=False)
    monkeypatch.delenv("SGLR_NPROC", raising=False)
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}, sort_keys=False))
    (root / "params.yaml").write_text("methods: [at, sglr]\nseeds: [0]\n")
    return root


def events(root: Path) -> list[tuple[str, ...]]:
    return [tuple(line.split()) for line in (root / "events").read_text().splitlines()]


def most_at_once(root: Path) -> int:
    counts, now = [0], 0
    for what, _ in events(root):
        now += 1 if what == "begun" else -1
        counts.append(now)
    return max(counts)


@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_each_begins_after_those_it_depends_on_and_no_more_at_once_than_asked(project: Path, jobs: int):
    ended: list[Ended] = []
    left = side_by_side.run(project, side_by_side.to_run(project), [None] * jobs, Told(end=ended.append))
    assert left == ([], [])
    assert sorted(one.item for one in ended) == sorted(ITEMS)
    assert {one.outcome for one in ended} == {"ran"}
    order = [item for what, item in events(project) if what == "begun"]
    assert order == ITEMS if jobs == 1 else sorted(order) == sorted(ITEMS)
    over = {item: place for place, (what, item) in enumerate(events(project)) if what == "over"}
    begun = {item: place for place, (what, item) in enumerate(events(project)) if what == "begun"}
    assert over["check"] < min(begun["train@at-0"], begun["train@sglr-0"])
    assert all(over[f"train@{name}-0"] < begun[f"evaluate@{name}-0"] for name in ("at", "sglr"))
    assert begun["report"] > max(over["evaluate@at-0"], over["evaluate@sglr-0"])
    assert most_at_once(project) == min(jobs, 2)


def test_what_depends_on_one_that_failed_is_left_out_and_nothing_else(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAILS", "train@at-0")
    ended: list[Ended] = []
    left = side_by_side.run(project, side_by_side.to_run(project), [None], Told(end=ended.append))
    assert left == (["train@at-0"], ["evaluate@at-0", "report"])
    assert ("over", "evaluate@sglr-0") in events(project)
    (failed,) = (one for one in ended if one.outcome == "failed")
    assert side_by_side.tail(project / failed.log).endswith("no luck with it")


def test_places_are_taken_in_turns_and_told_to_the_stage(project: Path):
    begun: list[tuple[str, str | None]] = []
    items = side_by_side.to_run(project)
    side_by_side.run(project, items, ["cuda:0", "cuda:1"], Told(start=lambda *one: begun.append(one)))
    devices = dict(begun)
    assert {devices["train@at-0"], devices["train@sglr-0"]} == {"cuda:0", "cuda:1"}
    for item, device in begun:
        assert f"device {device}" in (project / side_by_side.LOGS / f"{item}.log").read_text()


RUN = """
import pathlib
from sglr.project import side_by_side
root = pathlib.Path(".")
side_by_side.run(root, side_by_side.to_run(root), [None, None])
"""


@pytest.mark.parametrize(("number", "status"), [("SIGINT", -2), ("SIGTERM", 128 + 15), ("SIGHUP", 128 + 1)])
def test_a_signal_stops_each_of_them_once_and_is_passed_on_when_they_have_ended(
    project: Path, monkeypatch: pytest.MonkeyPatch, number: str, status: int
):
    monkeypatch.setenv("TAKES", "60")
    monkeypatch.setitem(STAGES["train"], "deps", [])
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": STAGES["train"]}}, sort_keys=False))
    # As from a terminal, however these tests were started: with nohup, or by a script in the background.
    fresh = "import signal as s; s.signal(s.SIGHUP, s.SIG_DFL); s.signal(s.SIGINT, s.default_int_handler)" + RUN
    running = subprocess.Popen([sys.executable, "-c", fresh], cwd=project, stderr=subprocess.DEVNULL)
    until(lambda: (project / "events").exists() and len(events(project)) == 2, running=running)
    running.send_signal(getattr(signal, number))
    assert running.wait(30) == status
    assert sorted(events(project)) == [
        (what, f"train@{name}-0") for what in ("begun", "stopped") for name in ("at", "sglr")
    ]


@pytest.mark.slow
def test_when_it_is_killed_those_at_work_come_to_their_ends(project: Path, monkeypatch: pytest.MonkeyPatch):
    """Until then nobody begins them again, although no stage holds its lock yet."""
    monkeypatch.setenv("TAKES", "2")
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"check": STAGES["check"]}}, sort_keys=False))
    study = side_by_side.to_run(project)
    running = subprocess.Popen([sys.executable, "-c", RUN], cwd=project)
    until(lambda: (project / "events").exists(), running=running)
    running.kill()
    running.wait()
    with pytest.raises(files.FileError, match="another process is at work on check: wait for it"):
        side_by_side.to_run(project)
    ended: list[Ended] = []
    assert side_by_side.run(project, study, [None], Told(end=ended.append)) == (["check"], [])
    assert [one.outcome for one in ended] == ["busy"]
    until(lambda: events(project) == [("begun", "check"), ("over", "check")])
    until(lambda: side_by_side.run(project, study, [None]) == ([], []))


def test_two_at_once_do_not_share_a_study(project: Path):
    with (
        files.lock(project / side_by_side.LOGS / ".lock"),
        pytest.raises(files.FileError, match="another `sglr run` holds"),
    ):
        side_by_side.run(project, side_by_side.to_run(project), [None])


STARTING = """
import os, pathlib, time
pathlib.Path("events").touch()
time.sleep(60)
"""


@pytest.mark.slow
def test_what_a_script_starts_in_the_background_can_be_stopped_too(project: Path):
    """It ignores SIGINT, and so would DVC, which does not handle it before its stage has come so far."""
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"check": STAGES["check"]}}))
    (Path(os.environ["PYTHONPATH"]) / "dvc" / "__main__.py").write_text(STARTING)
    ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)" + RUN
    running = subprocess.Popen([sys.executable, "-c", ignoring], cwd=project, stderr=subprocess.DEVNULL)
    until(lambda: (project / "events").exists(), running=running)
    running.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert running.poll() is None
    running.send_signal(signal.SIGTERM)
    assert running.wait(30) == 128 + signal.SIGTERM


def test_nobody_is_stopped_while_dvc_writes_its_lock_file(project: Path):
    (project / ".dvc" / "tmp").mkdir(parents=True)
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"check": STAGES["check"]}}))
    fake = """
import fcntl, signal, sys, time
with open(".dvc/tmp/lock", "a") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    def stop(*_):
        print("in the middle", flush=True)
    signal.signal(signal.SIGINT, stop)
    open("events", "w").close()
    time.sleep(1)
    print("written", flush=True)
signal.signal(signal.SIGINT, signal.SIG_DFL)
time.sleep(60)
"""
    (Path(os.environ["PYTHONPATH"]) / "dvc" / "__main__.py").write_text(fake)
    running = subprocess.Popen([sys.executable, "-c", RUN], cwd=project, stderr=subprocess.DEVNULL)
    until(lambda: (project / "events").exists(), running=running)
    running.send_signal(signal.SIGINT)
    running.wait(30)
    assert (project / side_by_side.LOGS / "check.log").read_text() == "written\n"


def test_of_what_is_asked_for_all_that_it_needs(project: Path):
    for asked, expected in (
        (["evaluate@at-0"], [ITEMS[0], ITEMS[1], ITEMS[3]]),
        (["train"], ITEMS[:3]),
        (["train", "evaluate@at-0"], ITEMS[:4]),
        ([], ITEMS),
    ):
        assert [item.name for item in side_by_side.to_run(project, asked).items] == expected
    with pytest.raises(files.FileError, match=r"the study has no item 'train@trades-0'; `sglr status` lists them"):
        side_by_side.to_run(project, ["train@trades-0"])


def test_one_that_another_process_works_on_is_not_begun_again(project: Path):
    with (
        files.lock(project / ".sglr" / "locks" / "train@sglr-0.lock"),
        pytest.raises(files.FileError, match=r"another process is at work on train@sglr-0: wait for it, or stop it"),
    ):
        side_by_side.to_run(project)
    with files.lock(project / ".sglr" / "locks" / "train@sglr-0.lock"):
        assert len(side_by_side.to_run(project, ["evaluate@at-0"]).items) == 3


def test_without_dvc_it_says_what_to_install(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(side_by_side.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(files.FileError, match=r"DVC is not installed here: pip install -e"):
        side_by_side.run(project, side_by_side.to_run(project), [None])


def test_the_python_of_this_process_is_found_by_stages(project: Path, monkeypatch: pytest.MonkeyPatch):
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"check": STAGES["check"]}}))
    fake = Path(os.environ["PYTHONPATH"]) / "dvc" / "__main__.py"
    fake.write_text("import os; print('PATH', os.environ['PATH'])")
    ours = str(Path(sys.executable).parent)
    for given, expected in (("/usr/bin", f"{ours}:/usr/bin"), (f"/first:{ours}", f"/first:{ours}")):
        monkeypatch.setenv("PATH", given)
        side_by_side.run(project, side_by_side.to_run(project), [None])
        assert f"PATH {expected}\n" in (project / side_by_side.LOGS / "check.log").read_text()


@pytest.mark.parametrize(
    ("environment", "gpus", "jobs", "threads", "expected"),
    [
        ({}, 0, None, 1, [None] * 6), ({}, 0, None, 4, [None]), ({}, 0, None, 8, [None]), ({}, 0, 3, 1, [None] * 3),
        ({}, 4, None, 1, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]), ({}, 2, 3, 1, ["cuda:0", "cuda:1", "cuda:0"]),
        ({"SGLR_DEVICE": "cuda"}, 2, None, 1, ["cuda:0", "cuda:1"]), ({"SGLR_DEVICE": "cuda:1"}, 2, None, 1, [None]),
        ({"SGLR_DEVICE": "cpu"}, 2, None, 2, [None] * 3), ({"SGLR_NPROC": "2"}, 2, None, 1, [None]),
        ({"SGLR_NPROC": "1"}, 2, None, 1, ["cuda:0", "cuda:1"]), ({"SGLR_NPROC": "2"}, 0, 2, 1, [None] * 2),
        ({}, 4, 1, 1, [None]), ({}, 1, None, 1, [None]), ({}, 1, 2, 1, ["cuda:0", "cuda:0"]),
    ],
)  # fmt: skip
def test_how_many_at_once_and_where(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], gpus: int, jobs: int | None, threads: int,
    expected: list[str | None],
):  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(side_by_side.processes, "cores", lambda: 6)
    for name in ("SGLR_DEVICE", "SGLR_NPROC"):
        monkeypatch.delenv(name, raising=False)
        if name in environment:
            monkeypatch.setenv(name, environment[name])
    assert side_by_side.places(jobs, threads) == expected


def test_an_environment_that_cannot_be_is_said_before_anything_runs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SGLR_DEVICE", "tpu")
    with pytest.raises(ConfigError, match="SGLR_DEVICE"):
        side_by_side.places(None, 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("SGLR_DEVICE", "auto")
    monkeypatch.setenv("SGLR_NPROC", "2")
    with pytest.raises(ConfigError, match="SGLR_NPROC=2 and 4 jobs: each item would use the same GPUs"):
        side_by_side.places(4, 1)


@pytest.fixture
def shipped(project: Path) -> Path:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, project / name)
    return project


def test_on_a_terminal_the_last_line_says_how_far_those_at_work_are(shipped: Path):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 150))
    command = [sys.executable, "-m", "sglr", "run", "--jobs", "6", "warmup@0", "warmup@1"]
    running = subprocess.Popen(command, cwd=shipped, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # how Linux says that nobody has the other end any more
        while more := os.read(ours, 2**16):
            said += more
    os.close(ours)
    running.wait(30)
    text = said.decode()
    assert "4 items are not done; 4 at a time." in text
    assert re.search(r"2 of 4 ended, 00:0\d: warmup@0 for 0 s; warmup@1 for 0 s", text), text
    assert "warmup@0  done after 0 s" in text


@pytest.mark.slow
def test_elsewhere_there_are_lines_alone(shipped: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAILS", "prepare")
    command = [sys.executable, "-m", "sglr", "run", "--jobs", "2", "warmup@0"]
    ended = subprocess.run(command, cwd=shipped, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert re.sub(r"\d+ s", "0 s", ended.stdout).splitlines() == [
        "3 items are not done; 2 at a time.",
        "check     started",
        "check     done after 0 s",
        "prepare   started",
        "prepare   FAILED after 0 s",
    ]
    assert ended.stderr.splitlines() == [
        "Running stage 'prepare':",
        "device None",
        "no luck with it",
        "Error: failed: prepare (what each said is in .sglr/logs); left out: warmup@0.",
    ]
    assert ended.returncode == 1


@pytest.mark.slow
def test_what_was_edited_while_it_ran_is_said(shipped: Path):
    """Here nothing is done afterwards, because DVC's stand-in makes nothing."""
    command = [sys.executable, "-m", "sglr", "run", "--jobs", "2", "warmup@0"]
    ended = subprocess.run(command, cwd=shipped, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    said = "Error: params, code or data were edited meanwhile: 3 items must run again; `sglr status` says why.\n"
    assert (ended.returncode, ended.stderr) == (1, said)
