"""Image files in folders of classes: what is read, in which order, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from sglr.data import REGISTRY
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
    for wrong in ("val_2.JPEG\tbird\t0", "val_9.JPEG\tcat", "../images/val_2.JPEG\tcat", "", b"\xff\tcat"):
        line = wrong if isinstance(wrong, bytes) else wrong.encode()
        (animals / "val/val_annotations.txt").write_bytes(b"val_0.JPEG\tcat\n" + line + b"\n")
        with pytest.raises(FileError, match=r"val_annotations\.txt"):
            read(animals, test="val")


def broken(path):
    path.write_bytes(path.read_bytes()[:40])


WRONG = {
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
    with pytest.raises(FileError, match=r"data\.source\.path: there is no folder .*absent"):
        read("absent")
