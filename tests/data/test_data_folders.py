"""Image files in folders of classes: what is read, in which order, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sglr.data import REGISTRY, folders
from sglr.files import FileError
from sglr.image_files import read_image


def save(path, level=0, size=(6, 4), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (level,) * 3 if mode == "RGB" else level).save(path, **options)


@pytest.fixture
def animals(tmp_path):
    """Two classes; of training images the level says which: 10 times the class and the place in it."""
    for label, name in enumerate(("cat", "dog")):
        for place, file in enumerate(("a.png", "b.jpg", "more/c.BMP")):
            save(tmp_path / "train" / name / file, 10 * label + place)
        save(tmp_path / "test" / name / "x.png", 100 + label)
    return tmp_path


def read(path, root=None, **options):
    return REGISTRY.options("folders", path=str(path), **options).read(root)


def test_images_are_read_in_the_order_of_classes_and_names(animals):
    arrays = read(animals)
    assert (arrays.x_train.shape, arrays.x_train.dtype, arrays.x_test.shape) == ((6, 3, 4, 6), np.uint8, (2, 3, 4, 6))
    assert arrays.x_train[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12]
    assert arrays.y_train.tolist() == [0, 0, 0, 1, 1, 1]
    assert (arrays.x_test[:, 2, 3, 5].tolist(), arrays.y_test.tolist()) == ([100, 101], [0, 1])
    assert (arrays.num_classes, arrays.classes) == (2, ("cat", "dog"))


def test_what_is_no_image_of_a_class_is_left_alone(animals):
    (animals / "train/cat/notes.txt").write_text("none")
    (animals / "train/cat/._a.png").write_text("kept by a system")
    save(animals / "train/cat/.thumbnails/a.png", 77)
    save(animals / "train/cat/more/.ipynb_checkpoints/a.png", 77)
    (animals / "train/.cache").mkdir()
    (animals / "train/list.csv").write_text("none")
    assert read(animals).y_train.tolist() == [0, 0, 0, 1, 1, 1]


def test_they_are_scaled_as_for_a_prediction(animals):
    """Height is not width, so that what is turned would show."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(animals / "train/cat/a.png")
    for channels in (1, 3):
        arrays = read(animals, size=5, channels=channels)
        assert arrays.x_train.shape == (6, channels, 5, 5)
        expected = read_image(animals / "train/cat/a.png", (channels, 5, 5))[0][0]
        assert np.array_equal(arrays.x_train[0], (255 * expected).round().numpy())


def test_the_folder_may_be_where_SGLR_DATA_ROOT_says_and_have_another_name_for_test(animals):  # noqa: N802
    (animals / "test").rename(animals / "val")
    assert read(animals.name, root=animals.parent, test="val").y_test.tolist() == [0, 1]
    options = REGISTRY.options("folders", path=animals.name)
    for use in (options.look, options.read):
        with pytest.raises(FileError, match=r"there is no folder test in .*data\.source\.test names another"):
            use(animals.parent)


def test_tiny_imagenet_as_it_is_published(animals):
    (animals / "val/images").mkdir(parents=True)
    lines = []
    for number, name in ((2, "dog"), (0, "cat"), (1, "dog")):
        save(animals / f"val/images/val_{number}.JPEG", 50 + number)
        lines.append(f"val_{number}.JPEG\t{name}\t0\t0\t9\t9\n")
    (animals / "val/val_annotations.txt").write_text("".join(lines))
    arrays = read(animals, test="val")
    assert arrays.x_test[:, 0, 0, 0].tolist() == [50, 51, 52]
    assert arrays.y_test.tolist() == [0, 1, 1]
    for wrong, said in (
        ("val_2.JPEG\tbird\t0", "line 2: .* is not an image in images/ and a class"), ("val_9.JPEG\tcat", "line 2"),
        ("../images/val_2.JPEG\tcat", "line 2"), ("", "line 2"), ("\udcff\tcat", "line 2"),
        (f"{'v' * 300}\tcat", "line 2"),
        ("val_0.JPEG\tdog", "line 2: .* names an image a second time"), ("val_1.JPEG\tdog", "no line for val_2.JPEG"),
    ):  # fmt: skip
        line = wrong.encode(errors="surrogateescape")
        (animals / "val/val_annotations.txt").write_bytes(b"val_0.JPEG\tcat\n" + line + b"\n")
        with pytest.raises(FileError, match=rf"val_annotations\.txt.*{said}"):
            read(animals, test="val")


def broken(path):
    path.write_bytes(path.read_bytes()[:40])


def link(path, to):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to)


WRONG = {
    "a link to a folder": (
        lambda f: link(f / "train/cat/in", f / "train/dog"),
        r"cat/in is a link to a folder: put the",
    ),
    "a link to nothing": (lambda f: link(f / "train/cat/z.png", f / "gone.png"), r"cat/z\.png is a link to nothing"),
    "another size": (
        lambda f: save(f / "train/dog/z.png", size=(4, 6)),
        r"z\.png has 4x6 pixels, others 6x4: data.sou",
    ),
    "half a file": (lambda f: broken(f / "train/dog/a.png"), r"cannot read .*dog/a\.png as an image"),
    "no image of it": (lambda f: (f / "train/emu").mkdir(), r"train/emu: there is no image \(\.bmp, "),
    "not tested": (lambda f: (f / "test/dog/x.png").unlink(), r"test/dog: there is no image"),
    "not trained": (
        lambda f: save(f / "test/emu/a.png"),
        "test: the class emu has no folder among the training images",
    ),
    "one class": (lambda f: (f / "train/dog").rename(f / "dog"), r"two classes at least; found 1\."),
}


@pytest.mark.parametrize("name", WRONG)
def test_folders_that_cannot_be_used_are_named(animals, name):
    make, said = WRONG[name]
    make(animals)
    with pytest.raises(FileError, match=said):
        read(animals)


def test_a_folder_in_data_must_be_watched(animals, tmp_path, monkeypatch):
    """DVC does not follow a link to a folder."""
    (tmp_path / "project/data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    (tmp_path / "project/data/animals").symlink_to(animals)
    with pytest.raises(FileError, match=r"data/animals is a link to a folder, .*: give its full path"):
        read("data/animals")
    (tmp_path / "project/data/animals").unlink()
    for part in ("train", "test/cat", "train/dog"):
        shutil.copytree(animals, "data/animals", ignore=shutil.ignore_patterns("project"))
        shutil.rmtree(f"data/animals/{part}")
        link(Path(f"data/animals/{part}"), animals / part)
        with pytest.raises(FileError, match=rf"data/animals/{part} is a link to a folder, .*: give its full path"):
            read("data/animals")
        shutil.rmtree("data/animals")
    with pytest.raises(FileError, match=r"data\.source\.path: there is no folder .*absent"):
        read("absent")


def test_what_cannot_be_read_is_one_error(animals, monkeypatch):
    """A folder without permission, as user root does not meet; more images than there is memory."""

    def refused(top, onerror):
        onerror(PermissionError(13, "Permission denied", str(top)))

    with monkeypatch.context() as patch:
        patch.setattr(folders.os, "walk", refused)
        with pytest.raises(FileError, match=r"cannot read the images in .*Permission denied: .*train/cat"):
            read(animals)

    def too_many(shape, dtype):
        raise MemoryError("Unable to allocate 3.75 GiB")

    monkeypatch.setattr(folders.np, "empty", too_many)
    with pytest.raises(FileError, match=r"do not fit into memory \(Unable to allocate 3\.75 GiB\): make them smaller"):
        read(animals)
