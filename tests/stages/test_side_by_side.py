"""``sglr run``: several items of the real pipeline at a time, the bytes of ``dvc repro``."""

import re
import signal
import time
from pathlib import Path

import pytest
from study_project import EPOCHS, ITEMS, Ended, Project

RUN = ("python", "-m", "sglr", "run", "--jobs", "2")
TRAININGS = ("train@at-0", "train@sglr-0")


def forget(project: Project, *items: str) -> Project:
    for item in items:
        project.forget(item)
    return project


def test_two_at_a_time_end_in_the_same_bytes(first_run: tuple[Project, Ended], finished: Project):
    items = ("evaluate@at-0", "evaluate@sglr-0")
    ended = forget(finished, *items).call(*RUN)
    assert ended.status == 0, ended.output
    lines = [re.sub(r"\d+ s$", "", line) for line in ended.output.splitlines()]
    assert lines[0] == "4 items are not done; 2 at a time."
    assert sorted(lines[1:3]) == [f"{item:<15}  started" for item in items]
    assert sorted(lines[3:5]) == [f"{item:<15}  done after " for item in items]
    later = [f"{item:<15}  {how}" for item in ("audit", "report") for how in ("started", "unchanged after ")]
    assert lines[5:] == [*later, "All done; `sglr results` prints the tables."]
    for item in items:
        assert f"Running stage '{item}':" in (finished.path / ".sglr/logs" / f"{item}.log").read_text()
    assert finished.lock() == first_run[0].lock()
    assert finished.call(*RUN).output == "Everything is up to date.\n"


@pytest.mark.slow
def test_one_that_fails_says_why_and_the_others_still_run(finished: Project):
    forget(finished, "evaluate@at-0", "evaluate@sglr-0")
    (finished.path / "artifacts/evaluate/at-0").rmdir()
    (finished.path / "artifacts/evaluate/at-0").write_text("in the way")
    ended = finished.call(*RUN)
    assert ended.status == 1
    assert "evaluate@at-0    FAILED after" in ended.output
    assert "evaluate@sglr-0  done after" in ended.output
    assert "at-0" in ended.output[ended.output.index("FAILED") :]
    assert ended.output.endswith("failed: evaluate@at-0 (what each said is in .sglr/logs); left out: audit, report.\n")


@pytest.mark.slow
def test_from_nothing(first_run: tuple[Project, Ended], blank: Project, tmp_path: Path):
    project = blank.copy(tmp_path / "study")
    ended = project.call("python", "-m", "sglr", "run", "--jobs", "3")
    assert ended.status == 0, ended.output
    assert len(re.findall("done after", ended.output)) == len(ITEMS)
    assert project.lock() == first_run[0].lock()
    assert project.repro().ran == []


@pytest.mark.slow
def test_stopped_in_two_trainings_it_continues_them(first_run: tuple[Project, Ended], finished: Project):
    forget(finished, *TRAININGS)
    running = finished.start(*RUN, SGLR_SNAPSHOT_SECONDS="0")
    deadline = time.monotonic() + 120
    while len({path.parent for path in finished.path.glob(".sglr/snapshots/train/*/snapshot-*")}) < 2:
        assert running.poll() is None, finished.said()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    running.send_signal(signal.SIGINT)
    assert running.wait(60) == 130
    assert finished.said().endswith("stopped by Ctrl-C\n")
    stopped = re.findall(r"^(\S+) +stopped after", finished.said(), re.MULTILINE)
    assert stopped  # the other one may have come to its end
    assert finished.call(*RUN).status == 0
    for item in stopped:
        said = (finished.path / ".sglr/logs" / f"{item}.log").read_text()
        (epoch,) = re.findall(rf"^resuming {item} from epoch (\d+), step \d+$", said, re.MULTILINE)
        assert 1 <= int(epoch) <= EPOCHS + 1  # after the last one: all but the outputs
    assert finished.lock() == first_run[0].lock()
