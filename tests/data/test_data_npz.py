"""Source npz: what is accepted, and what is refused by name."""

from pathlib import Path

import numpy as np
import pytest

from sglr.data import REGISTRY
from sglr.files import FileError

RNG = np.random.default_rng(0)


def good(**changes):
    arrays = {
        "x_train": RNG.integers(0, 256, (12, 3, 5, 4), dtype=np.uint8),
        "y_train": np.arange(12) % 3,
        "x_test": RNG.integers(0, 256, (6, 3, 5, 4), dtype=np.uint8),
        "y_test": np.arange(6) % 3,
    }
    return {**arrays, **changes}


def read(folder, arrays, root=None):
    path = Path(folder) / "own.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return REGISTRY.options("npz", path=str(path)).read(root)


def test_bytes_with_channels_first_are_taken_as_they_are(tmp_path):
    given = good()
    arrays = read(tmp_path, given)
    assert np.array_equal(arrays.x_train, given["x_train"])
    assert (arrays.shape, arrays.num_classes, arrays.classes) == ((3, 5, 4), 3, None)
    assert arrays.y_test.dtype == np.int64


def test_an_array_that_would_not_be_used_is_refused(tmp_path):
    with pytest.raises(FileError, match=r"own\.npz: true_train would not be used; only x_train, y_train"):
        read(tmp_path, good(true_train=np.arange(12) % 3))


def test_labels_to_train_on_may_be_others_than_the_true_ones(tmp_path):
    given = np.arange(12, dtype=np.int32) % 2
    arrays = read(tmp_path, good(given_train=given))
    assert arrays.given_train.dtype == np.int64
    assert np.array_equal(arrays.given_train, given)
    assert arrays.num_classes == 3
    assert read(tmp_path, good()).given_train is None
    for wrong, message in (
        (given[:5], "x_train has 12 images, given_train 5 labels"), (given + 2, "given_train holds label 3"),
        (given - 1, "given_train holds label -1"), (given / 2, "given_train is float64"),
    ):  # fmt: skip
        with pytest.raises(FileError, match=message):
            read(tmp_path, good(given_train=wrong))


def test_classes_may_have_names(tmp_path):
    names = np.array(["cat", "dog", "Bär"])
    assert read(tmp_path, good(classes=names)).classes == ("cat", "dog", "Bär")
    written = ("T\u00a0shirt", "می\u200cخواهم", "👨\u200d👩\u200d👧")
    assert read(tmp_path, good(classes=np.array(written))).classes == written
    for wrong, message in (
        (names[:2], "2 class names for 3 classes"), (np.array([1, 2, 3]), "classes must hold one name per class"),
        (np.array(["cat", "cat", "dog"]), "one name per class, each another text"), (names[None], "one name per"),
        (np.array(["cat", "", "dog"]), "one name per class"),
        (np.array(["cat", "do\x1bg", "a"]), r"the class name 'do\\x1bg' holds a character that cannot be printed"),
        (np.array(["cat", "a\nb", "a"]), "cannot be printed"), (np.array(["cat", "\ud800", "a"]), "cannot be printed"),
        (np.array(["cat", "a\u202eb", "a"]), "cannot be printed"),
    ):  # fmt: skip
        with pytest.raises(FileError, match=message):
            read(tmp_path, good(classes=wrong))


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_are_moved_first(tmp_path, channels):
    last = {part: RNG.integers(0, 256, (n, 5, 4, channels), dtype=np.uint8) for part, n in (("train", 12), ("test", 6))}
    arrays = read(tmp_path, good(x_train=last["train"], x_test=last["test"]))
    assert arrays.shape == (channels, 5, 4)
    assert np.array_equal(arrays.x_test[2, channels - 1], last["test"][2, :, :, channels - 1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floating_point_becomes_float32_and_both_ends_are_allowed(tmp_path, dtype):
    x = np.linspace(0, 1, 12 * 60, dtype=dtype).reshape(12, 3, 5, 4)
    arrays = read(tmp_path, good(x_train=x, x_test=x[:6], y_train=np.arange(12, dtype=np.uint8) % 3))
    assert arrays.x_train.dtype == np.float32
    assert (arrays.x_train.min(), arrays.x_train.max()) == (0, 1)


def test_paths_are_looked_for_here_and_then_in_the_data_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "root"
    root.mkdir()
    read(root, good())
    assert len(REGISTRY.options("npz", path="own.npz").read(root).x_train) == 12
    few = good(x_train=np.zeros((3, 1, 2, 2)), y_train=np.arange(3), x_test=np.ones((6, 1, 2, 2)))
    np.savez(tmp_path / "own.npz", **few)
    assert len(REGISTRY.options("npz", path="own.npz").read(root).x_train) == 3
    said = r"data\.source\.path: there is no file .*absent\.npz or .*root/absent\.npz\. SGLR_DATA_ROOT names another"
    with pytest.raises(FileError, match=said):
        REGISTRY.options("npz", path="absent.npz").read(root)


def with_nan():
    x = np.full((12, 3, 5, 4), 0.5)
    x[3, 1, 2, 0] = np.nan
    return x


FLOAT_TEST = np.full((6, 3, 5, 4), 0.5)
BAD = {
    "missing arrays": ({"x_test": None, "y_test": None}, r"missing x_test, y_test \(it holds x_train, y_train\)"),
    "lengths": ({"y_train": np.arange(11) % 3}, "x_train has 12 images, y_train 11 labels"),
    "nan": ({"x_train": with_nan(), "x_test": FLOAT_TEST}, "x_train holds NaN"),
    "above 1": ({"x_train": np.full((12, 3, 5, 4), 255.0), "x_test": FLOAT_TEST}, "x_train has values from 255 to 255"),
    "below 0": ({"x_train": np.full((12, 3, 5, 4), -0.1), "x_test": FLOAT_TEST}, "x_train has values from -0.1"),
    "infinite": ({"x_train": np.full((12, 3, 5, 4), np.inf), "x_test": FLOAT_TEST}, "x_train has values from inf"),
    "wide integers": ({"x_train": np.ones((12, 3, 5, 4), int)}, "x_train is int64; images must be uint8"),
    "complex": ({"x_train": np.ones((12, 3, 5, 4), complex)}, "x_train is complex128"),
    "objects": ({"y_train": np.array([{}] * 12)}, "cannot read y_train: Object arrays"),
    "text": ({"y_train": np.array(["cat"] * 12)}, "y_train is <U3; labels must be whole numbers"),
    "labels with a point": ({"y_train": np.arange(12) / 3}, "y_train is float64"),
    "one-hot labels": ({"y_train": np.eye(12, 3)}, r"y_train has shape \(12, 3\)"),
    "negative labels": ({"y_train": np.arange(12) % 3 - 1}, "y_train holds label -1"),
    "labels from 1": ({"y_train": np.arange(12) % 3 + 1}, "y_train holds the labels 1, 2, 3; .* numbered from 0"),
    "one class": ({"y_train": np.zeros(12, int), "y_test": np.zeros(6, int)}, "y_train holds the labels 0;"),
    "a huge label": ({"y_train": np.array([0, 1, 2**62] * 4)}, "y_train holds the labels 0, 1, 4611686018427387904"),
    "new label in the test set": ({"y_test": np.arange(6)}, "y_test holds label 5, but there are 3 classes"),
    "empty test set": ({"x_test": np.zeros((0, 3, 5, 4), np.uint8), "y_test": np.zeros(0, int)}, "x_test is empty"),
    "empty training set": ({"x_train": np.zeros((0, 3, 5, 4)), "y_train": np.zeros(0, int)}, "train is empty"),
    "flat images": ({"x_train": np.zeros((12, 60), np.uint8)}, r"x_train has shape \(12, 60\); images must"),
    "grey without channel": ({"x_test": np.zeros((6, 5, 4), np.uint8)}, r"x_test has shape \(6, 5, 4\)"),
    "other image size": ({"x_test": np.zeros((6, 3, 5, 5), np.uint8)}, r"are \(3, 5, 4\).*x_test \(3, 5, 5\)"),
    "transparent": ({"x_train": np.zeros((12, 5, 5, 4), np.uint8)}, "4 channels must be the second axis"),
    "one of each type": ({"x_test": FLOAT_TEST}, "x_train is uint8, x_test float32"),
}


@pytest.mark.parametrize("case", BAD)
def test_arrays_that_cannot_be_used_are_refused_by_name(tmp_path, case):
    changes, message = BAD[case]
    with pytest.raises(FileError, match=message) as caught:
        read(tmp_path, good(**changes))
    assert "own.npz" in str(caught.value)


def test_what_rounding_adds_is_taken_off(tmp_path):
    x = np.full((12, 3, 5, 4), 0.5)
    x[0, 0, 0] = [1 + 9e-7, -9e-7, 1, 0]
    found = read(tmp_path, good(x_train=x, x_test=FLOAT_TEST)).x_train
    assert found[0, 0, 0].tolist() == [1, 0, 1, 0]
    x[1, 0, 0, 0] = 1.0001
    with pytest.raises(FileError, match=r"x_train has values from -9e-07 to 1\.0001; "):
        read(tmp_path, good(x_train=x, x_test=FLOAT_TEST))


def truncated(path):
    np.savez(path, **good())
    path.write_bytes(path.read_bytes()[:-200])


def corrupted(path):
    np.savez_compressed(path, **good())
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)


FILES = {
    "text": lambda path: path.write_text("not an archive"),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": truncated,
    "corrupted": corrupted,
    "single array": lambda path: np.save(path.open("wb"), np.zeros(3)),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_no_archive_are_refused(tmp_path, case):
    path = tmp_path / "own.npz"
    FILES[case](path)
    with pytest.raises(FileError, match=r"own\.npz"):
        REGISTRY.options("npz", path=str(path)).read(None)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_array_with_a_bit_turned_is_refused(tmp_path, save):
    path = tmp_path / "own.npz"
    save(path, **good(x_train=np.arange(720, dtype=np.uint8).reshape(12, 3, 5, 4)))
    content = bytearray(path.read_bytes())
    content[content.index(b"x_train.npy") + 200] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"own\.npz: cannot read x_train: "):
        REGISTRY.options("npz", path=str(path)).read(None)


@pytest.mark.parametrize("shape", [(3, 5, 3), (3, 5, 1), (1, 5, 3)])
def test_channels_that_are_first_stay_there_however_narrow_the_images(tmp_path, shape):
    x = RNG.integers(0, 256, (12, *shape), dtype=np.uint8)
    arrays = read(tmp_path, good(x_train=x, x_test=x[:6]))
    assert np.array_equal(arrays.x_train, x)


@pytest.mark.parametrize("value", [1 + 5e-6, -5e-6])
def test_what_is_more_than_rounding_is_refused(tmp_path, value):
    x = np.full((12, 3, 5, 4), 0.5)
    x[0, 0, 0, 0] = value
    with pytest.raises(FileError, match="x_train has values from"):
        read(tmp_path, good(x_train=x, x_test=FLOAT_TEST))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_in_fortran_order_are_the_same_arrays(tmp_path, save):
    """As transposing leaves them: images of (N, H, W, C) from (C, W, H, N), say."""
    given = good(x_train=np.asfortranarray(RNG.integers(0, 256, (12, 3, 5, 4), dtype=np.uint8)))
    save(tmp_path / "own.npz", **given)
    arrays = REGISTRY.options("npz", path=str(tmp_path / "own.npz")).read(None)
    assert np.array_equal(arrays.x_train, given["x_train"])


def test_a_file_behind_a_linked_folder_is_refused(tmp_path, monkeypatch):
    """DVC follows no link to a folder, and would go on with the old file when it was changed."""
    monkeypatch.chdir(tmp_path)
    for folder in ("data/own", "scratch"):
        (tmp_path / folder).mkdir(parents=True)
    np.savez("scratch/own.npz", **good())
    Path("data/big").symlink_to(tmp_path / "scratch")
    with pytest.raises(FileError, match=r"data/big is a link to a folder, .*: put a link to own.npz itself into data/"):
        REGISTRY.options("npz", path="data/big/own.npz").read(None)
    Path("data/own/linked.npz").symlink_to(tmp_path / "scratch/own.npz")
    for path in ("data/own/linked.npz", str(tmp_path / "data/big/own.npz")):
        assert REGISTRY.options("npz", path=path).read(None).num_classes == 3
