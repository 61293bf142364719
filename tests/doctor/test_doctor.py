"""What `sglr doctor` finds, and what it forecasts."""

import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from command import call

from sglr import data, models, processes, tracking
from sglr.attacks import AttackOptions
from sglr.attacks.fgsm import FgsmOptions
from sglr.config import ConfigError, load
from sglr.config.reader import validate
from sglr.data.registry import SourceOptions
from sglr.doctor import duration, examining, machine, space
from sglr.files import FileError
from sglr.objectives.at import AdversarialTraining
from sglr.project import status
from sglr.tracking import journal
from sglr.tracking.delivery import DeliveryState
from sglr.training import Hooks, Plan, Snapshots, fit, warm_up
from stages import tracked


@pytest.fixture
def project(digits_project, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    return digits_project


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network is built and timed for the forecast."""
    for name in ("of_trainings", "of_evaluations"):
        monkeypatch.setattr(duration, name, lambda *_: 1.0)


def about(what: str, root: Path) -> list[tuple[str, str]]:
    return [(finding.level, finding.text) for finding in examining.examine(root) if finding.about == what]


def test_doctor_finds_what_is_wrong(project, monkeypatch):
    monkeypatch.setenv("SGLR_DEVICE", "cuda:3")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9/path")
    monkeypatch.delenv("SGLR_TRACKING")
    result = call("doctor")
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert any(line.startswith("problem") and "SGLR_DEVICE='cuda:3' requests a GPU" in line for line in lines)
    assert any(line.startswith("warning") and "no server at 127.0.0.1:9" in line for line in lines)
    assert any(line.startswith("problem") and "there is no dvc.yaml" in line for line in lines)
    assert "secret" not in result.output


def test_doctor_goes_on_where_the_folders_name_is_the_problem(tmp_path, digits_project, monkeypatch):
    monkeypatch.delenv("SGLR_TRACKING", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copytree(digits_project, tmp_path / "a?b", ignore=shutil.ignore_patterns("a?b"))
    found = examining.examine(tmp_path / "a?b")
    (said,) = [finding for finding in found if finding.about == "tracking"]
    assert said.level == "problem"
    assert "rename the folder" in said.text
    assert {"python", "params", "time", "disk"} <= {finding.about for finding in found}


@pytest.mark.parametrize("required", [False, True])
def test_doctor_asks_the_server_as_a_run_does(project, monkeypatch, required):
    """One that is there and refuses, as for a wrong password."""
    refuse = {method: lambda self: self.send_error(401) for method in ("do_GET", "do_POST")}
    handler = type("Refusing", (http.server.BaseHTTPRequestHandler,), refuse)
    monkeypatch.setattr(handler, "log_message", lambda *_: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("SGLR_TRACKING", "required" if required else "")
        (said,) = [finding for finding in examining.examine(project) if finding.about == "tracking"]
        server.shutdown()
    assert said.text.startswith(f"the server at 127.0.0.1:{server.server_port} fails (")
    assert "401" in said.text
    assert said.level == ("problem" if required else "warning")
    assert said.text.endswith("(SGLR_TRACKING=required)" if required else "sends later what is missing")


@pytest.mark.parametrize("address", ["http://127.0.0.1:50x00", "http://127.0.0.1:99999", "http://[::1"])
def test_a_tracking_address_that_is_none_is_said(project, monkeypatch, address):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("SGLR_TRACKING", "on")
    ((level, text),) = about("tracking", project)
    assert (level, text.partition(": runs go on")[0]) == ("warning", f"MLFLOW_TRACKING_URI={address} is no address")


@pytest.mark.parametrize("address", ["./mlruns", "mlruns", "file:./mlruns"])
def test_doctor_says_where_mlflow_refuses_folders(project, monkeypatch, address):
    def refuse(root):
        raise RuntimeError("set `MLFLOW_ALLOW_FILE_STORE=true`")

    monkeypatch.setattr("sglr.tracking.server.connect", refuse)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("SGLR_TRACKING", "on")
    ((level, text),) = about("tracking", project)
    assert level == "warning"
    assert text.startswith(f"MLflow does not take {address} (set `MLFLOW_ALLOW_FILE_STORE=true`): runs go on")


def test_doctor_looks_for_what_an_installation_brings():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    bare, pipeline = (
        {re.match(r"[\w.-]+", wanted)[0] for wanted in asked}
        for asked in (project["dependencies"], project["optional-dependencies"]["pipeline"])
    )
    looked_for = {name for names in examining.PACKAGES.values() for name in names}
    assert pipeline <= looked_for <= pipeline | bare


def test_doctor_names_packages_and_params(project, monkeypatch):
    missing = {"mlflow", "scikit-learn", "scipy", "pillow", "pyautoattack"}
    monkeypatch.setattr("sglr.config.packages.version", lambda name: None if name in missing else "1.0")
    found = {finding.text: finding.level for finding in examining.examine(project)}
    assert found["data.source needs scikit-learn: pip install scikit-learn"] == "problem"
    assert found["evaluate.sanity needs pyautoattack: pip install pyautoattack"] == "problem"
    for lack in (
        "mlflow missing, needed for the pipeline",
        "scipy missing, needed for intervals over seeds and temperatures",
        "pillow missing, needed for `sglr predict`",
    ):
        assert [level for text, level in found.items() if text.startswith(f"{lack}: pip install")] == ["warning"]
    (project / "params.yaml").write_text("experiment: {}\n")
    found = {finding.about: finding.level for finding in examining.examine(project) if finding.level == "problem"}
    assert "params" in found


def test_runs_that_ended_in_an_error_and_were_sent_are_not_waited_for(project, monkeypatch):
    """Their journals stay, because running them again reopens their runs."""
    monkeypatch.delenv("SGLR_TRACKING")
    header = {"experiment": "digits", "stage": "prepare", "item": "prepare", "tags": {}, "parent": None}
    with journal.claim(project, header, "k1") as written:
        written.append("end", status="FAILED")
    assert any("1 runs not completely sent" in text for _, text in about("tracking", project))
    DeliveryState(offset=(written.folder / "journal.jsonl").stat().st_size).write(written.folder)
    assert not any("not completely sent" in text for _, text in about("tracking", project))


@pytest.mark.parametrize(
    ("cores", "environment", "said"),
    [(1, {}, None), (4, {}, 4), (4, {"SGLR_NPROC": "2"}, None), (4, {"SGLR_DEVICE": "tpu"}, None)],
)
def test_doctor_says_how_many_items_fit_side_by_side(project, untimed, monkeypatch, cores, environment, said):
    monkeypatch.setattr(examining.processes, "cores", lambda: cores)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    expected = [("ok", f"`dvc repro` runs one item after another, `sglr run` {said} at a time")]
    assert about("jobs", project) == (expected if said else [])


@pytest.mark.usefixtures("untimed")
def test_doctor_says_where_nothing_can_be_compiled(project, params, monkeypatch):
    class Properties:
        name, total_memory = "H200", 139 * 2**30

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: Properties)
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(examining.processes, "device", lambda asked: torch.device(asked))
    monkeypatch.setenv("SGLR_DEVICE", "cuda")
    assert about("device", project) == [("ok", "cuda:0 H200, 139 GiB")]
    params["train"]["compile"], params["evaluate"]["compile"] = "auto", "always"
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    lack = "needs a C compiler (gcc or clang), which is missing"
    said = [("warning", f"train.compile auto {lack}"), ("warning", f"evaluate.compile always {lack}")]
    assert about("device", project)[1:] == said
    monkeypatch.setenv("SGLR_DEVICE", "cpu")  # whose compiler Triton does not need
    assert about("device", project) == [("ok", "cuda:0 H200, 139 GiB")]
    monkeypatch.setenv("SGLR_DEVICE", "cuda")
    monkeypatch.setenv("CC", "cc")
    monkeypatch.setattr(machine.sysconfig, "get_path", lambda name: "/none")
    assert "Python's headers (/none/Python.h; python3-dev on Debian)" in about("device", project)[1][1]


@pytest.mark.parametrize(("name", "error"), [("getuser", KeyError("uid not found: 54321")), ("home", RuntimeError())])
def test_what_is_wrong_with_the_user_is_said(project, monkeypatch, name, error):
    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(machine.getpass if name == "getuser" else machine.Path, name, failing)
    ((level, said),) = about("environment", project)
    assert level == "problem"
    assert said.startswith("DVC will stop, because this user has no name or home: set USER to any name")


@pytest.mark.usefixtures("untimed")
def test_stages_need_this_python(project, tmp_path, monkeypatch):
    assert about("environment", project) == []
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    ((level, said),) = about("environment", project)
    assert level == "problem"
    assert said.startswith("PYTHONSAFEPATH keeps")
    monkeypatch.delenv("PYTHONSAFEPATH")
    monkeypatch.setenv("PATH", str(tmp_path))
    ((level, said),) = about("environment", project)
    assert level == "warning"
    todo = f"activate the environment ({sys.prefix}); `make repro` does by itself"
    assert said == f"`dvc repro` starts stages as `python`, which is not found: {todo}"
    (tmp_path / "linked").symlink_to(sys.prefix)
    other = tmp_path / "python"
    for does, expected in (
        ("echo /elsewhere", ["which is that of /elsewhere"]),
        (f"echo {tmp_path}/linked", []),
        ("exec /bin/sleep 60", ["which is not found"]),
    ):
        other.write_text(f"#!/bin/sh\n{does}\n")
        other.chmod(0o755)
        monkeypatch.setattr(machine, "_PATIENCE", 0.5)
        found = about("environment", project)
        assert len(found) == len(expected)
        assert all(part in said for part, (_, said) in zip(expected, found, strict=True))


@pytest.mark.usefixtures("untimed")
def test_a_gpu_that_torch_does_not_see(project, tmp_path, monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "SGLR_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    listing = tmp_path / "nvidia-smi"
    listing.write_text("#!/bin/sh\necho 'GPU 0: Tesla P100 (UUID: GPU-1)'\n")
    listing.chmod(0o755)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    level, said = about("device", project)[1]
    assert level == "warning"
    assert said.startswith(f"GPU 0: Tesla P100 (UUID: GPU-1) is here, but torch {torch.__version__}, which is built")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # as a cluster's jobs have it
    assert len(about("device", project)) == 2
    for hidden in ("", "-1", "NoDevFiles"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert len(about("device", project)) == 1
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("SGLR_DEVICE", "cpu")
    assert len(about("device", project)) == 1
    monkeypatch.delenv("SGLR_DEVICE")
    listing.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert len(about("device", project)) == 1
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    said = "Apple's GPU is not used: it has no float64, which training sums in"
    assert about("device", project)[1] == ("warning", said)
    with pytest.raises(ConfigError, match=r"SGLR_DEVICE='mps' is not supported; use .* Apple's GPUs have no float64"):
        processes.device("mps")


@pytest.mark.parametrize(
    ("bound", "limit", "cores"),
    [(8, "max 100000", 8), (8, "250000 100000", 2), (2, "800000 100000", 2), (4, "50000 100000", 1), (4, None, 4)],
)
def test_cores_are_those_that_may_be_used(monkeypatch, bound, limit, cores):
    """Of a job that is bound to some, or a container that has a share."""

    def read(path: Path) -> str:
        if limit is None:
            raise FileNotFoundError
        assert str(path) == "/sys/fs/cgroup/cpu.max"
        return limit

    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(bound)), raising=False)
    monkeypatch.setattr(Path, "read_text", read)
    assert processes.cores() == cores


@pytest.mark.usefixtures("untimed")
def test_dvc_needs_a_repository_around_it(project, monkeypatch):
    lack = f"{project} is in no git repository, which DVC needs: clone the project, or `git init`"
    assert ("problem", lack) in about("project", project)
    (project / ".dvc").mkdir(exist_ok=True)
    (project / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    assert not [said for _, said in about("project", project) if "git" in said.replace(str(project), "")]
    (project / ".dvc" / "config").write_text("")
    subprocess.run(["git", "init", "-q", str(project.parent)], check=True)  # of which it is a folder
    assert not [said for _, said in about("project", project) if "no git repository" in said]


def test_a_repository_that_git_refuses(project, monkeypatch, capsys):
    """As it does where the folder is another user's."""
    subprocess.run(["git", "init", "-q"], check=True, cwd=project)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    ((level, said),) = [one for one in about("project", project) if "commit" in one[1]]
    assert level == "warning"
    assert said.startswith("runs are recorded without their commit: fatal: detected dubious ownership")
    assert tracked._git_commit() == "unknown"
    assert "recorded without the commit, which git does not tell: fatal: detected dubious" in capsys.readouterr().err
    monkeypatch.delenv("GIT_TEST_ASSUME_DIFFERENT_OWNER")
    assert tracked._git_commit() == "unknown"  # there is none yet
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *author, "commit", "-q", "--allow-empty", "-m", "x"], check=True, cwd=project)
    monkeypatch.setenv("GIT_TRACE", "1")  # git says something, and the commit
    assert len(tracked._git_commit()) == 40
    assert capsys.readouterr().err == ""
    assert not [said for _, said in about("project", project) if "commit" in said]


def test_doctor_forecasts_the_disk(project):
    ((_, text),) = about("disk", project)
    assert re.fullmatch(r"[\d,]+ MB free, up to \d+ MB needed for what is still to run", text)


def test_what_is_on_the_disk_already_needs_no_room(project, monkeypatch):
    items = ["prepare", *(f"warmup@{seed}" for seed in range(3)), "audit", "report"]
    items += [f"{s}@{m}-{n}" for s in ("train", "evaluate", "analyze") for m in ("at", "sglr") for n in range(3)]
    settings = load(project / "params.yaml")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2_000_000))
    found = [status.Status(item, "done") for item in ("check", *items)]
    monkeypatch.setattr(status, "status", lambda root: found)
    assert about("disk", project) == [("warning", "2 MB free, all items are done")]
    found[-1] = status.Status("report", "out of date")
    left = space.megabytes(space.of_study(settings, project / "artifacts/data", items[:-1]))
    assert about("disk", project) == [("problem", f"2 MB free, up to {left} needed for what is still to run")]
    forecasts = [space.of_study(settings, project / "artifacts/data", items[:n]) for n in range(len(items) + 1)]
    assert forecasts == sorted(forecasts, reverse=True)
    assert forecasts[-1] == 0


def test_where_params_cannot_be_read_the_room_that_is_needed_is_not_told(project):
    (project / "params.yaml").write_text("experiment: {}\n")
    ((_, text),) = about("disk", project)
    assert re.fullmatch(r"[\d,]+ MB free", text)


def test_the_forecast_grows_with_what_is_trained(params, tmp_path):
    def forecast() -> int:
        return space.of_study(validate(params), tmp_path)

    small = forecast()
    # Best and last with DVC's copy, six times; the warm-ups, three times; twelve copies of the weights in snapshots.
    weights = (6 * 4 + 3 * 2 + 12) * 71_900 * 4
    # Worst-case images of best and last, with DVC's copy, six times; prepared images; and small files.
    images = (6 * 2 * 2 * 800 + 2 * 1300) * 64 * 4
    assert weights + images < small < 1.25 * (weights + images) + 24 * 2**21 + 2 * 6 * 2**20
    params["experiment"]["seeds"] = [0, 1, 2, 3, 4, 5]
    assert 1.5 * small < forecast() < 2 * small
    params["model"] = {"name": "resnet18"}
    params["data"]["source"] = {"name": "cifar10"}
    assert forecast() > 12 * 2 * 2 * 11_173_962 * 4 + 12 * 2 * 2 * 1000 * 3072 * 4


def test_a_shared_warm_up_passes_on_no_more_than_forecast(params, tmp_path):
    params["data"] |= {"source": {"name": "digits", "test_size": 40}, "train_size": 60, "validation_size": 20}
    params["model"] = {"name": "small_cnn", "channels": [16, 64], "hidden": 1024}
    params["train"] |= {"epochs": 3, "batch_size": 60, "keep_epochs": []}
    params["train"]["attack"]["steps"] = params["train"]["selection"]["steps"] = 1
    params["warmup"] |= {"objective": "adversarial", "epochs": 1}
    params["methods"]["sglr"]["labels"]["start_epoch"] = 2
    params["experiment"]["seeds"] = [0]
    settings = validate(params)
    data.prepare(settings.data, tmp_path / "data")
    prepared = data.open_folder(tmp_path / "data")
    warm_up(settings, 0, prepared, tmp_path / "warmup", device=torch.device("cpu"))
    written = sum(path.stat().st_size for path in (tmp_path / "warmup").rglob("*") if path.is_file())

    def forecast(objective: str) -> int:
        params["warmup"]["objective"] = objective
        return space.of_study(validate(params), tmp_path / "data")

    more = forecast("adversarial") - forecast("standard")
    continuation = (tmp_path / "warmup/continuation.state").stat().st_size
    assert 0.98 * 2 * continuation < more < 1.1 * 2 * continuation
    assert more < 2 * written


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SGLR_DEVICE", "banana", "SGLR_DEVICE='banana' is not a device"),
        ("SGLR_NPROC", "abc", "SGLR_NPROC='abc' is not a number of processes"),
        ("SGLR_SNAPSHOT_SECONDS", "nan", "SGLR_SNAPSHOT_SECONDS='nan' is not a number of seconds"),
    ],
)
def test_doctor_reads_the_environment_as_a_stage_does(project, monkeypatch, name, value, said):
    monkeypatch.setenv(name, value)
    level, text = about("device", project)[0]
    assert level == "problem"
    assert text.startswith(said)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SGLR_TRACKNG", "SGLR_TRACKNG is read by nothing: perhaps SGLR_TRACKING is meant"),
        ("SGLR_SEEDS", "SGLR_SEEDS is read by nothing: there are SGLR_DATA_ROOT, SGLR_DEVICE, "),
    ],
)
def test_doctor_names_variables_that_nothing_reads(project, monkeypatch, name, said):
    assert about("environment", project) == []
    monkeypatch.setenv(name, "1")
    ((level, text),) = about("environment", project)
    assert (level, text[: len(said)]) == ("warning", said)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SGLR_TRACKING_WAIT", "soon", "SGLR_TRACKING_WAIT='soon' is not a number of seconds."),
        ("SGLR_TRACKING_WAIT", "nan", "SGLR_TRACKING_WAIT='nan' is not a number of seconds."),
        ("SGLR_SYSTEM_METRICS", "no", "SGLR_SYSTEM_METRICS='no' is not known; use on or off."),
    ],
)
def test_doctor_reads_the_settings_of_tracking_as_a_stage_does(project, monkeypatch, name, value, said):
    monkeypatch.setenv("SGLR_TRACKING", "on")
    monkeypatch.setenv(name, value)
    assert about("tracking", project) == [("problem", said)]
    with (
        pytest.raises(ConfigError, match=re.escape(said)),
        tracking.run(root=project, experiment="digits", stage="train", item="train@at-0", key="k"),
    ):
        pass


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("htp://127.0.0.1:5000", "MLflow does not take htp://127.0.0.1:5000 ("),
        ("postgresql+psycopg2://anna:s3cret@127.0.0.1:9/runs", "no server at 127.0.0.1:9 ("),
        ("sqlite:///none/runs.db", "{root}/none/runs.db cannot be made: there is no folder {root}/none that can be"),
    ],
)
def test_doctor_says_where_no_runs_can_be_kept(project, monkeypatch, address, said):
    monkeypatch.setenv("SGLR_TRACKING", "on")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    ((level, text),) = about("tracking", project)
    assert level == "warning"
    assert text.startswith(said.format(root=project))


@pytest.mark.parametrize(
    ("value", "level", "said"),
    [
        ("false", "problem", "SGLR_TRACKING='false' is not known; use on, off or required."),
        ("Off", "ok", "off (SGLR_TRACKING)"),
        ("on", "ok", "{root}/mlflow.db"),
    ],
)
def test_doctor_reads_what_is_asked_of_tracking_as_a_stage_does(project, monkeypatch, value, level, said):
    monkeypatch.setenv("SGLR_TRACKING", value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert about("tracking", project) == [(level, said.format(root=project))]


def other_source(project: Path, params: dict, source: dict) -> None:
    params["data"] |= {"source": source, "validation_size": 0}
    (project / "params.yaml").write_text(yaml.safe_dump(params))


@pytest.mark.usefixtures("untimed")
def test_doctor_looks_for_an_archive_where_the_stage_does(project, params, tmp_path, monkeypatch):
    other_source(project, params, {"name": "npz", "path": "own.npz"})
    ((level, text),) = about("data", project)
    assert level == "problem"
    assert "there is no file" in text
    monkeypatch.setenv("SGLR_DATA_ROOT", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    np.savez(tmp_path / "elsewhere/own.npz", x_train=np.zeros(3))
    assert about("data", project) == [("ok", f"npz {tmp_path / 'elsewhere/own.npz'}")]


@pytest.mark.usefixtures("untimed")
def test_doctor_takes_no_other_file_for_a_data_set(project, params, monkeypatch):
    other_source(project, params, {"name": "cifar10"})
    folder = project / "sets"
    folder.mkdir()
    monkeypatch.setenv("SGLR_DATA_ROOT", str(folder))
    (folder / "notes.txt").touch()
    assert about("data", project) == [("warning", f"cifar10 will be downloaded into {folder}")]
    (folder / "cifar-10-python.tar.gz").touch()
    assert about("data", project) == [("ok", f"cifar10 in {folder}")]


def test_a_source_of_ones_own_is_forecast_too(params, tmp_path):
    """Like CIFAR-10 until it is prepared."""

    class OwnOptions(SourceOptions):
        """None."""

    settings = validate(params)
    own = settings.data.model_copy(update={"source": OwnOptions(name="own"), "train_size": None})
    found = space.expected(settings.model_copy(update={"data": own}), tmp_path)
    assert found == space.ExpectedData(50_000, 10_000, 10, (3, 32, 32), assumed=True)


def test_data_prepared_for_other_params_are_no_forecast(params, tmp_path):
    """Of the same source their classes and shape are, and how many there are where only the data tells."""
    digits = {"name": "digits", "test_size": 40}
    params["train"]["batch_size"] = 60
    params["data"] |= {"source": digits, "train_size": 60, "validation_size": 20}
    data.prepare(validate(params).data, tmp_path)
    assert space.expected(validate(params), tmp_path) == space.ExpectedData(60, 40, 10, (1, 8, 8))
    params["data"]["train_size"] = 80
    assert space.expected(validate(params), tmp_path).examples == 80
    params["data"] |= {"source": {"name": "cifar10"}, "train_size": None, "validation_size": 1000}
    assert space.expected(validate(params), tmp_path) == space.ExpectedData(49_000, 10_000, 10, (3, 32, 32))


def test_doctor_counts_what_an_item_takes_beside_its_work(project, monkeypatch):
    monkeypatch.setattr(duration, "of_trainings", lambda *_: 1.0)
    monkeypatch.setattr(duration, "of_evaluations", lambda *_: 2.0)
    trainings, evaluations = about("time", project)
    assert trainings[1].startswith("about 31 s for all 6 trainings")
    assert evaluations[1].startswith("at most about 32 s for all 6 evaluations and their audit")


def test_doctor_forecasts_the_time_of_what_is_still_to_run(project, monkeypatch):
    monkeypatch.setattr(duration, "_gradient", lambda *_: 1e-3)
    pairs = [f"{method}-{seed}" for method in ("at", "sglr") for seed in range(3)]
    done = [f"{stage}@{pair}" for stage in ("train", "evaluate") for pair in pairs[:4]]
    states: list[str] = []
    monkeypatch.setattr(status, "status", lambda root: [status.Status(item, "done") for item in states])
    whole = [text.partition(",")[0] for _, text in about("time", project)]
    assert [text.partition(" for ")[2] for text in whole] == ["all 6 trainings", "all 6 evaluations and their audit"]
    states += done
    part = [text.partition(",")[0] for _, text in about("time", project)]
    assert [text.partition(" for ")[2] for text in part] == ["2 of 6 trainings", "2 of 6 evaluations and their audit"]
    assert all(
        float(re.search(r"[\d.]+", text)[0]) < float(re.search(r"[\d.]+", before)[0])
        for text, before in zip(part, whole, strict=True)
    )
    states += [f"{stage}@{pair}" for stage in ("train", "evaluate") for pair in pairs] + [
        f"warmup@{n}" for n in range(3)
    ]
    trainings, audit = (text for _, text in about("time", project))
    assert trainings == "all 6 trainings are done"
    assert re.match("at most about .* for the audit, by", audit)
    states.append("audit")
    assert about("time", project)[1] == ("ok", "all 6 evaluations and their audit are done")


def test_doctor_forecasts_the_time(project):
    (trainings, evaluations) = about("time", project)
    by, time = "by an attack step of small_cnn here", r"[\d.]+ (s|min)"
    assert trainings[0] == evaluations[0] == "ok"
    assert re.fullmatch(rf"about {time} for all 6 trainings, {by}", trainings[1])
    assert re.fullmatch(rf"at most about {time} for all 6 evaluations and their audit, {by}: less, .*", evaluations[1])


def test_the_time_is_that_of_the_epochs_and_steps_asked_for(params, tmp_path, monkeypatch):
    monkeypatch.setattr(duration, "_gradient", lambda *_: 1e-3)
    params["experiment"] |= {"methods": ["at", "standard"], "seeds": [0, 1]}
    params["data"] |= {"source": {"name": "digits", "test_size": 800}, "train_size": 500, "validation_size": 0}
    params["warmup"] = {"objective": "standard", "epochs": 3, "lr": 0.05}
    params["train"] |= {"epochs": 20, "attack": {"steps": 10, "step_size_255": 2, "random_start": True}}

    def seconds() -> float:
        return duration.of_trainings(validate(params), tmp_path, torch.device("cpu"))

    assert seconds() == pytest.approx(1e-3 * 500 * 2 * (3 * 2 + 20 * 12 + 20 * 2))
    with monkeypatch.context() as patch:
        patch.setattr(AdversarialTraining, "gradients_for_attack", lambda self, steps: 1)  # an attack of its own
        assert seconds() == pytest.approx(1e-3 * 500 * 2 * (3 * 2 + 20 * 3 + 20 * 2))
        patch.setattr(AdversarialTraining, "gradients_for_attack", lambda self, steps: None)  # not told: as PGD
        assert seconds() == pytest.approx(1e-3 * 500 * 2 * (3 * 2 + 20 * 12 + 20 * 2))
    params["experiment"]["methods"] = ["at", "sglr"]
    params["warmup"] |= {"objective": "adversarial", "epochs": 5}
    params["methods"]["sglr"]["labels"]["start_epoch"] = 6
    assert seconds() == pytest.approx(1e-3 * 500 * 2 * 12 * (5 + 15 + 15))


def test_the_time_of_evaluations_is_that_of_attacks_that_break_nothing(params, tmp_path, monkeypatch):
    monkeypatch.setattr(duration, "_gradient", lambda *_: 1e-3)
    params["experiment"] |= {"methods": ["at", "sglr"], "seeds": [0, 1, 2]}
    params["data"] |= {"source": {"name": "digits", "test_size": 800}, "train_size": 500, "validation_size": 0}
    pgd20 = {"name": "pgd", "steps": 20}
    params["evaluate"] |= {"n_examples": 600, "attacks": {"pgd20": pgd20}, "sweep": None, "sanity": None}

    def seconds() -> float | None:
        return duration.of_evaluations(validate(params), tmp_path, torch.device("cpu"))

    # The audit shows each model the images as they are, and those of two methods: half a gradient each.
    audit = 3 / 2
    assert seconds() == pytest.approx(6 * 1e-3 * 600 * (20 + audit))
    params["data"]["validation_size"] = 100  # there is a best
    assert seconds() == pytest.approx(12 * 1e-3 * 600 * (20 + audit))
    params["evaluate"]["sweep"] = {"eps_255": [12.75, 25.5], "steps": 10}
    assert seconds() == pytest.approx(12 * 1e-3 * 600 * (20 + audit + 2 * 10))
    params["evaluate"]["sanity"] = {"n_examples": 50, "steps": 20}
    # FGSM, three radii, no radius, a quarter of the steps and all of them; 200 forward passes of Square Attack.
    sanity = 1 + 3 * 20 + 20 + 5 + 20 + 200 / 2
    assert seconds() == pytest.approx(12 * 1e-3 * (600 * (40 + audit) + 50 * sanity))
    params["evaluate"]["attacks"]["autoattack"] = {"name": "autoattack", "n_examples": 8}
    assert seconds() == pytest.approx(12 * 1e-3 * (600 * (40 + audit) + 50 * sanity + 8 * (7800 + 1900) / 2))


def test_what_is_done_takes_no_time(params, tmp_path, monkeypatch):
    monkeypatch.setattr(duration, "_gradient", lambda *_: 1e-3)
    params["experiment"] |= {"methods": ["at", "standard"], "seeds": [0, 1]}
    params["data"] |= {"source": {"name": "digits", "test_size": 800}, "train_size": 500, "validation_size": 0}
    params["warmup"] = {"objective": "standard", "epochs": 3, "lr": 0.05}
    params["train"] |= {"epochs": 20, "attack": {"steps": 10, "step_size_255": 2, "random_start": True}}
    params["evaluate"] |= {"attacks": {"fgsm": "fgsm"}, "sweep": None, "sanity": None}
    cpu = torch.device("cpu")
    done = ["warmup@0", "train@at-0", "train@at-1", "evaluate@at-0", "evaluate@at-1", "evaluate@standard-1"]
    trainings = duration.of_trainings(validate(params), tmp_path, cpu, done)
    assert trainings == pytest.approx(1e-3 * 500 * (3 * 2 + 2 * 20 * 2))
    evaluations = duration.of_evaluations(validate(params), tmp_path, cpu, done)
    # One evaluation; the audit shows each of four models the images as they are, and those of two methods.
    assert evaluations == pytest.approx(1e-3 * 800 * (1 + 4 * 3 / 2))
    done += ["warmup@1", "train@standard-0", "train@standard-1", "evaluate@standard-0", "audit"]
    monkeypatch.delattr(duration, "_model")  # nothing is timed
    assert duration.of_trainings(validate(params), tmp_path, cpu, done) == 0
    assert duration.of_evaluations(validate(params), tmp_path, cpu, done) == 0


def test_the_audit_takes_longer_with_every_method(params, tmp_path, monkeypatch):
    """It looks at a thousand images of each, at most."""
    monkeypatch.setattr(duration, "_gradient", lambda *_: 1e-3)
    params["data"]["source"] = {"name": "cifar10"}
    params["evaluate"] |= {"attacks": {"fgsm": "fgsm"}, "sweep": None, "sanity": None}
    for methods in (["at", "sglr"], ["at", "sglr", "trades", "mart"]):
        params["experiment"] |= {"methods": methods, "seeds": [0]}
        seconds = duration.of_evaluations(validate(params), tmp_path, torch.device("cpu"))
        each = 10_000 + 1000 * (len(methods) + 1) / 2
        assert seconds == pytest.approx(len(methods) * 2 * 1e-3 * each)


def test_of_an_attack_that_does_not_tell_its_passes_nothing_is_said(project, monkeypatch):
    monkeypatch.setattr(AttackOptions, "passes", lambda self, num_classes: None)
    monkeypatch.setattr(FgsmOptions, "passes", AttackOptions.passes)
    ((_, text),) = about("time", project)[1:]
    assert text == (
        "of evaluation nothing is known because of evaluate.attacks.fgsm: a method `passes` of its options tells its"
        " forward and backward passes"
    )


@pytest.mark.usefixtures("untimed")
def test_what_is_only_assumed_of_the_data_is_said(project, params):
    params["data"] |= {"source": {"name": "npz", "path": "mine.npz"}, "train_size": None}
    params["model"]["channels"] = [2, 2]
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    assert all(text.startswith("a guess until the data are prepared") for _, text in about("time", project))


@pytest.mark.parametrize("content", ["{}", "[]", '{"source": 1}', '{"source": {"name": "digits", "test_size": 40}}'])
def test_a_folder_of_data_that_nothing_tells_of_is_an_error(project, content):
    (project / "artifacts/data").mkdir(parents=True)
    (project / "artifacts/data/meta.json").write_text(content)
    asked = load(project / "params.yaml")
    if content == '{"source": 1}':  # of other data
        assert space.expected(asked, project / "artifacts/data").examples == 60
    else:
        with pytest.raises(FileError, match=r"meta\.json is not what `prepare` writes"):
            space.expected(asked, project / "artifacts/data")
    assert examining.examine(project)


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize("file", ["params.yaml", "dvc.yaml", "dvc.lock"])
def test_what_is_not_utf8_is_one_error(project, file):
    shutil.copy(Path(__file__).parents[2] / "dvc.yaml", project)
    (project / file).write_bytes(b"# f\xfcr mich\nstages: {}\nexperiment: {}\n")
    with pytest.raises((ConfigError, FileError), match=file):
        status.status(project)
    assert examining.examine(project)


def test_a_long_study_on_a_cpu_is_warned_of(project, monkeypatch):
    monkeypatch.setattr(duration, "of_trainings", lambda *_: 40 * 3600.0)
    monkeypatch.setattr(duration, "of_evaluations", lambda *_: 50 * 3600.0)
    (trainings, evaluations) = about("time", project)
    assert trainings[0] == evaluations[0] == "warning"
    assert trainings[1].startswith("about 40.0 h for all 6 trainings")
    assert evaluations[1].startswith("at most about 50.0 h for all 6 evaluations")


def test_a_method_that_begins_without_the_warm_up_trains_all_its_epochs(params, tmp_path, monkeypatch):
    monkeypatch.setattr(duration, "_gradient", lambda *_: 1e-3)
    params["experiment"] |= {"methods": ["at", "sglr"], "seeds": [0]}
    params["data"] |= {"source": {"name": "digits", "test_size": 800}, "train_size": 500, "validation_size": 0}
    params["warmup"] |= {"objective": "adversarial", "epochs": 5}
    params["train"] |= {"epochs": 20, "attack": {"steps": 10, "step_size_255": 2, "random_start": True}}
    params["methods"]["sglr"]["labels"]["start_epoch"] = 6
    params["methods"]["sglr"]["start"] = "initial"
    seconds = duration.of_trainings(validate(params), tmp_path, torch.device("cpu"))
    assert seconds == pytest.approx(1e-3 * 500 * 12 * (5 + 15 + 20))


def test_what_snapshots_take_is_no_more_than_forecast(params, tmp_path):
    """Of a method with an average: two are kept while a third is written."""
    params["data"] |= {"source": {"name": "digits", "test_size": 40}, "train_size": 60, "validation_size": 20}
    params["model"] = {"name": "small_cnn", "channels": [16, 64], "hidden": 1024}
    params["train"] |= {"epochs": 1, "batch_size": 60, "keep_epochs": []}
    params["train"]["attack"]["steps"] = params["train"]["selection"]["steps"] = 1
    params["methods"]["at"]["weights"] = {"name": "ema"}
    params["experiment"]["methods"] = ["at"]
    params["warmup"]["epochs"] = 0
    params["report"]["baseline"] = "at"
    settings = validate(params)
    data.prepare(settings.data, tmp_path / "data")
    prepared = data.open_folder(tmp_path / "data")
    model = models.build(settings.model, num_classes=10, shape=prepared.shape, generator_seed=0)
    plan = Plan.training(settings, settings.methods["at"], seed=0)
    fit(plan, model, prepared.train(0), prepared.validation(0), hooks=Hooks(Snapshots(tmp_path / "snapshots", 0)))
    largest = max(path.stat().st_size for path in (tmp_path / "snapshots").glob("snapshot-*"))
    need = space.needed(settings, tmp_path / "data")
    assert 3 * largest <= need.own - need.outputs
    assert need.snapshots < 1.1 * 3 * largest
