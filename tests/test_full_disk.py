"""Every writer on a real disk that is full at every place, may not be written to, or belongs to somebody else."""

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from disks import disk, fill, read_only

from sglr import config, data, files, models
from sglr.data.prepared import ARRAYS
from sglr.training import Snapshots

KIND = {"num_classes": 3, "shape": (1, 4, 4), "channels": [16, 16], "hidden": 64}


def save_model(folder: Path, seed: int) -> None:
    model = models.build("small_cnn", **KIND, generator_seed=seed)
    models.save(model, folder / "model", models.spec("small_cnn", **KIND))


def prepare(folder: Path, seed: int) -> None:
    noise = {"kind": "none", "rate": 0.0, "seed": 0, "map": None}
    described = {
        "source": "digits", "train_size": 40, "validation_size": 20, "split_seed": seed, "noise": noise,
        "noise_per_seed": False, "augment": {"crop_padding": 0, "flip": False},
    }  # fmt: skip
    data.prepare(config.sections.Data.model_validate(described), folder / "data")


WRITERS: dict[str, Callable[[Path, int], object]] = {
    "a state": lambda folder, seed: files.save_state(folder / "a.state", {"x": torch.full((9000,), seed)}),
    "arrays": lambda folder, seed: files.write_arrays(folder / "a.npz", {"x": np.full(9000, seed)}),
    "rows": lambda folder, seed: files.write_rows(folder / "a.csv", [{"a": seed, "b": 1 / 3}] * 900),
    "a model": save_model,
    "prepared data": prepare,
}


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with disk(tmp_path / "disk", 512) as folder:
        yield folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("what", WRITERS)
def test_a_disk_that_is_full_at_any_write(small: Path, what: str):
    """From no room at all, page by page, until there is enough. Each file is the old one or the new one, whole."""
    write = WRITERS[what]
    write(small, 1)
    before = contents(small)
    write(small, 2)
    after = contents(small)
    assert before != after
    write(small, 1)
    said: list[str] = []
    for left in range(0, 500 * 1024, 4096):
        ballast = fill(small, left)
        try:
            write(small, 2)
        except files.FileError as error:
            said.append(str(error))
        there = contents(small)
        there.pop("ballast")
        assert there.keys() == before.keys()
        assert all(content in (before[name], after[name]) for name, content in there.items())
        ballast.unlink()
        if there == after:
            break
        write(small, 1)
    assert len(said) >= 2
    form = r"cannot write .*: (No space left on device|.*; the disk is probably full)\. What was there before is .*"
    assert all(re.fullmatch(form, message) for message in said), said
    assert there == after


def test_a_snapshot_that_finds_no_room_leaves_the_earlier_ones(small: Path):
    snapshots = Snapshots(small / "snapshots")
    snapshots.save({"x": torch.zeros(9000)}, 1, 1)
    fill(small)
    with pytest.raises(files.FileError, match=r"cannot write .*snapshot-000001-00000002: No space left on device"):
        snapshots.save({"x": torch.ones(9000)}, 1, 2)
    found = Snapshots(small / "snapshots").load()
    assert found is not None
    assert torch.equal(found["x"], torch.zeros(9000))


@pytest.mark.parametrize("what", WRITERS)
def test_a_disk_that_may_not_be_written_to(small: Path, what: str):
    WRITERS[what](small, 1)
    before = contents(small)
    read_only(small)
    with pytest.raises(files.FileError, match=r"cannot write .*: Read-only file system\. What was there before"):
        WRITERS[what](small, 2)
    assert contents(small) == before
    with pytest.raises(files.FileError, match=r"cannot lock .*: .*Read-only file system"), files.lock(small / "a.lock"):
        pass


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
def test_what_belongs_to_somebody_else_is_left_as_it_is():
    """A snapshot that cannot be read is not taken for a damaged one, which would be removed."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        folder.chmod(0o755)
        snapshots = Snapshots(folder)
        snapshots.save({"x": torch.zeros(3)}, 1, 1)
        (snapshot,) = folder.iterdir()
        snapshot.chmod(0o600)
        files.write_text(folder / "a.txt", "old")
        before = contents(folder)
        os.seteuid(65534)
        try:
            with pytest.raises(files.FileError, match=r"cannot write .*a\.txt: Permission denied\. What was there"):
                files.write_text(folder / "a.txt", "new")
            with pytest.raises(files.FileError, match=r"cannot read .*snapshot-000001-00000001: .*Permission denied"):
                snapshots.load()
            with pytest.raises(files.FileError, match=r"cannot lock .*: .*denied"), files.lock(folder / "a.lock"):
                pass
        finally:
            os.seteuid(0)
        assert contents(folder) == before


def test_all_prepared_arrays_are_written_by_the_same_writer(tmp_path: Path):
    prepare(tmp_path, 0)
    assert {path.stem for path in (tmp_path / "data").glob("*.npy")} == set(ARRAYS)
