"""prepare and open_folder: splits, labels, bytes, damage."""

import json

import numpy as np
import pytest
import torch

from sglr.config import ConfigError
from sglr.config.sections import Data
from sglr.data import open_folder, prepare, seen_before
from sglr.data.prepared import ARRAYS
from sglr.files import FileError

PARAMS = {
    "source": {"name": "digits", "test_size": 800},
    "train_size": 300,
    "validation_size": 200,
    "split_seed": 0,
    "noise": {"kind": "symmetric-other", "rate": 0.3, "seed": 0},
    "noise_per_seed": True,
    "augment": {"crop_padding": 0, "flip": False},
}


def prepared(folder, **changes):
    prepare(Data.model_validate({**PARAMS, **changes}), folder)
    return open_folder(folder)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("digits"))


def test_digits_have_the_sizes_and_the_form_asked_for(digits):
    train, validation, test = digits.train(0), digits.validation(0), digits.test()
    assert (len(train), len(validation), len(test)) == (300, 200, 800)
    assert (digits.num_classes, digits.shape) == (10, (1, 8, 8))
    assert digits.classes == tuple("0123456789")
    images = train.images()
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (0, 1)
    assert torch.equal(images * 16, (images * 16).round())
    assert torch.equal(train.images(torch.tensor([5, 2])), images[[5, 2]])


def test_the_splits_share_no_example_and_are_stratified(digits):
    splits = [digits.train(0), digits.validation(0), digits.test()]
    seen = [{image.numpy().tobytes() for image in split.x} for split in splits]
    assert not seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2]
    for split in splits:
        counts = torch.bincount(split.true, minlength=10)
        assert (counts - len(split) / 10).abs().max() <= 0.005 * len(split) + 1


def test_the_test_split_is_the_same_whatever_the_seeds(digits, tmp_path):
    other = prepared(tmp_path, split_seed=7, train_size=None, validation_size=0)
    assert torch.equal(other.test().x, digits.test().x)
    assert len(other.train(0)) == 997
    assert len(other.validation(0)) == 0
    assert other.validation(0).images().shape == (0, 1, 8, 8)


@pytest.mark.parametrize("sort", [False, True])
def test_every_example_is_where_it_was_in_the_source(tmp_path, sort):
    """Of parts in a new order, too."""
    rng = np.random.default_rng(0)
    y = {"train": np.arange(60) % 3, "test": np.arange(30) % 3}
    y = {part: np.sort(labels) if sort else labels for part, labels in y.items()}
    x = {part: rng.integers(0, 256, (len(labels), 1, 4, 4), dtype=np.uint8) for part, labels in y.items()}
    arrays = {f"x_{part}": x[part] for part in x} | {f"y_{part}": y[part] for part in y}
    np.savez(tmp_path / "own.npz", **arrays)
    source = {"name": "npz", "path": str(tmp_path / "own.npz")}
    noise = {"kind": "none", "rate": 0.0, "seed": 0}
    folder = tmp_path / "data"
    data = prepared(folder, source=source, train_size=30, validation_size=12, noise=noise, noise_per_seed=False)
    for name, part, split in (("train", "train", data.train(0)), ("val", "train", data.validation(0)),
                              ("test", "test", data.test())):  # fmt: skip
        source_index = np.load(folder / f"source_{name}.npy")
        assert source_index.dtype == np.int64
        assert np.array_equal(split.x.numpy(), x[part][source_index])
        assert np.array_equal(split.true.numpy(), y[part][source_index])


def test_validation_and_test_labels_are_true_and_training_has_its_noise(digits):
    assert not digits.validation(0).noisy.any()
    assert not digits.test().noisy.any()
    assert digits.train(0).noisy.sum() == 90
    assert digits.meta["noise"]["flipped"] == 90
    assert "wrong classes" in digits.meta["noise"]["convention"]


def test_validation_labels_can_be_as_wrong_as_those_of_training(digits, tmp_path):
    data = prepared(tmp_path / "per seed", noisy_validation=True)
    drawn = [data.validation(seed) for seed in (0, 0, 1)]
    assert [int(split.noisy.sum()) for split in drawn] == [60, 60, 60]  # 0.3 of 200, all of them wrong
    assert torch.equal(drawn[0].given, drawn[1].given)
    assert not torch.equal(drawn[0].given, drawn[2].given)
    for split in drawn:
        assert torch.equal(split.x, digits.validation(0).x)
        assert torch.equal(split.true, digits.validation(0).true)
    # Nothing else differs from the data with true validation labels, and its noise is none of training's.
    assert torch.equal(data.train(0).given, digits.train(0).given)
    same = prepared(tmp_path / "same", noisy_validation=True, train_size=200)
    assert not torch.equal(same.train(0).noisy, same.validation(0).noisy)
    fixed = prepared(tmp_path / "fixed", noisy_validation=True, noise_per_seed=False)
    assert torch.equal(fixed.validation(0).given, fixed.validation(1).given)
    assert np.array_equal(fixed.validation(0).given, np.load(tmp_path / "fixed" / "given_val.npy"))
    assert fixed.validation(0).noisy.sum() == 60
    assert not fixed.test().noisy.any()


def test_each_run_draws_its_own_noise_when_asked_to(digits, tmp_path):
    assert torch.equal(digits.train(0).given, digits.train(0).given)
    assert not torch.equal(digits.train(0).given, digits.train(1).given)
    assert torch.equal(digits.train(0).true, digits.train(1).true)
    assert torch.equal(digits.train(0).x, digits.train(1).x)
    fixed = prepared(tmp_path, noise_per_seed=False)
    assert torch.equal(fixed.train(0).given, fixed.train(1).given)
    assert np.array_equal(fixed.train(0).given, np.load(tmp_path / "given_train.npy"))


def test_noise_is_drawn_after_the_split_and_depends_on_its_own_seed(digits, tmp_path):
    other = prepared(tmp_path, noise={"kind": "symmetric-other", "rate": 0.3, "seed": 1})
    assert torch.equal(other.train(0).x, digits.train(0).x)
    assert not torch.equal(other.train(0).given, digits.train(0).given)


def test_asymmetric_noise_per_run_uses_the_map_of_params(tmp_path):
    noise = {"kind": "asymmetric", "rate": 0.5, "seed": 0, "map": {1: 7}}
    split = prepared(tmp_path, noise=noise).train(4)
    assert set(split.true[split.noisy].tolist()) == {1}
    assert set(split.given[split.noisy].tolist()) == {7}
    assert split.noisy.sum() == (split.true == 1).sum() // 2


def test_the_same_params_give_the_same_bytes(digits, tmp_path):
    prepared(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [name.split(".")[0] for name in names] == sorted([*ARRAYS, "meta"])
    assert all((tmp_path / name).read_bytes() == (digits.folder / name).read_bytes() for name in names)


def test_arrays_of_an_earlier_format_go(digits, tmp_path):
    """The folder outlives a run; what is in it is a dependency of all later stages."""
    tmp_path.joinpath("y_val.npy").write_bytes(b"old")
    prepared(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in digits.folder.iterdir()}


def test_images_of_bytes_are_divided_by_255(tmp_path, monkeypatch):
    x = np.arange(40 * 2 * 2, dtype=np.uint8).reshape(40, 1, 2, 2)
    y = np.arange(40) % 2
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    monkeypatch.setenv("SGLR_DATA_ROOT", str(tmp_path))
    source = {"name": "npz", "path": "own.npz"}
    data = prepared(tmp_path / "out", source=source, train_size=None, validation_size=0)
    split = data.train(0)
    assert split.x.dtype == torch.uint8
    assert torch.equal(split.images(slice(0, 3)), torch.from_numpy(x[:3]).float() / 255)
    assert data.classes == ("0", "1")


@pytest.mark.parametrize("per_seed", [True, False])
def test_labels_that_the_data_gives_are_trained_on_as_they_are(tmp_path, per_seed):
    """Each image is as bright as its place in the file says."""
    x = np.full((40, 1, 2, 2), np.arange(40)[:, None, None, None], dtype=np.uint8)
    y, given = np.arange(40) % 4, np.arange(40) // 3 % 4
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x, y_test=y, given_train=given)
    source = {"name": "npz", "path": str(tmp_path / "own.npz")}
    clean = {"source": source, "noise": {"kind": "none", "rate": 0.0, "seed": 0}, "noise_per_seed": per_seed}
    data = prepared(tmp_path / "out", **clean, train_size=24, validation_size=8)
    train, validation = data.train(3), data.validation(0)
    places = train.x[:, 0, 0, 0].long().numpy()
    assert np.array_equal(train.given, given[places])
    assert np.array_equal(train.true, y[places])
    assert data.meta["noise"]["flipped"] == int(train.noisy.sum()) > 0
    assert data.meta["noise"]["convention"] == "labels as the data gives them"
    held = validation.x[:, 0, 0, 0].long().numpy()
    assert np.array_equal(validation.given, y[held])
    noisy = prepared(tmp_path / "noisy", **clean, train_size=24, validation_size=8, noisy_validation=True)
    assert np.array_equal(noisy.validation(3).given, given[held])
    assert np.array_equal(noisy.validation(3).true, y[held])
    with pytest.raises(ConfigError, match=r"data\.noise\.kind: 'symmetric-other' does not fit data that has wrong"):
        prepared(tmp_path / "more", source=source, train_size=24, validation_size=8)


def test_images_and_labels_that_come_sorted_are_shuffled_together(tmp_path):
    """Each image is as bright as its class says."""
    y = np.repeat(np.arange(4), 10)
    x = np.full((40, 1, 2, 2), y[:, None, None, None] * 50, dtype=np.uint8)
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    source = {"name": "npz", "path": str(tmp_path / "own.npz")}
    data = prepared(tmp_path / "out", source=source, train_size=None, validation_size=8)
    for split in (data.train(0), data.validation(0), data.test()):
        assert torch.equal(split.x[:, 0, 0, 0], (split.true * 50).byte())
    for split in (data.train(0), data.test()):
        assert len(split.true[:10].unique()) > 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_size": 9}, r"data\.train_size: 9 is too small for a stratified cut of 10 classes"),
        ({"noise": {"kind": "asymmetric", "rate": 0.2, "seed": 0, "map": {0: 99}}}, r"data\.noise\.map"),
    ],
)
def test_nothing_is_written_when_the_params_do_not_fit_the_source(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        prepared(tmp_path, **changes)
    assert not list(tmp_path.iterdir())


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def edit_meta(folder, **values):
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, **values}))


DAMAGE = {
    "no meta": (lambda f: (f / "meta.json").unlink(), r"meta\.json"),
    "meta cut short": (lambda f: (f / "meta.json").write_text("{"), r"meta\.json"),
    "another format": (lambda f: edit_meta(f, format=9), r"meta\.json"),
    "an array missing": (lambda f: (f / "y_test.npy").unlink(), r"y_test\.npy"),
    "an array cut short": (lambda f: (f / "x_test.npy").write_bytes((f / "x_test.npy").read_bytes()[:-9]), r"x_test"),
    "one bit of a label": (lambda f: flip_a_bit(f / "given_train.npy"), r"given_train\.npy is damaged"),
    "another shape": (lambda f: np.save(f / "x_train.npy", np.zeros((2, 1, 8, 8))), r"x_train\.npy is damaged"),
    "objects": (lambda f: np.save(f / "true_val.npy", np.array([{}])), r"true_val\.npy"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_folders_are_refused_and_the_file_is_named(tmp_path, case):
    damage, message = DAMAGE[case]
    prepare(Data.model_validate(PARAMS), tmp_path)
    damage(tmp_path)
    with pytest.raises(FileError, match=message):
        open_folder(tmp_path).train(0)


def test_images_that_were_trained_on_are_counted_in_the_other_splits(digits, tmp_path):
    assert digits.meta["repeated"] == {"validation": 0, "test": 0}
    assert seen_before(digits.meta) == []
    x, y = np.random.default_rng(0).random((40, 1, 4, 4), dtype=np.float32), np.arange(40) % 2
    x[38:] = x[:2]  # two images of the source twice
    archive = tmp_path / "some.npz"
    np.savez(archive, x_train=x, y_train=y, x_test=np.concatenate([x[2:5], 1 - x[:7]]), y_test=np.arange(10) % 2)
    source = {"source": {"name": "npz", "path": str(archive)}, "noise": {"kind": "none", "rate": 0.0, "seed": 0}}
    data = prepared(tmp_path / "out", **source, train_size=None, validation_size=12)
    train = {image.tobytes() for image in np.load(tmp_path / "out/x_train.npy")}
    counted = {
        part: sum(image.tobytes() in train for image in np.load(tmp_path / f"out/x_{short}.npy"))
        for part, short in (("validation", "val"), ("test", "test"))
    }
    assert data.meta["repeated"] == counted
    assert counted["test"] > 0
    (*_, said) = seen_before(data.meta)
    assert said.startswith(f"{counted['test']} of the 10 test images are training images too")
