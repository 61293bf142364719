"""Files made to fill the memory or to break a reader: refused with the documented error, before much is allocated."""

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from sglr import config, data, files, image_files, models
from sglr.data.npz import NAMES, read_npz
from sglr.exchange.foreign_file import read_tensors
from sglr.exchange.given_images import read_test
from sglr.exchange.provenance import gather
from sglr.project.items import records
from sglr.project.running import progress
from sglr.tracking import costs, journal
from sglr.tracking.delivery import DeliveryState
from stages.cleaning import prune_snapshots

QUICK = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
MIB = 2**20
# What refusing one of these files may take; unfolded they take half a gigabyte and more.
ALLOWED = 64 * MIB


def peak() -> int:
    """The most memory (bytes) this process has had resident since ``restart``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.fixture
def grown() -> Callable[[], int]:
    """``grown()``: bytes by which the peak of resident memory lies above what was resident when the test began."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("this system does not tell the peak of a part of a process's life")
    before = peak()
    return lambda: peak() - before


def npy_header(shape: tuple[int, ...], dtype: str = "|u1") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape!r}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def write_npz(path: Path, content: bytes, *, zeros: int = 0, names: tuple[str, ...] = ("x_test", "y_test")) -> None:
    """Members of ``content`` and so many zeros, compressed where there are any."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if zeros else zipfile.ZIP_STORED) as archive:
        for name in names:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                member.write(content)
                for _ in range(zeros // MIB):
                    member.write(bytes(MIB))


def write_png(path: Path, width: int, height: int) -> None:
    """A grey image of that size, by its header; of its rows there are few."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(100_000))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


@pytest.fixture(scope="module")
def bomb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bomb") / "bomb.npz"
    write_npz(path, npy_header((2**27,)), zeros=2**27, names=NAMES)
    return path


@pytest.mark.parametrize("read", [files.read_arrays, read_test, partial(read_npz, needed=NAMES)])
def test_an_npz_that_unfolds_to_far_more_than_its_size_is_refused(
    bomb: Path, tmp_path: Path, grown: Callable[[], int], read: Callable
):
    """One that compresses well and is small is read."""
    with pytest.raises(files.FileError, match=r"cannot read .*bomb\.npz: its .* bytes expand to 536,87.*refused"):
        read(bomb)
    assert grown() < ALLOWED
    images, labels = np.zeros((2000, 1, 8, 8), dtype=np.uint8), np.zeros(2000, dtype=np.int64)
    path = tmp_path / "small.npz"
    np.savez_compressed(path, **{name: images if name[0] == "x" else labels for name in NAMES})
    read(path)


@pytest.mark.parametrize("read", [files.read_arrays, read_test])
@pytest.mark.parametrize("claimed", [10**15, 2 * 10**9])
def test_an_array_that_claims_more_than_there_is_is_refused(
    tmp_path: Path, grown: Callable[[], int], claimed: int, read: Callable
):
    write_npz(tmp_path / "lies.npz", npy_header((claimed,)) + bytes(100))
    with pytest.raises(files.FileError, match=rf"x_test claims {claimed:,} bytes, 228 are there; it is refused"):
        read(tmp_path / "lies.npz")
    assert grown() < ALLOWED


@pytest.mark.parametrize("dtype", ["<U0", "|S0", "|V0"])
@pytest.mark.parametrize("claimed", [10**8, 10**30])
def test_items_of_no_bytes_are_counted(tmp_path: Path, grown: Callable[[], int], claimed: int, dtype: str):
    """As texts in a list they would fill the memory."""
    write_npz(tmp_path / "lies.npz", npy_header((claimed,), dtype) + bytes(100), names=("classes",))
    for reader in (files.read_arrays, partial(read_npz, needed=(), optional=("classes",))):
        with pytest.raises(files.FileError, match=rf"lies\.npz: classes claims {claimed:,} bytes"):
            reader(tmp_path / "lies.npz")
    assert grown() < ALLOWED


def test_prepared_arrays_and_their_description_that_lie(tmp_path: Path, grown: Callable[[], int]):
    x, y = np.zeros((40, 1, 2, 2), dtype=np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    settings = config.parse((Path(__file__).parents[1] / "params.yaml").read_text())["data"]
    settings |= {"source": {"name": "npz", "path": str(tmp_path / "own.npz")}, "train_size": None}
    settings |= {"validation_size": 0}
    folder = tmp_path / "data"
    data.prepare(config.sections.Data.model_validate(settings), folder)
    data.open_folder(folder).test()
    whole = (folder / "x_test.npy").read_bytes()
    (folder / "x_test.npy").write_bytes(npy_header((10**15, 1, 2, 2)) + bytes(100))
    with pytest.raises(files.FileError, match=r"x_test\.npy.*run the prepare stage again"):
        data.open_folder(folder)
    assert grown() < ALLOWED
    (folder / "x_test.npy").write_bytes(whole)
    meta = files.read_json(folder / "meta.json")
    for changes in (
        {"arrays": 3}, {"arrays": dict.fromkeys(meta["arrays"])}, {"shape": [1, 2]}, {"shape": None}, {"noise": {}},
        {"num_classes": "2"}, {"classes": ["a"]}, {"format": 99},
    ):  # fmt: skip
        files.write_json(folder / "meta.json", meta | changes)
        with pytest.raises(files.FileError, match=r"meta\.json is not of format \d; run the prepare stage again"):
            data.open_folder(folder)
    for content in ("[]", "3", '{"format": 1}', "[" * 100_000):
        (folder / "meta.json").write_text(content)
        with pytest.raises(files.FileError, match=r"meta\.json"):
            data.open_folder(folder)


@pytest.mark.parametrize("length", [2**60, 2**62 + 3, 10**8])
def test_a_header_of_safetensors_that_claims_more_than_there_is(tmp_path: Path, grown: Callable[[], int], length: int):
    kind = {"num_classes": 3, "shape": (1, 4, 4), "channels": [2, 2], "hidden": 3}
    models.save(models.build("small_cnn", **kind, generator_seed=0), tmp_path, models.spec("small_cnn", **kind))
    (tmp_path / "model.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}" + bytes(100))
    with pytest.raises(files.FileError, match=r"model\.safetensors: it is damaged or not a safetensors file"):
        models.load_model(tmp_path)
    with pytest.raises(files.FileError, match=r"model\.safetensors"):
        read_tensors(tmp_path / "model.safetensors")
    # A tensor larger than the file, in a header that fits.
    header = json.dumps({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(100))
    for read in (models.load_model, lambda folder: read_tensors(folder / "model.safetensors")):
        with pytest.raises(files.FileError, match=r"model\.safetensors"):
            read(tmp_path)
    assert grown() < ALLOWED


def test_weights_in_a_file_of_terabytes_without_content_are_not_read(tmp_path: Path, grown: Callable[[], int]):
    """A file with holes takes no room on the disk and all there is in memory."""
    kind = {"num_classes": 3, "shape": (1, 4, 4), "channels": [2, 2], "hidden": 3}
    models.save(models.build("small_cnn", **kind, generator_seed=0), tmp_path, models.spec("small_cnn", **kind))
    size = 2**42
    header = json.dumps({"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    for name in ("model.safetensors", "foreign.pt"):
        with (tmp_path / name).open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + size)
    with pytest.raises(files.FileError, match=r"model\.safetensors.*(does not fit|cannot)|cannot read"):
        models.load_model(tmp_path)
    with pytest.raises(files.FileError, match="of up to 8,589,934,592 are read"):
        read_tensors(tmp_path / "foreign.pt")
    assert grown() < ALLOWED


def test_a_torch_file_whose_tensor_claims_more_than_there_is(tmp_path: Path, grown: Callable[[], int]):
    for zipped in (True, False):
        path = tmp_path / "lies.pt"
        torch.save({"weight": torch.zeros(7777)}, path, _use_new_zipfile_serialization=zipped)
        number, lie = (7777).to_bytes(2, "little"), (2**40).to_bytes(6, "little")
        content = path.read_bytes()
        # 7777 as a pickle writes it, BININT2, becomes 2**40 as LONG1 of six bytes.
        assert b"M" + number in content
        if zipped:
            with zipfile.ZipFile(path) as old:
                members = {name: old.read(name) for name in old.namelist()}
            with zipfile.ZipFile(path, "w") as new:
                for name, member in members.items():
                    new.writestr(name, member.replace(b"M" + number, b"\x8a\x06" + lie))
        else:
            path.write_bytes(content.replace(b"M" + number, b"\x8a\x06" + lie))
        with pytest.raises(files.FileError, match=r"lies\.pt"):
            read_tensors(path)
    assert grown() < ALLOWED


class Claiming:
    """As a number, or an array, of NumPy is pickled whose type claims 2 GB."""

    def __init__(self, number: object) -> None:
        self.maker = number.__reduce__()[0]

    def __reduce__(self) -> tuple[Callable, tuple]:
        wide = np.dtype(f"V{2**31 - 1}")
        return self.maker, (wide,) if self.maker.__name__ == "scalar" else (np.ndarray, (2**31,), b"b")


@pytest.mark.parametrize("zipped", [True, False])
def test_numbers_of_numpy_beside_weights_that_claim_more_than_there_is(
    tmp_path: Path, grown: Callable[[], int], zipped: bool
):
    beside = [Claiming(number) for number in (np.float64(1), np.zeros(1)) for _ in range(3)]
    content = {"state_dict": {"weight": torch.ones(2)}, "beside": beside}
    torch.save(content, tmp_path / "lies.pt", _use_new_zipfile_serialization=zipped)
    assert torch.equal(read_tensors(tmp_path / "lies.pt")["weight"], torch.ones(2))
    assert grown() < ALLOWED


@pytest.mark.parametrize("content", ["[" * 200_000, '{"a":' * 200_000, "1" * 5000, "{", "\x00", "nonsense", ""])
def test_json_that_cannot_be_read(tmp_path: Path, content: str):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(files.FileError, match=r"a\.json"):
        files.read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    "state", ["[1]", '{"items": 3}', '{"items": [[1]]}', '{"tensor": "000009"}', "[" * 5000, "3", "{"]
)
def test_a_state_with_a_right_checksum_that_is_none(tmp_path: Path, state: str):

    payload = save({"000000": torch.zeros(1)}, metadata={"state": state})
    for content in (payload, b"", b"\x00" * 7, payload[:20]):
        (tmp_path / "a.state").write_bytes(hashlib.sha256(content).digest() + content)
        with pytest.raises(files.FileError, match=r"a\.state is damaged"):
            files.load_state(tmp_path / "a.state")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(9)
)
MERGED = "a: &a {x: 1}\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} {{<<: [{', '.join([f'*{chr(97 + n)}'] * 4)}]}}\n" for n in range(14)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOMB, "expanded it holds more than 100,000 values"),
        (MERGED, "expanded it holds more than 100,000 values"),
        ("a: &x [*x]\n", "line 1: an anchor contains itself"),
        ("a: &x {b: *x}\n", "line 1: an anchor contains itself"),
        ("a: " + "[" * 5000, "not valid YAML"),
        ("a: " + "{b: " * 5000, "not valid YAML"),
        ("a: " + "9" * 5000, "not valid YAML"),
    ],
    ids=["lists", "merges", "itself", "itself in a mapping", "deep lists", "deep mappings", "a long number"],
)
def test_params_that_would_fill_the_memory(tmp_path: Path, grown: Callable[[], int], text: str, expected: str):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(config.ConfigError, match=expected):
        config.load(tmp_path / "params.yaml")
    assert grown() < ALLOWED


@pytest.mark.slow
def test_a_lock_file_that_would_fill_the_memory(tmp_path: Path, grown: Callable[[], int]):
    """Its values would be compared, one by one, with those of params.yaml."""
    lock = f"{BOMB}stages:\n  train@at-0:\n    params:\n      params.yaml: {{threat: *j}}\n"
    (tmp_path / "dvc.lock").write_text(lock)
    with pytest.raises(files.FileError, match=r"dvc\.lock is damaged"):
        records(tmp_path)
    assert grown() < ALLOWED
    (tmp_path / "dvc.lock").write_text(f"a: &a 1\nb: [*a, {'[' * 3000}{']' * 3000}]\n")
    with pytest.raises(files.FileError, match=r"dvc\.lock is damaged"):
        records(tmp_path)
    (tmp_path / "dvc.lock").write_text(lock.replace(BOMB, BOMB.splitlines()[0] + "\n").replace("*j", "[*a, *a]"))
    assert records(tmp_path)["train@at-0"].values == {"threat": [["x"] * 10] * 2}


def test_a_long_value_is_shown_in_part(params: dict):
    params["threat"]["norm"] = "l" * 10_000
    with pytest.raises(config.ConfigError) as caught:
        config.reader.validate(params)
    assert "threat.norm" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("size", [(60_000, 60_000), (2**31 - 1, 2**31 - 1), (9000, 8000)])
def test_an_image_of_too_many_pixels_is_refused(tmp_path: Path, grown: Callable[[], int], size: tuple[int, int]):
    write_png(tmp_path / "bomb.png", *size)
    with pytest.raises(files.FileError, match=r"bomb\.png"):
        image_files.read_image(tmp_path / "bomb.png", (1, 8, 8))
    assert grown() < ALLOWED


def test_an_image_that_is_a_program_is_not_run(tmp_path: Path):
    """Pillow would hand an EPS file to Ghostscript."""
    text = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) (w) file\n%%EOF\n"
    (tmp_path / "a.png").write_text(text)
    with pytest.raises(files.FileError, match=r"cannot read .*a\.png as an image"):
        image_files.read_image(tmp_path / "a.png", (1, 8, 8))


def read(kind: type[Exception], reader: Callable, path: Path):
    """What is read, or None and an error of the documented kind that names the file."""
    try:
        return reader(path)
    except kind as error:
        said = str(error)
    assert path.name in said
    return None


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF", "JPEG", "WEBP", "PPM"])
@QUICK
@given(place=st.floats(0, 1), value=st.integers(0, 255), cut=st.floats(0.1, 1))
def test_images(tmp_path: Path, place: float, value: int, cut: float, kind: str):
    whole = io.BytesIO()
    exif = Image.Exif()
    exif.update({0x010F: "a camera", 0x0112: 6, 0x011A: 72.0})
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(whole, kind, exif=exif)
    content = bytearray(whole.getvalue())
    content[int(place * (len(content) - 1))] = value
    (tmp_path / "a.image").write_bytes(content[: int(cut * len(content))])
    found = read(files.FileError, lambda path: image_files.read_image(path, (3, 8, 8)), tmp_path / "a.image")
    assert found is None or found[0].shape == (1, 3, 8, 8)


@QUICK
@given(content=st.text("abc,\n\"'0.1eE-\r\x00 é", max_size=60))
def test_rows(tmp_path: Path, content: str):
    (tmp_path / "history.csv").write_text("phase,epoch\n" + content)
    rows = read(files.FileError, files.read_rows, tmp_path / "history.csv")
    assert all(set(row) == {"phase", "epoch"} for row in rows or ())


KEYS = st.sampled_from(["t", "kind", "values", "step", "status"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
)
WHOLE = [
    {"t": 1, "kind": "header", "journal": "j", "experiment": "e", "stage": "train", "item": "train@at-0", "tags": {},
     "parent": None},
    {"t": 2, "kind": "open"},
    {"t": 3, "kind": "params", "values": {"train.epochs": "5"}},
    {"t": 4, "kind": "metrics", "step": 1, "values": {"train/loss": 1.0}},
]  # fmt: skip


@QUICK
@given(damaged=st.lists(json_values.map(json.dumps) | st.text(max_size=20), max_size=3), where=st.integers(0, 4))
def test_journals(tmp_path: Path, damaged: list[str], where: int):
    """Damaged lines are skipped, for whoever sends the journal and for `sglr status`."""
    folder = tmp_path / ".sglr/journal/train@at-0-x"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(line) for line in WHOLE]
    lines[where:where] = [line.replace("\n", " ") for line in damaged]
    (folder / "journal.jsonl").write_text("\n".join(lines) + "\n")
    kept = [record for record, _ in journal.read(folder)]
    assert [record for record in kept if record in WHOLE] == WHOLE
    journal.survey(folder, 0)
    progress(tmp_path, "train@at-0", None)


@pytest.mark.parametrize(
    "copy", ["", ".", "..", "/home/anna/thesis.pdf", "../../../thesis.pdf", "artifacts/5/../../a", "artifacts/../a", 3]
)
def test_a_journal_names_no_files_but_its_own(tmp_path: Path, copy: object):
    """The folder of a copy that was sent is removed."""
    record = {"t": 5, "kind": "artifact", "copy": "artifacts/120/history.csv", "source": "/a", "folder": None}
    lines = [*WHOLE, record, record | {"copy": copy}]
    (tmp_path / "journal.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert [found for found, _ in journal.read(tmp_path)] == [*WHOLE, record]


@pytest.mark.parametrize("content", ["[]", "3", "null", '"x"', '{"offset": "x"}', '{"put_off": 3}', '{"offset": -5}'])
def test_notes_of_other_content(tmp_path: Path, content: str):
    """Of the kind that ``json.loads`` reads."""
    (tmp_path / "sent.json").write_text(content)
    assert DeliveryState.read(tmp_path) == DeliveryState(creating=True)
    if content.startswith("{"):
        return
    (tmp_path / ".sglr/records").mkdir(parents=True)
    (tmp_path / ".sglr/records/train@at-0.json").write_text(content)
    with pytest.raises(files.FileError, match=r"train@at-0\.json: it is not the record of a run"):
        costs.read(tmp_path)
    trained = tmp_path / "artifacts/train/at-0"
    kind = {"num_classes": 3, "shape": (1, 4, 4), "channels": [2, 2], "hidden": 3}
    models.save(models.build("small_cnn", **kind, generator_seed=0), trained / "best", models.spec("small_cnn", **kind))
    (trained / "metrics.json").write_text(content)
    with pytest.raises(files.FileError, match=r"metrics\.json: it holds no record"):
        gather(trained)


def test_a_damaged_note_of_a_finished_item_stops_no_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for number, content in enumerate(("{", "[]", "{}", "3", '{"item": 1, "path": 2, "md5": 3}')):
        folder = tmp_path / ".sglr/snapshots/train" / str(number)
        folder.mkdir(parents=True)
        (folder / "finished.json").write_text(content)
    (tmp_path / "dvc.lock").write_text("stages: {}\n")
    prune_snapshots()
    assert len(list((tmp_path / ".sglr/snapshots/train").iterdir())) == 5
