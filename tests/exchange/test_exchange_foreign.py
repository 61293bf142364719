"""Weights from elsewhere: which files are read, under which names, and what is refused without being run."""

import argparse
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sglr import exchange, models
from sglr.config import ConfigError
from sglr.exchange.foreign_file import read_tensors
from sglr.files import FileError

WRN = {"num_classes": 4, "shape": (3, 8, 8), "depth": 10, "width": 2}
CNN = {"num_classes": 3, "shape": (1, 8, 8), "channels": [2, 4], "hidden": 6}
X = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def trained(name: str, **kind) -> nn.Module:
    """A model whose batch-norm statistics are not the initial ones."""
    model = models.build(name, **kind, generator_seed=3)
    model(torch.rand(16, *kind["shape"], generator=torch.Generator().manual_seed(1)))
    return model.eval()


def trades_name(name: str) -> str:
    """Ours as the TRADES code has it, for WRN-10: one block per stage."""
    for stage in ("block1", "block2", "block3"):
        name = name.replace(f"{stage}.0.", f"{stage}.layer.0.")
    return name.replace(".shortcut.weight", ".convShortcut.weight").replace("head.", "fc.")


@pytest.fixture(scope="module")
def wrn() -> nn.Module:
    return trained("wrn", **WRN)


@pytest.fixture(scope="module")
def published(wrn) -> dict[str, Tensor]:
    """The state dict of the TRADES code: other names, and a copy of the first stage that it never uses."""
    state = {trades_name(name): value for name, value in wrn.state_dict().items()}
    unused = {name.replace("block1", "sub_block1"): torch.rand(value.shape) if value.dim() else value
              for name, value in state.items() if name.startswith("block1")}  # fmt: skip
    return state | unused


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def test_the_names_of_the_trades_code_are_what_they_are(published):
    """The table against the names written out by hand, for one block of each kind."""
    for name in (
        "conv1.weight", "block1.layer.0.bn1.weight", "block1.layer.0.conv2.weight",
        "block2.layer.0.convShortcut.weight", "sub_block1.layer.0.conv1.weight", "bn1.running_var", "fc.bias",
    ):  # fmt: skip
        assert name in published


def test_an_authors_checkpoint_gives_the_logits_of_the_model(wrn, published, tmp_path):
    """The layout of published training code: a .tar that is a torch file, DataParallel names, optimiser and epoch."""
    optimizer = torch.optim.SGD(wrn.parameters(), 0.1, momentum=0.9).state_dict()
    state = {f"module.{name}": value for name, value in published.items()}
    path = save(tmp_path / "checkpoint_120.tar", {"epoch": 120, "state_dict": state, "optimizer": optimizer})
    foreign = exchange.load_foreign(path, "wrn", **WRN)
    assert not foreign.model.training
    assert torch.equal(foreign.model(X), wrn(X))
    assert foreign.spec == models.spec("wrn", **WRN)
    assert any("prefix module." in note for note in foreign.notes)
    assert any("left out" in note for note in foreign.notes)


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet18"])
def test_the_names_of_the_common_cifar_resnets(name, tmp_path):
    model = trained(name, num_classes=4, shape=(3, 8, 8))
    state = {key.replace("head.", "linear."): value for key, value in model.state_dict().items()}
    foreign = exchange.load_foreign(save(tmp_path / "x.pth", {"net": state}), name, num_classes=4, shape=(3, 8, 8))
    assert torch.equal(foreign.model(X), model(X))


@pytest.mark.parametrize("container", [None, "state_dict", "model", "net", "model_state_dict"])
def test_every_container_is_found(container, wrn, tmp_path):
    state = wrn.state_dict()
    path = save(tmp_path / "x.pt", state if container is None else {container: state, "epoch": 3, "best": 0.5})
    assert torch.equal(exchange.load_foreign(path, "wrn", **WRN).model(X), wrn(X))


def test_safetensors_and_old_torch_files(wrn, tmp_path):
    save_file(wrn.state_dict(), tmp_path / "x.safetensors")
    torch.save(wrn.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for file in ("x.safetensors", "old.pth"):
        assert torch.equal(exchange.load_foreign(tmp_path / file, "wrn", **WRN).model(X), wrn(X))


def test_several_state_dicts_are_asked_about_not_guessed_at(wrn, tmp_path):
    other = trained("wrn", **WRN | {"num_classes": 5}).state_dict()
    path = save(tmp_path / "x.pt", {"model": wrn.state_dict(), "state_dict": other, "ema": other})
    with pytest.raises(FileError, match=r"several state dicts \(state_dict, model, ema\)"):
        exchange.load_foreign(path, "wrn", **WRN)
    assert torch.equal(exchange.load_foreign(path, "wrn", key="model", **WRN).model(X), wrn(X))
    with pytest.raises(FileError, match="no state dict under 'optimizer'; it holds: model, state_dict, ema"):
        exchange.load_foreign(path, "wrn", key="optimizer", **WRN)
    averaged = {"state_dict": wrn.state_dict(), "state_dict_ema": wrn.state_dict(), "scale": {"s": torch.ones(1)}}
    with pytest.raises(FileError, match=r"several state dicts \(state_dict, state_dict_ema\): choose one with --key"):
        exchange.load_foreign(save(tmp_path / "averaged.pt", averaged), "wrn", **WRN)
    only = save(tmp_path / "y.pt", {"last": other, "epoch": 1})
    with pytest.raises(FileError, match="Weights may be under last"):
        exchange.load_foreign(only, "wrn", **WRN)


def test_a_prefix_that_one_key_lacks_is_left(wrn, tmp_path):
    state = {f"module.{name}": value for name, value in wrn.state_dict().items()}
    state["head.bias"] = state.pop("module.head.bias")
    with pytest.raises(FileError, match=r"missing: .*unexpected: module\.") as error:
        exchange.load_foreign(save(tmp_path / "x.pt", state), "wrn", **WRN)
    assert "head.bias" not in str(error.value).split("unexpected")[0]


def test_the_counter_of_an_averaged_model_is_set_aside(wrn, tmp_path):
    averaged = torch.optim.swa_utils.AveragedModel(wrn)
    assert "n_averaged" in averaged.state_dict()
    path = save(tmp_path / "x.pt", averaged.state_dict())
    assert torch.equal(exchange.load_foreign(path, "wrn", **WRN).model(X), wrn(X))


def test_batch_counters_may_be_absent(wrn, published, tmp_path):
    state = {name: value for name, value in published.items() if not name.endswith("num_batches_tracked")}
    assert len(state) < len(published)
    assert torch.equal(exchange.load_foreign(save(tmp_path / "x.pt", state), "wrn", **WRN).model(X), wrn(X))


def test_half_precision_is_widened_exactly_and_said(wrn, tmp_path):
    state = {name: value.half() if value.is_floating_point() else value for name, value in wrn.state_dict().items()}
    foreign = exchange.load_foreign(save(tmp_path / "x.pt", state), "wrn", **WRN)
    assert any("widened from torch.float16" in note for note in foreign.notes)
    assert torch.equal(foreign.model.head.weight, state["head.weight"].float())
    # Counters too, as some make it; they are not used.
    whole = {name: value.half() for name, value in wrn.state_dict().items()}
    again = exchange.load_foreign(save(tmp_path / "y.pt", whole), "wrn", **WRN)
    assert again.notes == foreign.notes
    assert torch.equal(again.model(X), foreign.model(X))
    double = save(tmp_path / "z.pt", {name: value.double() for name, value in wrn.state_dict().items()})
    with pytest.raises(FileError, match=r"of another type: .* is float64, must be float32, float16 or bfloat16"):
        exchange.load_foreign(double, "wrn", **WRN)


def test_normalisation_is_given_or_read_from_the_file(wrn, tmp_path):
    values = {"mean": [0.5, 0.25, 0.125], "std": [0.5, 0.25, 0.75]}
    shifted = (X - torch.tensor(values["mean"]).view(3, 1, 1)) / torch.tensor(values["std"]).view(3, 1, 1)
    bare = save(tmp_path / "bare.pt", wrn.state_dict())
    around = {f"model.{name}": value for name, value in wrn.state_dict().items()}
    around |= {f"normalize.{name}": torch.tensor(value).view(3, 1, 1) for name, value in values.items()}
    inside = wrn.state_dict() | {"mu": torch.tensor(values["mean"]), "sigma": torch.tensor(values["std"])}
    for path, given in (
        (bare, values),
        (save(tmp_path / "around.pt", around), None),
        (save(tmp_path / "inside.pt", inside), values),
    ):
        foreign = exchange.load_foreign(path, "wrn", normalization=given, **WRN)
        assert torch.equal(foreign.model(X), wrn(shifted))
        assert foreign.spec["options"]["normalization"] == values
    with pytest.raises(ConfigError, match="is not the one given"):
        exchange.load_foreign(tmp_path / "inside.pt", "wrn", normalization=values | {"mean": [0.5, 0.5, 0.5]}, **WRN)


CHANGES: dict[str, tuple[Callable[[dict], object], str]] = {
    "missing": (
        lambda s: s.pop("fc.bias"),
        r"\(depth=10, width=2, activation=relu; to change with --option\), read as the names of the TRADES code: 50 of"
        r" its 51 names are there; missing: fc\.bias\.",
    ),
    "unexpected": (lambda s: s.update(extra=torch.ones(1)), r"unexpected: extra\."),
    "shape": (lambda s: s.update({"fc.weight": torch.ones(4, 9)}), r"fc\.weight is \[4, 9\], must be \[4, 128\]\."),
    "type": (
        lambda s: s.update({"fc.bias": torch.ones(4, dtype=torch.float64)}),
        "float64, must be float32, float16 or",
    ),
    "not finite": (lambda s: s.update({"fc.bias": torch.full((4,), torch.nan)}), r"not finite: fc\.bias\."),
    "half of the unused": (lambda s: s.pop("sub_block1.layer.0.conv1.weight"), "missing: sub_block1.layer.0.conv1"),
    "huge on paper": (lambda s: s.update({"fc.bias": torch.ones(1).expand(10**9)}), r"fc\.bias is \[1000000000\]"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_weights_that_do_not_fit_are_named(case, published, tmp_path):
    change, message = CHANGES[case]
    state = dict(published)
    change(state)
    with pytest.raises(FileError, match=message):
        exchange.load_foreign(save(tmp_path / "x.pt", state), "wrn", **WRN)


def test_another_number_of_classes_does_not_fit(wrn, tmp_path):
    path = save(tmp_path / "x.pt", wrn.state_dict())
    with pytest.raises(FileError, match=r"wrn with 10 classes .*head\.weight is \[4, 128\], must be \[10, 128\]"):
        exchange.load_foreign(path, "wrn", **WRN | {"num_classes": 10})


def test_an_unknown_architecture_and_its_options(wrn, tmp_path):
    path = save(tmp_path / "x.pt", wrn.state_dict())
    with pytest.raises(ConfigError, match=r"unknown model 'wrm'.*Did you mean 'wrn'"):
        exchange.load_foreign(path, "wrm", num_classes=4, shape=(3, 8, 8))
    with pytest.raises(ConfigError, match=r"model 'wrn': deep: unknown key\. Did you mean 'depth'"):
        exchange.load_foreign(path, "wrn", num_classes=4, shape=(3, 8, 8), deep=3)


class Malicious:
    """Unpickled carelessly, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["zip", "old", "pickle"])
def test_a_file_with_code_in_it_is_refused_and_not_run(form, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker, path = tmp_path / "ran", tmp_path / "x.tar"
    content = {"state_dict": {"weight": torch.ones(2)}, "args": Malicious(marker)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(FileError, match=r"is refused: it holds .* Nothing was executed"):
        exchange.load_foreign(path, "small_cnn", **CNN)
    assert not marker.exists()
    if form != "pickle":
        torch.load(path, weights_only=False)
        assert marker.exists()  # it would have


def test_a_whole_pickled_model_is_refused_by_name(tmp_path):
    with pytest.raises(FileError, match=r"the object torch\.nn\.modules\.linear\.Linear"):
        read_tensors(save(tmp_path / "x.pt", nn.Linear(2, 2)))


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_numbers_of_numpy_beside_the_weights_are_passed_over(core, wrn, tmp_path):
    """As NumPy 1 and 2 name them, and with what else training code keeps."""
    path = tmp_path / "x.pt"
    beside = {
        "best_acc": np.float64(0.53), "robust": np.float32(0.5), "epoch": np.int64(3), "done": np.bool_(True),
        "history": np.arange(5.0), "random": np.random.MT19937(0).state, "names": np.array(["a", None], dtype=object),
        "args": argparse.Namespace(lr=0.1, eps=np.float64(8 / 255), model="wrn"),
    }  # fmt: skip
    torch.save({"net": wrn.state_dict(), **beside}, path, _use_new_zipfile_serialization=False)
    written = re.sub(rb"numpy\.(_core|core)\.", f"{core}.".encode(), path.read_bytes())
    assert f"c{core}.multiarray\nscalar".encode() in written
    path.write_bytes(written)
    assert torch.equal(exchange.load_foreign(path, "wrn", **WRN).model(X), wrn(X))


def test_numbers_of_numpy_in_a_new_file_of_torch(wrn, tmp_path):
    content = {"model": wrn.state_dict(), "best_acc": np.float64(0.5), "random": np.random.MT19937(0).state}
    path = save(tmp_path / "x.pt", content)
    assert torch.equal(exchange.load_foreign(path, "wrn", **WRN).model(X), wrn(X))


class Printing:
    """Prints while it is unpickled."""

    def __reduce__(self):
        return print, ("it ran",)


def test_what_is_allowed_elsewhere_is_not_allowed_here(wrn, tmp_path, capsys):
    """An allow-list of the process does not reach the file, and is as it was afterwards."""
    path = save(tmp_path / "x.pt", {"net": wrn.state_dict(), "best": Printing(), "acc": np.float64(0.5)})
    with torch.serialization.safe_globals([print, np.dtype]):
        torch.load(save(tmp_path / "y.pt", [Printing()]), weights_only=True)
        assert capsys.readouterr().out == "it ran\n"  # it would have
        with pytest.raises(FileError, match=r"the object (builtins\.)?print, and reading that could run code"):
            exchange.load_foreign(path, "wrn", **WRN)
        assert set(torch.serialization.get_safe_globals()) >= {print, np.dtype}
        assert not any(isinstance(allowed, tuple) for allowed in torch.serialization.get_safe_globals())
    assert capsys.readouterr().out == ""


def test_what_is_no_file_of_weights_is_refused(wrn, tmp_path):
    whole = save(tmp_path / "whole.pt", wrn.state_dict()).read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "half.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    save(tmp_path / "list.pt", [torch.ones(1)])
    save(tmp_path / "nothing.pt", {"epoch": 3})
    (tmp_path / "pointer.pt").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    (tmp_path / "page.pt").write_bytes(b"\n<!DOCTYPE html><html>Sign in</html>")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "program.pt")
    for name, message in {
        "absent.pt": "No such file", "half.pt": "damaged", "empty.pt": "damaged", "half.safetensors": "damaged",
        "pointer.pt": "is a pointer of git-lfs", "page.pt": "is a web page", "program.pt": "is a TorchScript program",
        "list.pt": "holds a list", "nothing.pt": "it holds: epoch", ".": "not a file of weights",
    }.items():  # fmt: skip
        with pytest.raises(FileError, match=message):
            read_tensors(tmp_path / name)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize("tensor", [torch.eye(2).to_sparse(), torch.ones(2, device="meta")], ids=["sparse", "meta"])
def test_tensors_without_their_values_one_by_one_are_refused(tensor, wrn, tmp_path):
    path = save(tmp_path / "x.pt", wrn.state_dict() | {"head.bias": tensor})
    with pytest.raises(FileError, match=r"x\.pt is refused: head\.bias is a sparse tensor, or one on the meta device"):
        exchange.load_foreign(path, "wrn", **WRN)


def test_an_archive_that_unfolds_to_more_than_its_size_is_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(10**7))
    assert (tmp_path / "bomb.pt").stat().st_size < 10**5
    with pytest.raises(FileError, match="expands to more than its size"):
        read_tensors(tmp_path / "bomb.pt")
    monkeypatch.setattr("sglr.exchange.foreign_file.MAX_BYTES", 100)
    with pytest.raises(FileError, match="files of weights of up to 100 are read"):
        read_tensors(save(tmp_path / "large.pt", {"a": torch.ones(100)}))
