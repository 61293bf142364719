"""Readers of files against thousands of damaged ones: the documented error, or what was written, and nothing else."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sglr import config, files, models
from sglr.data.npz import NAMES, read_npz
from sglr.exchange.given_images import read_test

QUICK = settings(
    max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
# Where the file is cut, and which bytes are changed to what.
damages = st.tuples(
    st.one_of(st.none(), st.floats(0, 1)), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4)
)


def damaged(whole: bytes, damage) -> bytes:
    cut, changes = damage
    content = bytearray(whole)
    for place, value in changes:
        content[int(place * (len(content) - 1))] = value
    return bytes(content if cut is None else content[: int(cut * len(content))])


def said(kind: type[Exception], read: Callable, path: Path) -> str | None:
    """The error of reading a file; None where it could be read. Errors of another kind pass."""
    try:
        read(path)
    except kind as error:
        return str(error)
    return None


@pytest.fixture(scope="module")
def npz(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    labels = np.arange(4) % 3
    files.write_arrays(path, {"x_test": np.zeros((4, 1, 3, 3), dtype=np.uint8), "y_test": labels})
    return path.read_bytes()


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("state") / "a.state"
    files.save_state(path, {"weights": torch.arange(6.0), "step": 3, "names": ["a", None]})
    return path.read_bytes()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    kind = {"num_classes": 3, "shape": (1, 4, 4), "channels": [2, 2], "hidden": 3}
    models.save(models.build("small_cnn", **kind, generator_seed=0), folder, models.spec("small_cnn", **kind))
    return folder


@QUICK
@given(damage=damages)
def test_arrays(npz, tmp_path, damage):
    path = tmp_path / "a.npz"
    path.write_bytes(damaged(npz, damage))
    for read in (files.read_arrays, read_test):
        assert str(path) in (said(files.FileError, read, path) or str(path))


@QUICK
@given(damage=damages)
def test_arrays_of_your_own(tmp_path, damage):
    path = tmp_path / "a.npz"
    if not path.exists():
        images, labels = np.zeros((4, 1, 3, 3), dtype=np.uint8), np.arange(4) % 3
        files.write_arrays(path, {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels})
        (tmp_path / "whole").write_bytes(path.read_bytes())
    path.write_bytes(damaged((tmp_path / "whole").read_bytes(), damage))
    assert str(path) in (said(files.FileError, partial(read_npz, needed=NAMES), path) or str(path))


@QUICK
@given(damage=damages)
def test_states(state, tmp_path, damage):
    path = tmp_path / "a.state"
    path.write_bytes(damaged(state, damage))
    error = said(files.FileError, files.load_state, path)
    # The checksum covers every byte.
    assert (error is None) == (path.read_bytes() == state)
    assert str(path) in (error or str(path))


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
@QUICK
@given(damage=damages)
def test_models(model, tmp_path, name, damage):
    for path in model.iterdir():
        content = path.read_bytes()
        (tmp_path / path.name).write_bytes(damaged(content, damage) if path.name == name else content)
    assert str(tmp_path) in (said(files.FileError, models.load_model, tmp_path) or str(tmp_path))


@QUICK
@given(content=st.binary(max_size=400))
def test_bytes_of_no_kind(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    for read in (files.read_arrays, files.load_state, files.read_json, read_test):
        said(files.FileError, read, path)


@QUICK
@given(damage=damages)
def test_params(tmp_path, damage):
    whole = (Path(__file__).parents[1] / "params.yaml").read_bytes()
    path = tmp_path / "params.yaml"
    path.write_bytes(damaged(whole, damage))
    assert "params.yaml" in (said(config.ConfigError, config.load, path) or "params.yaml")
