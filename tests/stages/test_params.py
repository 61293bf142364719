"""The params that dvc.yaml lists for a stage, against those its library call really reads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from study_project import REPOSITORY, Project

from sglr import config, data, evaluation, information, report, training
from sglr.config import Config, Section

CPU = torch.device("cpu")
ARTIFACTS = Path("artifacts")


def children(value: Any) -> dict[str, Any] | None:
    """What is in a section or in a mapping of sections; None for a plain value."""
    if isinstance(value, Section):
        return dict(value.__dict__)
    return value if isinstance(value, dict) and any(isinstance(part, Section) for part in value.values()) else None


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every (dotted key, value) in a config."""
    yield path, value
    for name, part in (children(value) or {}).items():
        yield from walk(part, f"{path}.{name}" if path else name)


def plain_keys(value: Any, path: str = "") -> set[str]:
    return {key for key, part in walk(value, path) if children(part) is None}


class Watched:
    """A config whose reads are noted, wherever its sections are passed or copied to."""

    def __init__(self, settings: Config, patch: pytest.MonkeyPatch) -> None:
        self.settings, self.read = settings, set[str]()
        places = {id(value): (path, value) for path, value in walk(settings) if isinstance(value, Section)}
        copy, dump = Section.model_copy, Section.model_dump

        def get(section: Any, name: str) -> Any:
            value = object.__getattribute__(section, name)
            path, _ = places.get(id(section), (None, None))
            if path is not None and name in type(section).model_fields and children(value) is None:
                self.read.add(f"{path}.{name}")
            return value

        def model_copy(section: Any, **how: Any) -> Any:
            made = copy(section, **how)
            if id(section) in places:
                places[id(made)] = (places[id(section)][0], made)
            return made

        def model_dump(section: Any, **how: Any) -> Any:
            if id(section) in places:
                self.read |= plain_keys(section, places[id(section)][0])
            return dump(section, **how)

        patch.setattr(Section, "__getattribute__", get)
        patch.setattr(Section, "model_copy", model_copy)
        patch.setattr(Section, "model_dump", model_dump)


def prepare(settings: Config, folder: Path) -> None:
    data.prepare(settings.data, folder)


def warmup(settings: Config, folder: Path) -> None:
    training.warm_up(settings, 0, data.open_folder(ARTIFACTS / "data"), folder, device=CPU)


def train(settings: Config, folder: Path) -> None:
    prepared = data.open_folder(ARTIFACTS / "data")
    training.train(settings, "sglr", 0, prepared, ARTIFACTS / "warmup/0", folder, device=CPU)


def evaluate(settings: Config, folder: Path) -> None:
    evaluation.evaluate(settings, data.open_folder(ARTIFACTS / "data"), ARTIFACTS / "train/sglr-0", device=CPU)


def audit(settings: Config, folder: Path) -> None:
    evaluation.audit(settings, data.open_folder(ARTIFACTS / "data"), ARTIFACTS, device=CPU)


def analyze(settings: Config, folder: Path) -> None:
    prepared, start = data.open_folder(ARTIFACTS / "data"), ARTIFACTS / "warmup/0/model"
    information.analyze(settings, prepared, ARTIFACTS / "train/sglr-0", "sglr", 0, device=CPU, warmup=start)


def write_report(settings: Config, folder: Path) -> None:
    report.write(settings, ARTIFACTS, folder)


CALLS = {
    "prepare": prepare,
    "warmup": warmup,
    "train": train,
    "evaluate": evaluate,
    "audit": audit,
    "analyze": analyze,
    "report": write_report,
}
# Listed without being read, each for a reason.
LISTED = {
    # Whatever is in data decides what the data are for: all of it reruns everything.
    "prepare": {"data.augment.crop_padding", "data.augment.flip", "data.augment.more"},
    # What its weights come from belongs to a training, and is shown beside it in MLflow.
    "train": {"warmup.epochs", "warmup.lr", "warmup.objective"},
    # The analysis asks for a method's start, objective and labels, and DVC cannot list a key that may be left out.
    "analyze": {"warmup.lr", "methods.sglr.labels.natural_bn"},
}  # fmt: skip
# Read without being listed: gathered with the rest of the training's settings, then set aside.
READ = {"warmup": {"train.keep_epochs"}}


def read_by(stage: str, folder: Path) -> tuple[Config, set[str]]:
    """The config in params.yaml, and the keys that the stage's library call reads."""
    with pytest.MonkeyPatch.context() as patch:
        watched = Watched(config.load(), patch)
        CALLS[stage](watched.settings, folder)
    return watched.settings, watched.read


def listed(stage: str, settings: Config) -> set[str]:
    """Plain keys below those that dvc.yaml lists."""
    entry = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"][stage]
    keys = [key.replace("${item.method}", "sglr") for key in entry["params"]]
    return {plain for plain in plain_keys(settings) for key in keys if plain == key or plain.startswith(f"{key}.")}


@pytest.mark.parametrize("stage", CALLS)
def test_a_stage_lists_what_it_reads(finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str):
    monkeypatch.chdir(finished.path)
    monkeypatch.setattr("sglr.report.drawing._pdf", lambda figure: b"")  # which reads no key, and takes seconds
    finished.change(lambda p: p["data"]["noise"].update(kind="asymmetric", map={0: 1}))
    settings, read = read_by(stage, tmp_path / "out")
    expected = listed(stage, settings)
    if stage == "warmup":
        # It lists what an adversarial warm-up reads, whichever is chosen.
        finished.change(lambda p: p["warmup"].update(objective="adversarial"))
        read |= read_by(stage, tmp_path / "adversarial")[1]
    if stage not in ("prepare", "report"):
        # stages/runtime.py sets the threads before the call.
        assert "experiment.threads" not in read
        read.add("experiment.threads")
    assert read - expected == READ.get(stage, set())
    # A component's name has done its work when params.yaml was read: it chose the type of the options.
    names = {key for key in expected if key.endswith(".name") and key != "experiment.name"}
    assert expected - read - names == LISTED.get(stage, set())
