"""Peak memory on data ten times the size of CIFAR-10: 500,000 training and 100,000 test images, 1.8 GB.

Measured is anonymous memory, in a process of its own: what is mapped from files the system takes back when it is short.
"""

import json
import re
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

TESTS = Path(__file__).parent
TRAIN, TEST = 500_000, 100_000
SHAPE = (3, 32, 32)
MB = 10**6
PIECE = 10_000


def write_source(path: Path) -> None:
    """An .npz as np.savez writes it, made piece by piece."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for part, n in (("train", TRAIN), ("test", TEST)):
            with archive.open(f"x_{part}.npy", "w", force_zip64=True) as member:
                header = {"descr": "|u1", "fortran_order": False, "shape": (n, *SHAPE)}
                np.lib.format.write_array_header_1_0(member, header)
                for _ in range(n // PIECE):
                    member.write(rng.integers(0, 256, (PIECE, *SHAPE), dtype=np.uint8).data)
            with archive.open(f"y_{part}.npy", "w") as member:
                np.lib.format.write_array(member, np.arange(n) % 10)


def anonymous() -> int:
    """Bytes of anonymous memory that are resident now."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def measured(work: Callable[[], object]) -> int:
    """Bytes by which anonymous memory grew at most while ``work`` ran, looked at every other millisecond."""
    before, highest, ended = anonymous(), 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not ended.is_set():
            highest = max(highest, anonymous())
            time.sleep(0.002)

    watching = threading.Thread(target=watch)
    watching.start()
    work()
    ended.set()
    watching.join()
    return highest - before


def child(what: str, folder: str) -> None:
    """In a process of its own: do one thing and print what it took."""
    sys.path.insert(0, str(TESTS.parent))
    import torch

    from sglr import config, data, evaluation, models
    from sglr.config.reader import validate

    torch.set_num_threads(1)
    params = config.parse((TESTS.parent / "params.yaml").read_text())
    params["data"] |= {"source": {"name": "npz", "path": f"{folder}/own.npz"}, "train_size": None}
    params["evaluate"] |= {"attacks": {"fgsm": "fgsm"}, "sweep": None, "sanity": None, "n_examples": None}
    settings, prepared = validate(params), Path(folder) / "data"
    if what == "prepare":
        took = measured(lambda: data.prepare(settings.data, prepared))
    else:
        kind = {"num_classes": 10, "shape": SHAPE, "channels": [2, 2], "hidden": 4}
        trained = Path(folder) / "trained"
        (trained / "best").mkdir(parents=True, exist_ok=True)
        model = models.build("small_cnn", **kind, generator_seed=0)
        models.save(model, trained / "last", models.spec("small_cnn", **kind))

        def evaluate() -> None:
            opened = data.open_folder(prepared)
            found = evaluation.evaluate(settings, opened, trained, device=torch.device("cpu"))
            assert found.metrics()["n_examples"] == {"natural": TEST, "fgsm": TEST}

        took = measured(evaluate)
    print(json.dumps(took))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kind of memory is told by Linux only")
def test_peak_memory_on_ten_times_cifar10(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_source(tmp_path / "own.npz")
    took = {}
    for what in ("prepare", "evaluate"):
        code = f"import sys; sys.path.insert(0, {str(TESTS)!r}); import test_memory; test_memory.child({what!r}, '.')"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        took[what] = int(done.stdout)
    images = int(np.prod(SHAPE)) * TEST
    with capsys.disabled():
        print("\n  anonymous memory at the peak:", {what: f"{n / MB:.0f} MB" for what, n in took.items()}, flush=True)
    # Pieces and labels. Evaluated, the test images are resident as bytes; what comes on top is less than they would
    # take as float32, and mostly does not grow with them.
    assert took["prepare"] < 100 * MB
    assert took["evaluate"] < images + 900 * MB < 4 * images
    meta = json.loads((tmp_path / "data/meta.json").read_text())
    assert meta["sizes"]["train"] + meta["sizes"]["validation"] == TRAIN
