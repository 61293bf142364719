"""`sglr status`, `doctor`, `predict` and `register` as a user meets them."""

import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from command import call
from PIL import Image

from sglr import data, files, image_files, models
from sglr.config.reader import validate
from sglr.tracking import registering

KIND = {"num_classes": 10, "shape": (1, 8, 8)}


@pytest.fixture
def project(params, digits_project, tmp_path):
    """Prepared digits and an untrained at-0."""
    config = validate(params)
    data.prepare(config.data, tmp_path / "artifacts/data")
    for seed, name in enumerate(("best", "last")):
        models.save(
            models.build(config.model, **KIND, generator_seed=seed),
            tmp_path / "artifacts/train/at-0" / name,
            models.spec(config.model, **KIND),
        )
    files.write_json(tmp_path / "artifacts/evaluate/at-0/metrics.json", {"best": {"natural": 0.5}, "last": {}})
    return tmp_path


def test_status_outside_a_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("status")
    assert result.exit_code == 1
    assert "run this in the project's root folder" in result.output


def test_status_says_where_dvc_yaml_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("train: {}\n")
    (tmp_path / "dvc.yaml").write_text("stages:\n  - a\n  b: 1\n")
    result = call("status")
    assert result.exit_code == 1
    assert "dvc.yaml is not valid YAML" in result.output
    assert "line 3" in result.output


def image(path, size=(8, 8)):
    Image.fromarray(np.arange(size[0] * size[1], dtype=np.uint8).reshape(size)).save(path)
    return path


def test_images_are_classified(project):
    result = call("predict", image(project / "a.png"), "--model", "artifacts/train/at-0/last")
    assert result.exit_code == 0, result.output
    x = torch.arange(64).float().view(1, 1, 8, 8) / 255
    probabilities = models.load_model(project / "artifacts/train/at-0/last")(x).detach().softmax(1)[0]
    best = int(probabilities.argmax())
    assert f"a.png: {best} {float(probabilities.max()):.1%}" in result.output


def test_a_model_is_a_folder_or_a_file(project):
    """As ``load_model`` takes it, whatever the file is called."""
    trained = project / "artifacts/train/at-0/last"
    for one in trained.iterdir():
        (project / f"mine{one.suffix}").write_bytes(one.read_bytes())
    image(project / "a.png")
    expected = call("predict", "a.png", "--model", trained)
    for path in (trained / "model.safetensors", "mine.safetensors"):
        found = call("predict", "a.png", "--model", path)
        assert (found.exit_code, found.output) == (0, expected.output)


def test_images_of_another_size_and_colour_are_changed_and_that_is_said(project):
    Image.new("RGB", (20, 10), (200, 10, 10)).save(project / "b.jpg")
    result = call("predict", project / "b.jpg", "--model", "artifacts/train/at-0/best")
    assert "(resized from 20x10 to 8x8)" in result.output


def test_images_of_16_bits_are_those_of_8(project):
    """PNG, TIFF and PGM files with 16 bits of grey; 32 bits, or floating point, have no known white."""
    levels = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
    for name in ("a.png", "a.tif"):
        Image.fromarray(levels).save(project / name)
    (project / "a.pgm").write_bytes(b"P5 8 8 65535\n" + levels.astype(">u2").tobytes())
    for name in ("a.png", "a.tif", "a.pgm"):
        for channels in (1, 3):
            x, done = image_files.read_image(project / name, (channels, 8, 8))
            expected = torch.from_numpy(np.rint(levels / 257)).float().div(255)
            assert (bool((x[0] == expected).all()), done) == (True, "")
    for dtype in (np.int32, np.float32):
        Image.fromarray(levels.astype(dtype)).save(project / "b.tif")
        result = call("predict", "b.tif", "--model", "artifacts/train/at-0/last")
        assert (result.exit_code, result.output.count("b.tif has grey values of 32 bits")) == (1, 1), result.output


def transparent(mode, hidden, clear, **options):
    """Four pixels of one colour, ``hidden``, the left two of them seen through."""
    image = Image.new(mode, (2, 2), hidden)
    for y in range(2):
        image.putpixel((0, y), clear)
    return image, options


@pytest.mark.parametrize(
    ("image", "options"),
    [
        transparent("RGBA", (10, 10, 10, 255), (10, 10, 10, 0)),
        transparent("LA", (10, 255), (10, 0)),
        transparent("RGB", (10, 10, 10), (9, 9, 9), transparency=(9, 9, 9)),
        transparent("L", 10, 9, transparency=9),
        transparent("P", 10, 9, transparency=9),
        transparent("P", 10, 9, transparency=bytes([255] * 9 + [0])),
    ],
    ids=["colour and alpha", "grey and alpha", "a colour", "a level", "of a palette", "levels of it"],
)
def test_what_is_transparent_is_seen_over_white_and_that_is_said(project, image, options):
    if image.mode == "P":
        image.putpalette([level for number in range(256) for level in 3 * (number,)])
    image.save(project / "a.png", **options)
    for channels in (1, 3):
        x, done = image_files.read_image(project / "a.png", (channels, 2, 2))
        assert done == "transparent parts over white"
        assert (255 * x[0]).round().tolist() == channels * [[[255, 10], [255, 10]]]
    Image.new("RGBA", (2, 2), (10, 10, 10, 255)).save(project / "opaque.png")
    x, done = image_files.read_image(project / "opaque.png", (3, 2, 2))
    assert ((255 * x).round().unique().tolist(), done) == ([10], "")


def test_a_transparent_level_of_16_bits_is_that_level_alone(project):
    """Of two that are one in 8 bits; Pillow reads such files, and not every version writes them."""
    Image.fromarray(np.array([[2570, 2571]], dtype=np.uint16)).save(project / "a.png")
    content, chunk = (project / "a.png").read_bytes(), b"tRNS" + struct.pack(">H", 2571)
    chunk = struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (project / "a.png").write_bytes(content[:33] + chunk + content[33:])  # behind signature and header
    x, done = image_files.read_image(project / "a.png", (1, 1, 2))
    assert ((255 * x).round().flatten().tolist(), done) == ([10, 255], "transparent parts over white")


@pytest.mark.parametrize(("bits", "white"), [(1, 1), (2, 3), (4, 15)])
def test_a_transparent_level_of_fewer_bits_is_that_level(project, bits, white):
    """A row of black, which is seen through, and white."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    row = zlib.compress(bytes([0, white << (8 - 2 * bits)]))
    header = struct.pack(">IIBBBBB", 2, 1, bits, 0, 0, 0, 0)
    for clear, seen in ((0, [255, 255]), (white, [0, 255])):
        (project / "a.png").write_bytes(
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"tRNS", struct.pack(">H", clear))
            + chunk(b"IDAT", row) + chunk(b"IEND", b"")
        )  # fmt: skip
        x, done = image_files.read_image(project / "a.png", (1, 1, 2))
        assert ((255 * x).flatten().tolist(), done) == (seen, "transparent parts over white")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_their_exif_data_say(project, name, orientation):
    """Its bright quarter is at the top left, as a viewer shows it."""
    shown = Image.new("RGB", (32, 16))
    shown.paste((255, 255, 255), (0, 0, 16, 8))
    back = [None, "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_90", "TRANSVERSE",
            "ROTATE_270"][orientation - 1]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = shown if back is None else shown.transpose(Image.Transpose[back])
    stored.save(project / name, exif=exif)
    x, done = image_files.read_image(project / name, (1, 16, 32))
    assert done == ("" if orientation == 1 else "oriented by its EXIF data")
    assert x[0, 0, :8, :16].min() > 0.9
    assert x.mean() < 0.3


@pytest.mark.parametrize("kind", ["gif", "png", "tiff", "webp"])
def test_of_several_images_in_a_file_the_first_is_read_and_that_is_said(project, kind):
    dark, light = (Image.new("RGB", (8, 8), (level,) * 3) for level in (0, 255))
    dark.save(project / f"a.{kind}", save_all=True, append_images=[light])
    x, done = image_files.read_image(project / f"a.{kind}", (1, 8, 8))
    assert (float(x.max()), done) == (0, "its first image only")
    dark.save(project / f"a.{kind}")
    assert image_files.read_image(project / f"a.{kind}", (1, 8, 8))[1] == ""


def test_other_exif_data_may_be_odd(project):
    """A number where a text belongs, which Pillow reads and cannot write."""
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x011A: 72.0})
    Image.new("L", (8, 4)).save(project / "a.jpg", exif=exif.tobytes().replace(b"\x01\x1a", b"\x01\x0d"))
    assert image_files.read_image(project / "a.jpg", (1, 8, 4))[1] == "oriented by its EXIF data"


def test_attacked_images_are_saved_within_the_ball(project):
    path = image(project / "a.png")
    result = call("predict", path, "--model", "artifacts/train/at-0/last", "--attack", "--eps", "4", "--output", "out")
    assert result.exit_code == 0, result.output
    assert "under PGD-20, linf 4/255, changed by 4/255: " in result.output
    change = np.asarray(Image.open(project / "out/a.png"), dtype=int) - np.asarray(Image.open(path), dtype=int)
    assert 0 < np.abs(change).max() <= 4


def bright(path, level):
    """An image that needs no rounding and leaves no room for some changes."""
    Image.fromarray(np.full((8, 8), level, dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize(("norm", "eps"), [("linf", 25.5), ("linf", 1.2), ("l2", 40.0), ("l2", 2.5)])
def test_what_is_predicted_under_attack_is_what_is_saved(project, params, norm, eps):
    params["threat"] = {"norm": norm, "eps_255": eps}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    model = models.load_model(project / "artifacts/train/at-0/last")
    for path in (image(project / "a.png"), bright(project / "b.png", 250)):
        result = call("predict", path, "--model", "artifacts/train/at-0/last", "--attack", "--output", "out")
        assert result.exit_code == 0, result.output
        x, x_adv = (image_files.read_image(found, (1, 8, 8))[0] for found in (path, project / "out" / path.name))
        change = 255 * (x_adv - x).double()
        length = change.abs().max() if norm == "linf" else change.norm()
        assert 0.5 * eps < length < eps + 1e-3
        (shown,) = (line for line in result.output.splitlines() if "under PGD" in line)
        best = model(x_adv).softmax(1).max(1)
        stated = f"{norm} {int(eps) if norm == 'linf' else eps:g}/255, changed by {length:.4g}/255: "
        assert f"{stated}{best.indices[0]} {best.values[0]:.1%}" in shown


def test_a_radius_no_image_file_can_show_is_refused(project, params):
    arguments = ("predict", image(project / "a.png"), "--model", "artifacts/train/at-0/last", "--attack")
    result = call(*arguments, "--eps", "0.5")
    assert (result.exit_code, "0.5/255 changes no image file" in result.output) == (1, True), result.output
    for radius in ("nan", "inf"):
        assert f"a radius of {radius}/255 is none" in call(*arguments, "--eps", radius).output
    params["threat"] = {"norm": "l2", "eps_255": 0.9}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    result = call(*arguments)
    assert (result.exit_code, "0.9/255 changes no image file" in result.output) == (1, True), result.output
    assert not (project / "adversarial").exists()


def test_a_change_that_rounding_leaves_nothing_of_is_said(project, params):
    """Within an l2 radius of 1/255 a change spread over 64 pixels is less than half a 255th in each."""
    params["threat"] = {"norm": "l2", "eps_255": 1.0}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    path = bright(project / "a.png", 100)
    result = call("predict", path, "--model", "artifacts/train/at-0/last", "--attack", "--output", "out")
    same = np.array_equal(np.asarray(Image.open(project / "out/a.png")), np.asarray(Image.open(path)))
    assert (same, "l2 1/255, unchanged in whole 255ths: " in result.output) == (True, True), result.output


@pytest.mark.parametrize("option", [("--eps", "4"), ("--steps", "20"), ("--output", "adversarial")])
def test_options_of_the_attack_need_an_attack(project, option):
    result = call("predict", image(project / "a.png"), "--model", "artifacts/train/at-0/last", *option)
    assert result.exit_code == 2
    assert f"{option[0]} without --attack" in result.output


def test_images_of_the_same_name_do_not_replace_each_other(project):
    for folder, level in (("one", 10), ("two", 200)):
        (project / folder).mkdir()
        bright(project / folder / "a.png", level)
    arguments = ("predict", "one/a.png", "two/a.png", "--model", "artifacts/train/at-0/last", "--attack", "--eps", "2")
    assert call(*arguments, "--output", "out").exit_code == 0
    levels = [int(np.asarray(Image.open(project / "out" / name)).mean()) for name in ("a.png", "a-2.png")]
    assert abs(levels[0] - 10) <= 2
    assert abs(levels[1] - 200) <= 2
    result = call(*arguments, "--output", "two")
    assert (result.exit_code, "two/a.png would be overwritten" in result.output) == (1, True)
    assert np.asarray(Image.open(project / "two/a.png")).max() == 200


def test_no_image_is_put_over_one_that_was_not_made_so(project):
    """Nor over any other file; what an earlier attack left is made again."""
    Image.open(image(project / "a.png")).save(project / "a.bmp")
    before = (project / "a.png").read_bytes()
    arguments = ("predict", "a.bmp", "--model", "artifacts/train/at-0/last", "--attack", "--eps", "4", "--output")
    result = call(*arguments, ".")
    assert (result.exit_code, "a.png would be overwritten, and is not from an earlier" in result.output) == (1, True)
    assert (project / "a.png").read_bytes() == before
    for _ in range(2):
        assert call(*arguments, "out").exit_code == 0
    (project / "out/a.png").write_text("mine")
    assert (call(*arguments, "out").exit_code, (project / "out/a.png").read_text()) == (1, "mine")


@pytest.mark.slow
def test_progress_is_shown_on_a_terminal_only(project):
    command = [sys.executable, "-m", "sglr.cli", "predict", "--model", "artifacts/train/at-0/last", "--attack"]
    command += [str(image(project / f"{number}.png")) for number in range(3)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    ended = subprocess.run(command, stderr=theirs, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    os.close(theirs)
    assert b"predict:" in os.read(ours, 65536)
    assert ended.stdout.count("under PGD-20") == 3
    assert "predict:" not in ended.stdout
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "predict:" not in ended.stderr


@pytest.mark.parametrize("content", [b"no image", b""])
def test_what_is_no_image_is_said(project, content):
    (project / "c.png").write_bytes(content)
    result = call("predict", "c.png", "--model", "artifacts/train/at-0/last")
    assert result.exit_code == 1
    assert "cannot read c.png as an image" in result.output


def test_of_a_training_the_best_model_predicts_or_the_last_where_there_is_no_best(project):
    arguments = ("predict", image(project / "a.png"), "--model")
    for checkpoint in ("best", "last"):
        expected = call(*arguments, f"artifacts/train/at-0/{checkpoint}")
        found = call(*arguments, "artifacts/train/at-0")
        assert (found.exit_code, found.output) == (0, expected.output)
        shutil.rmtree(project / "artifacts/train/at-0" / checkpoint)
    assert call(*arguments, "artifacts/train/at-0").exit_code == 1


def test_predicting_names_the_classes_of_the_data_a_model_was_trained_on(project):
    """With dvc.lock about these weights and that data; data prepared since does not name their classes."""
    trained, meta = (
        project / "artifacts/train/at-0/last",
        json.loads((project / "artifacts/data/meta.json").read_text()),
    )
    meta["classes"] = [f"class {number}" for number in range(10)]
    (project / "artifacts/data/meta.json").write_text(json.dumps(meta))
    arguments = ("predict", image(project / "a.png"), "--model")
    assert ": class " not in call(*arguments, trained).output
    places = {"deps": "artifacts/data", "outs": "artifacts/train/at-0/last"}
    entry = {key: [{"path": path, "md5": files.dvc_digest(project / path)}] for key, path in places.items()}
    (project / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"train@at-0": entry}}))
    for path in (trained, trained / "model.safetensors", "artifacts/train/at-0/last"):
        assert ": class " in call(*arguments, path).output
    (project / "elsewhere").mkdir()
    for one in trained.iterdir():
        (project / "elsewhere" / one.name).write_bytes(one.read_bytes())
    assert ": class " not in call(*arguments, "elsewhere").output
    meta["classes"] = ["airplane", *meta["classes"][1:]]
    (project / "artifacts/data/meta.json").write_text(json.dumps(meta))
    result = call(*arguments, trained)
    assert (result.exit_code, re.findall("class |airplane", result.output)) == (0, [])


@pytest.mark.slow
def test_a_registered_model_loads_without_pickle_and_takes_any_number(project):
    result = call("register", "at-0", "--checkpoint", "best", "--name", "robust")
    assert result.exit_code == 0, result.output
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{project / 'mlflow.db'}")
    client = mlflow.MlflowClient()
    version = client.get_model_version("robust", "1")
    assert version.tags["item"] == "at-0"
    assert version.tags["test/natural"] == "0.5000"
    loaded = mlflow.pytorch.load_model("models:/robust/1")
    x = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), models.load_model(project / "artifacts/train/at-0/best")(x))
    folder = mlflow.artifacts.download_artifacts("models:/robust/1")
    kept = [path.name for path in Path(folder).rglob("*") if path.is_file()]
    assert not [name for name in kept if name.endswith((".pth", ".pkl"))]
    info = mlflow.models.get_model_info("models:/robust/1")
    assert info.signature is not None


def test_registering_what_is_not_there(project):
    result = call("register", "sglr-7")
    assert result.exit_code == 1
    assert "there is no model in artifacts/train/sglr-7; `sglr status`" in result.output
    (project / "artifacts/train/at-0/last/model.safetensors").unlink()
    result = call("register", "at-0", "--checkpoint", "last")
    assert "there is no model in artifacts/train/at-0/last" in result.output
    for path in ("artifacts/train/at-0/best", "/elsewhere/artifacts/train/at-0", "at-0/best"):
        result = call("register", path)
        assert (result.exit_code, f"{path} is not a training folder of this project" in result.output) == (1, True)


def test_the_checkpoint_registered_is_the_best_there_is(project, monkeypatch):
    """Without validation split that is the last; a path to the training folder says the same item."""
    asked = []
    monkeypatch.setattr(registering, "_register", lambda *found: asked.append(found[3:]) or "done")
    at, no_best = project / "artifacts/train/at-0", project / "artifacts/train/sglr-1"
    shutil.copytree(at / "last", no_best / "last")
    (no_best / "best").mkdir()
    for item in ("at-0", "artifacts/train/at-0/", "sglr-1", str(no_best)):
        assert call("register", item).exit_code == 0
    best, last = Path("artifacts/train/at-0/best"), Path("artifacts/train/sglr-1/last")
    assert asked == 2 * [("at-0", best, "digits-at")] + 2 * [("sglr-1", last, "digits-sglr")]


def test_reading_an_image_for_a_model_of_other_channels(project):
    with pytest.raises(files.FileError, match="2 channels"):
        image_files.read_image(image(project / "a.png"), (2, 8, 8))
