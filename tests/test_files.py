"""Files are whole or absent, state survives the way through a file, locks hold."""

import contextlib
import errno
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch

from sglr import files
from sglr.files import FileError, digests
from sglr.random import derive, numpy_stream, seed_torch, torch_stream


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "value.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"a": float("nan")})

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(files.FileError, match=r"cannot write .*value.json: No space left on device.*unchanged"):
        files.write_json(path, {"a": 2})
    assert files.read_json(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["value.json"]


def test_state_comes_back_as_it_was(tmp_path):
    parameters = [torch.nn.Parameter(torch.randn(3, 2))]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    parameters[0].sum().backward()
    optimizer.step()
    shared = torch.arange(4)
    state = {
        "optimizer": optimizer.state_dict(),
        "shared": [shared, shared[:2]],
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "plain": {"pi": 0.1 + 0.2, "none": None, "yes": True, 3: "three", "pair": (1, 2)},
    }
    files.save_state(tmp_path / "state", state)
    found = files.load_state(tmp_path / "state")
    assert found["plain"] == state["plain"]
    assert torch.equal(found["shared"][1], shared[:2])
    assert found["scalar"].dtype == torch.float64
    buffer = found["optimizer"]["state"][0]["momentum_buffer"]
    assert torch.equal(buffer, optimizer.state_dict()["state"][0]["momentum_buffer"])
    assert found["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]


def test_equal_states_and_arrays_are_equal_bytes_whatever_the_name(tmp_path):
    for name in ("a", "other-name"):
        files.save_state(tmp_path / name, {"x": torch.ones(3), "n": 1})
        files.write_arrays(tmp_path / f"{name}.npz", {"x": np.ones(3)})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "other-name").read_bytes()
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "other-name.npz").read_bytes()


def test_arrays_are_the_same_bytes_from_any_python(tmp_path):
    """What CPython 3.11.2 to 3.13 wrote, with NumPy 1.26 to 2.5; numpy.savez writes two forms."""
    arrays = {"a/b": np.arange(6, dtype=np.float32).reshape(2, 3), "text": np.array(["x"]), "one": np.array(True)}
    files.write_arrays(tmp_path / "x.npz", arrays)
    with np.load(tmp_path / "x.npz") as found:
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array, strict=True)
    assert hashlib.md5((tmp_path / "x.npz").read_bytes()).hexdigest() == "9a15eafe027269e026bdfdbcc07a4a4c"


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_state_is_named(tmp_path, damage):
    path = tmp_path / "state"
    files.save_state(path, {"x": torch.ones(100)})
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-7] ^= 1
    path.write_bytes({"truncate": content[:-3], "flip": content, "empty": b""}[damage])
    with pytest.raises(files.FileError, match=r"state is damaged"):
        files.load_state(path)


def test_arrays_with_pickled_code_are_refused(tmp_path):
    np.savez(tmp_path / "pickled.npz", x=np.array([print], dtype=object))
    with zipfile.ZipFile(tmp_path / "raw.npz", "w") as archive:
        archive.writestr("x.npy", b"\x80\x04K*.")
    for name in ("pickled.npz", "raw.npz"):
        with pytest.raises(files.FileError, match=name):
            files.read_arrays(tmp_path / name)
    with pytest.raises(files.FileError, match=r"missing\.npz"):
        files.read_arrays(tmp_path / "missing.npz")


def test_rows_keep_floats_exactly_and_absent_values_absent(tmp_path):
    rows = [{"epoch": 1, "loss": 0.1 + 0.2, "phase": "train"}, {"epoch": 2, "loss": None, "extra": 1e-17}]
    files.write_rows(tmp_path / "rows.csv", rows)
    assert files.read_rows(tmp_path / "rows.csv") == [
        {"epoch": 1, "loss": 0.1 + 0.2, "phase": "train", "extra": None},
        {"epoch": 2, "loss": None, "phase": None, "extra": 1e-17},
    ]


def test_names_are_no_numbers(tmp_path):
    rows = [{"model": name, "accuracy": 0.5} for name in ("nan", "1_0", "7", "at")]
    files.write_rows(tmp_path / "rows.csv", rows)
    assert files.read_rows(tmp_path / "rows.csv", text=("model",)) == rows


def test_a_table_without_rows_stays_one(tmp_path):
    files.write_rows(tmp_path / "rows.csv", [{"checkpoint": None, "epoch": None}])
    assert files.read_rows(tmp_path / "rows.csv") == []


def test_a_lock_is_held_until_its_holder_dies(tmp_path):
    lock = tmp_path / "item.lock"
    hold = f"with files.lock({str(lock)!r}): print('held', flush=True); sys.stdin.read()"
    code = f"import sys; from sglr import files\n{hold}"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(files.FileError, match=r"a stage holds .*item\.lock"), files.lock(lock, holder="a stage"):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with files.lock(lock, timeout=5):
        pass


def test_digest_sees_names_and_contents_but_no_bytecode(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.py").write_text("1")
    before = files.digest(tmp_path / "a")
    (tmp_path / "a" / "__pycache__").mkdir()
    (tmp_path / "a" / "__pycache__" / "x.pyc").write_text("2")
    assert files.digest(tmp_path / "a") == before
    (tmp_path / "a" / "x.py").rename(tmp_path / "a" / "y.py")
    assert files.digest(tmp_path / "a") != before


def test_a_folders_digest_is_dvcs(tmp_path):
    """Files in folders and empty folders as DVC counts them; what .dvcignore names is not counted."""
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.fs.local import LocalFileSystem

    folder, filesystem = tmp_path / "a", LocalFileSystem()
    (folder / "b").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "b" / "x.txt").write_text("1")
    (folder / "b.txt").write_text("2")
    store = HashFileDB(filesystem, str(tmp_path / "store"))
    _, _, expected = build(store, str(folder), filesystem, "md5", dry_run=True)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_text("3")
    (folder / ".gitignore").write_text("/b")
    (folder / "b" / ".x.txt.k3j2.partial").write_text("4")
    assert files.dvc_digest(folder) == expected.hash_info.value
    assert files.dvc_digest(folder / "b.txt") == hashlib.md5(b"2").hexdigest()
    assert files.dvc_digest(tmp_path / "absent") is None


def test_a_file_system_with_modes_of_its_own(tmp_path, monkeypatch):
    """As some network and Windows disks are, on which no mode can be set."""

    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refused)
    files.write_text(tmp_path / "a.txt", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def unsupported(*_: object, **__: object) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(filelock.FileLock, "acquire", unsupported)
    with pytest.raises(FileError, match=r"cannot lock .*a\.lock: FileSystem does not"), files.lock(tmp_path / "a.lock"):
        pytest.fail("nothing is locked")


def test_md5_is_told_to_be_for_no_security(tmp_path, monkeypatch):
    """Systems that follow FIPS refuse it else."""
    (tmp_path / "a.txt").write_text("2")
    asked = digests._md5
    assert asked.keywords == {"usedforsecurity": False}
    monkeypatch.setattr(hashlib, "md5", None)  # nothing of ours calls it another way
    assert files.md5(tmp_path / "a.txt") == asked(b"2").hexdigest()
    assert files.dvc_digest(tmp_path) is not None


def test_streams_are_those_that_results_were_made_with():
    """Another hash, or another default, and every published number would come from other noise."""
    assert derive(0, "data/noise") == derive(0, "data/noise", 0, 0) == 5752994098900332422
    assert numpy_stream(0, "data/noise").integers(0, 100, 4).tolist() == [15, 35, 15, 43]
    assert torch.randint(0, 100, (4,), generator=torch_stream(3, "train/attack", 2, 5)).tolist() == [66, 76, 89, 40]


def test_torch_is_seeded_as_by_its_own_function_and_unused_gpus_are_not(monkeypatch):
    seeded: list[object] = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext(seeded.append(str(device))))
    monkeypatch.setattr(torch.cuda, "manual_seed", seeded.append)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2**62 + 5)
        expected = torch.rand(4)
        seed_torch(2**62 + 5, torch.device("cpu"))
        assert torch.equal(torch.rand(4), expected)
        assert seeded == []
        seed_torch(7, torch.device("cuda:1"))
    assert seeded == ["cuda:1", 7]


def test_streams_depend_on_every_coordinate_and_on_nothing_else():
    names = [
        (0, "a", 0, 0),
        (1, "a", 0, 0),
        (0, "b", 0, 0),
        (0, "a", 1, 0),
        (0, "a", 0, 1),
        (0, "a", 10, 1),
        (0, "a", 1, 10),
    ]
    assert len({derive(*name) for name in names}) == len(names)
    torch.manual_seed(1)
    first = torch.rand(3, generator=torch_stream(0, "a", 2, 3))
    torch.manual_seed(2)
    assert torch.equal(first, torch.rand(3, generator=torch_stream(0, "a", 2, 3)))
    np.testing.assert_array_equal(numpy_stream(0, "a").random(3), numpy_stream(0, "a").random(3))
