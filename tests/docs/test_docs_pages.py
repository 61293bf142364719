"""Every code block of README and documentation does what ``pages`` says of its kind."""

import os
import shutil
from pathlib import Path
from unittest import SkipTest

import numpy as np
import pages
import pytest
import torch
import yaml

import sglr

STAGES = yaml.safe_load((pages.ROOT / "dvc.yaml").read_text())["stages"]
# Page, and the room that gets a file there.
ADDITIONS = {
    "add-a-method": "labels", "add-a-model": "models", "add-an-attack": "attacks", "add-a-data-set": "data",
    "add-an-augmentation": "augmentations",
    "add-a-schedule": "schedules",
}  # fmt: skip


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a project's after a run, as far as pages read it: params, labels that people gave, prepared data, a
    model, outcomes."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(pages.ROOT / "params.yaml", folder)
    (folder / "data").mkdir()
    people = {f"{kind}_label": np.arange(20) % 10 for kind in ("clean", "worse", "aggre")}
    torch.save(people, folder / "data" / "CIFAR-10_human.pt")
    config = sglr.config.load(folder / "params.yaml")
    sglr.data.prepare(config.data, folder / "artifacts/data")
    prepared = sglr.data.open_folder(folder / "artifacts/data")
    split, test = prepared.train(0), prepared.test()
    fitted = sglr.train(
        split.x,
        split.given,
        params=folder / "params.yaml",
        changes={"train.epochs": 6, "train.schedule.milestones": [4]},
    )
    fitted.save(folder / "artifacts/train/sglr-0")
    attacks = {"pgd20": {"name": "pgd", "steps": 2}, "autoattack": {"name": "autoattack", "n_examples": 2}}
    changes = {"evaluate.attacks": attacks, "evaluate.n_examples": 20, "evaluate.sanity": None}
    found = sglr.robustness(fitted.last, test.x, test.true, params=folder / "params.yaml", changes=changes)
    sglr.evaluation.write(found, folder / "artifacts/evaluate/sglr-0")
    return folder


@pytest.mark.parametrize("page", [page for page in pages.PAGES if pages.examples(page)], ids=lambda page: page.stem)
def test_every_block_does_what_it_should(page: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    with pages.forgetting():
        for example in pages.examples(page):
            try:
                example.evaluate()
            except SkipTest:
                continue
            except Exception as error:
                error.add_note(f"in the block at line {example.line} of {os.path.relpath(page, pages.ROOT)}")
                raise


def test_blocks_are_of_a_kind_that_is_looked_at():
    kinds = {
        language.split()[0]
        for page in pages.PAGES
        for language in pages.languages(page)
        if not language.startswith("{")  # a directive
    }
    assert kinds <= pages.LANGUAGES


def test_little_is_left_out():
    left_out = [page.name for page in pages.PAGES for _ in range(page.read_text().count("<!-- skip:"))]
    assert left_out == ["export.md"]  # robustbench is not installed everywhere


@pytest.mark.parametrize(("page", "room"), ADDITIONS.items())
def test_the_stages_named_are_those_that_depend_on_the_room(page: str, room: str):
    stale = [name for name, stage in STAGES.items() if f"sglr/{room}" in stage["deps"]]
    assert f"\ndvc commit -f {' '.join(stale)}\n" in (pages.ROOT / f"docs/how-to/{page}.md").read_text()


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("```python\nsglr = 1 / 0\n```\n", "division by zero"),
        ("```yaml\ntrain: {epoch: 3}\n```\n", "unknown key"),
        ("```sh\nsglr predict --modell x y.png\n```\n", "No such option"),
        ("```sh\nSGLR_NPROC=2 dvc reproduce\n```\n", "dvc reproduce: parser error"),
        ("```console\n$ dvc exp run --no-such-option\nwhatever\n```\n", "dvc exp run --no-such-option"),
        ("```sh\nmake everything\n```\n", "make everything"),
    ],
)
def test_a_block_that_is_wrong_is_found(block: str, message: str, tmp_path: Path):
    (tmp_path / "page.md").write_text(f"# Page\n\n{block}")
    (example,) = pages.examples(tmp_path / "page.md")
    with pytest.raises(Exception, match=message):
        example.evaluate()
