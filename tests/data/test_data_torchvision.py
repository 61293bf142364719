"""CIFAR and SVHN from tiny files in the official formats; no network is used."""

import hashlib
import pickle
import tarfile
import urllib.error

import numpy as np
import pytest
from torchvision import datasets
from torchvision.datasets import utils

from sglr.data import REGISTRY, class_maps
from sglr.files import FileError

RNG = np.random.default_rng(0)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(utils.urllib.request, "urlopen", refuse)


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value))
    return md5(path)


def batch(n, classes, key):
    return {"data": RNG.integers(0, 256, (n, 3072), dtype=np.uint8), key: [i % classes for i in range(n)]}


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """A folder with the official file names and ten images in each; returns it and the batches."""
    folder = tmp_path / datasets.CIFAR10.base_folder
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    written = {name: batch(10, 10, "labels") for name in names}
    sums = [[name, dump(folder / name, content)] for name, content in written.items()]
    meta = {"label_names": ["airplane", *"bcdefghi", "truck"]}
    monkeypatch.setattr(datasets.CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", sums[5:])
    named = {**datasets.CIFAR10.meta, "md5": dump(folder / "batches.meta", meta)}
    monkeypatch.setattr(datasets.CIFAR10, "meta", named)
    return tmp_path, written


def pack(root, monkeypatch):
    """The folder as an archive whose checksum counts as official, in place of the folder."""
    archive = root / datasets.CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root / datasets.CIFAR10.base_folder, datasets.CIFAR10.base_folder)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(archive))
    for path in (root / datasets.CIFAR10.base_folder).iterdir():
        path.unlink()
    return archive


def read(name, root):
    return REGISTRY.options(name).read(root)


def test_cifar10_batches_are_read_in_order(cifar10):
    root, written = cifar10
    arrays = read("cifar10", root)
    assert (arrays.x_train.shape, arrays.x_test.shape) == ((50, 3, 32, 32), (10, 3, 32, 32))
    assert arrays.x_train.dtype == np.uint8
    assert np.array_equal(arrays.x_train[10:20], written["data_batch_2"]["data"].reshape(10, 3, 32, 32))
    assert np.array_equal(arrays.x_test, written["test_batch"]["data"].reshape(10, 3, 32, 32))
    assert arrays.y_train.tolist() == list(range(10)) * 5
    assert (arrays.num_classes, arrays.classes[0], arrays.classes[9]) == (10, "airplane", "truck")


def test_an_archive_in_the_folder_is_unpacked(cifar10, monkeypatch):
    root, _ = cifar10
    pack(root, monkeypatch)
    assert len(read("cifar10", root).x_train) == 50


def test_a_download_ends_under_the_official_name_and_is_used(cifar10, monkeypatch, tmp_path_factory):
    root, _ = cifar10
    archive = pack(root, monkeypatch)
    elsewhere = archive.rename(tmp_path_factory.mktemp("server") / archive.name)

    def serve(url, folder, filename, md5):
        assert (url, filename) == (datasets.CIFAR10.url, datasets.CIFAR10.filename)
        (root / folder / filename).write_bytes(elsewhere.read_bytes())

    monkeypatch.setattr(utils, "download_url", serve)
    assert len(read("cifar10", root).x_train) == 50
    assert sorted(path.name for path in root.iterdir()) == ["cifar-10-batches-py", "cifar-10-python.tar.gz"]


def test_a_truncated_archive_is_named_and_kept(cifar10, monkeypatch):
    root, _ = cifar10
    archive = pack(root, monkeypatch)
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(FileError, match=r"cifar-10-python\.tar\.gz is damaged or incomplete.*Delete it"):
        read("cifar10", root)
    assert archive.exists()


def test_a_damaged_batch_is_never_unpickled(cifar10):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was executed",))

    root, _ = cifar10
    dump(root / datasets.CIFAR10.base_folder / "data_batch_3", Bomb())
    with pytest.raises(FileError, match="data_batch_3 are there but damaged"):
        read("cifar10", root)


@pytest.mark.parametrize(
    ("name", "filename", "checksum"),
    [
        ("cifar10", "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
        ("cifar100", "cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),
        ("svhn", "train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
    ],
)
def test_without_files_and_network_the_error_says_which_file_goes_where(tmp_path, name, filename, checksum):
    with pytest.raises(FileError) as caught:
        read(name, tmp_path / "root")
    message = str(caught.value)
    for part in (filename, checksum, "http", str(tmp_path / "root"), "SGLR_DATA_ROOT", "no network"):
        assert part in message


def test_without_a_data_root_the_projects_own_folder_is_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError, match=str(tmp_path / ".sglr" / "data")):
        read("cifar10", None)


def test_cifar100_gives_the_fine_labels(tmp_path, monkeypatch):
    folder = tmp_path / datasets.CIFAR100.base_folder
    sums = {name: dump(folder / name, batch(100, 100, "fine_labels")) for name in ("train", "test")}
    meta = dump(folder / "meta", {"fine_label_names": list(class_maps.CIFAR100_CLASSES)})
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(datasets.CIFAR100, "meta", {**datasets.CIFAR100.meta, "md5": meta})
    arrays = read("cifar100", tmp_path)
    assert arrays.num_classes == 100
    assert arrays.y_train.tolist() == list(range(100))


def test_svhn_calls_the_digit_zero_0(tmp_path, monkeypatch):
    from scipy.io import savemat

    x = RNG.integers(0, 256, (32, 32, 3, 10), dtype=np.uint8)
    entries = {}
    for part, filename in (("train", "train_32x32.mat"), ("test", "test_32x32.mat")):
        savemat(tmp_path / filename, {"X": x, "y": np.arange(1, 11, dtype=np.uint8)[:, None]})
        entries[part] = ["http://example.org/" + filename, filename, md5(tmp_path / filename)]
    monkeypatch.setattr(datasets.SVHN, "split_list", entries)
    arrays = read("svhn", tmp_path)
    assert np.array_equal(arrays.x_train, x.transpose(3, 2, 0, 1))
    assert arrays.y_train.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert arrays.x_test.flags.c_contiguous


def save_given(root, **arrays):
    np.savez(root / "people.npz", **arrays)
    return REGISTRY.options("cifar10", given="people.npz")


def test_labels_that_people_gave_are_trained_on(cifar10):
    root, _ = cifar10
    clean = np.tile(np.arange(10), 5)
    given = np.where(np.arange(50) % 3 == 0, (clean + 1) % 10, clean).astype(np.int32)
    arrays = save_given(root, clean=clean, given=given).read(root)
    assert np.array_equal(arrays.given_train, given)
    assert arrays.given_train.dtype == np.int64
    plain = read("cifar10", root)
    for name in ("x_train", "y_train", "x_test", "y_test"):
        assert np.array_equal(getattr(arrays, name), getattr(plain, name))
    assert plain.given_train is None


CLEAN = np.tile(np.arange(10), 5)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (
            {"clean": CLEAN[::-1], "given": CLEAN},
            r"people\.npz: clean holds 50 labels, of which 0% are those of the 50",
        ),
        ({"clean": CLEAN[:40], "given": CLEAN}, "clean holds 40 labels, of which 0% are"),
        ({"clean": CLEAN, "given": CLEAN[:40]}, r"people\.npz: x_train has 50 images, given_train 40 labels"),
        ({"clean": CLEAN, "given": CLEAN + 1}, "given_train holds label 10"),
        ({"clean": CLEAN}, r"people\.npz: missing given"),
        ({"clean": CLEAN / 2, "given": CLEAN}, "clean is float64"),
        ({"clean": CLEAN, "given": CLEAN, "worse": CLEAN}, "worse would not be used"),
    ],
)
def test_given_labels_of_other_images_are_refused(cifar10, arrays, said):
    root, _ = cifar10
    with pytest.raises(FileError, match=said):
        save_given(root, **arrays).read(root)


def test_a_missing_file_of_given_labels_is_named_before_anything_is_read(cifar10):
    root, _ = cifar10
    options = REGISTRY.options("cifar10", given="absent.npz")
    for use in (options.look, options.read):
        with pytest.raises(FileError, match=r"data\.source\.given: there is no file .*absent\.npz"):
            use(root)
