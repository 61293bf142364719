"""Networks inside what published code puts around them: read out of it, they compute what the whole did."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sglr import exchange, models
from sglr.config import ConfigError
from sglr.exchange.foreign_wrappers import unwrapped
from sglr.files import FileError

WRN = {"num_classes": 4, "shape": (3, 8, 8), "depth": 10, "width": 2}
X = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)


class Normalization(nn.Module):
    """As in published code: buffers or parameters of some name, or plain attributes, which no file has."""

    def __init__(self, mean: str = "mean", std: str = "std", kind: str = "buffer") -> None:
        super().__init__()
        self.names = (mean, std)
        for name, values in zip(self.names, (MEAN, STD), strict=True):
            value = torch.tensor(values).view(3, 1, 1)
            if kind == "buffer":
                self.register_buffer(name, value)
            else:
                setattr(self, name, nn.Parameter(value) if kind == "parameter" else value)

    def forward(self, x: Tensor) -> Tensor:
        mean, std = (getattr(self, name) for name in self.names)
        return (x - mean) / std


class Around(nn.Module):
    """A module with the normalisation and the network under names of its own."""

    def __init__(self, network: nn.Module, normalization: nn.Module, network_name: str, normalization_name: str):
        super().__init__()
        self.names = (normalization_name, network_name)
        self.add_module(normalization_name, normalization)
        self.add_module(network_name, network)

    def forward(self, x: Tensor) -> Tensor:
        for name in self.names:
            x = getattr(self, name)(x)
        return x


class Attacker(nn.Module):
    """Of the robustness library, without its attack."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.normalize = Normalization("new_mean", "new_std")
        self.model = network


class AttackerModel(Around):
    """Of the robustness library: normalizer, model, and an attacker that refers to the model."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network, Normalization("new_mean", "new_std"), "model", "normalizer")
        self.attacker = Attacker(network)


@pytest.fixture(scope="module")
def wrn() -> nn.Module:
    model = models.build("wrn", **WRN, generator_seed=3)
    model(torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    return model.eval()


class Published(nn.Module):
    """The network as published code names it; ``state_dict`` is all that a file has of it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.conv1, self.bn1, self.fc = network.conv1, network.bn1, network.head
        for stage in ("block1", "block2", "block3"):
            block = nn.Module()
            block.layer = getattr(network, stage)
            self.add_module(stage, block)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3.layer(self.block2.layer(self.block1.layer(self.conv1(x))))
        return self.fc(torch.relu(self.bn1(x)).mean((2, 3)))

    def state_dict(self, *arguments, **keywords):
        state = super().state_dict(*arguments, **keywords)
        for name in list(state):
            state[name.replace(".shortcut.weight", ".convShortcut.weight")] = state.pop(name)
        return state


WRAPPERS = {
    "nothing": (lambda net: net, ""),
    "a sequence of the network alone": (lambda net: nn.Sequential(net), "0."),
    "statistics in a sequence": (lambda net: nn.Sequential(Normalization(), net), "1."),
    "trained statistics in a sequence": (lambda net: nn.Sequential(Normalization(kind="parameter"), net), "1."),
    "normalizer": (lambda net: Around(net, Normalization(), "model", "normalizer"), "model."),
    "normalizer, new_mean": (lambda net: Around(net, Normalization("new_mean", "new_std"), "f", "normalizer"), "f."),
    "norm, mu": (lambda net: Around(net, Normalization("mu", "sigma"), "backbone", "norm"), "backbone."),
    "nested": (lambda net: nn.Sequential(nn.Sequential(Normalization(), nn.Sequential(net))), "0.1.0."),
    "the robustness library": (AttackerModel, "model."),
}


def save(path: Path, network: nn.Module, *, parallel: bool = True, **beside: object) -> Path:
    whole = nn.DataParallel(network) if parallel else network
    torch.save({"epoch": 150, "model": whole.state_dict(), "schedule": None, **beside}, path)
    return path


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("case", WRAPPERS)
def test_a_wrapped_network_computes_what_the_whole_did(case, parallel, wrn, tmp_path):
    wrap, prefix = WRAPPERS[case]
    whole = wrap(Published(wrn)).eval()
    expected = whole(X)
    foreign = exchange.load_foreign(save(tmp_path / "x.pt", whole, parallel=parallel), "wrn", **WRN)
    # The pool is another sum of the same numbers.
    torch.testing.assert_close(foreign.model(X), expected, rtol=0, atol=1e-6)
    normalized = torch.equal(expected, Published(wrn)(X))
    x = X if normalized else Normalization()(X)
    assert torch.equal(foreign.model(X), wrn(x))
    prefix = f"module.{prefix}" if parallel else prefix
    assert ([note for note in foreign.notes if "prefix" in note] == [f"prefix {prefix} taken off every key"]) == bool(
        prefix
    )


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module.model.", "backbone.", "net.", "a.b.c.0.d."])
def test_any_common_prefix_is_taken_off_and_said(prefix, wrn, tmp_path):
    torch.save({prefix + name: value for name, value in wrn.state_dict().items()}, tmp_path / "x.pt")
    foreign = exchange.load_foreign(tmp_path / "x.pt", "wrn", **WRN)
    assert torch.equal(foreign.model(X), wrn(X))
    assert f"prefix {prefix} taken off every key" in foreign.notes


def test_a_networks_own_names_are_no_prefix():
    """A linear classifier is all head; a network may have a mean and a std of its own."""
    head = {"head.weight": torch.ones(2, 3), "head.bias": torch.ones(2)}
    assert unwrapped(Path("x.pt"), head, head.keys(), 3).state == head
    own = head | {"mean": torch.ones(3), "std": torch.ones(3)}
    found = unwrapped(Path("x.pt"), own, own.keys(), 3)
    assert (found.state, found.normalization) == (own, None)


@pytest.mark.parametrize("prefix", ["a." * 10**6, "9" * 10**4 + "."])
def test_a_name_of_a_million_modules_ends_soon(prefix, tmp_path):
    torch.save({f"{prefix}weight": torch.ones(1)}, tmp_path / "x.pt")
    with pytest.raises(FileError, match=r"without the prefix ((a\.){20}|9+\.): 0 of its"):
        exchange.load_foreign(tmp_path / "x.pt", "wrn", **WRN)


def test_a_normalisation_whose_values_were_not_saved_must_be_given(wrn, tmp_path):
    whole = nn.Sequential(Normalization(kind="attribute"), Published(wrn)).eval()
    path = save(tmp_path / "x.pt", whole)
    with pytest.raises(FileError, match=r"all names begin with module\.1\., so that another module .*--normalization"):
        exchange.load_foreign(path, "wrn", **WRN)
    given = {"mean": list(MEAN), "std": list(STD)}
    foreign = exchange.load_foreign(path, "wrn", normalization=given, **WRN)
    assert torch.equal(foreign.model(X), wrn(Normalization()(X)))
    assert any("stood before the network" in note for note in foreign.notes)
    none = {"mean": [0.0] * 3, "std": [1.0] * 3}
    assert torch.equal(exchange.load_foreign(path, "wrn", normalization=none, **WRN).model(X), wrn(X))
    # What does not fit is said first: another architecture is not mended by a normalisation.
    with pytest.raises(FileError, match="does not fit wrn"):
        exchange.load_foreign(path, "wrn", **WRN | {"depth": 16})


def test_a_module_that_the_statistics_do_not_account_for_is_refused(wrn, tmp_path):
    path = save(tmp_path / "x.pt", nn.Sequential(Normalization(), nn.Upsample(scale_factor=2), Published(wrn)))
    for given in (None, {"mean": list(MEAN), "std": list(STD)}):
        with pytest.raises(FileError, match=r"begin with module\.2\., so that another .* beside the normalisation"):
            exchange.load_foreign(path, "wrn", normalization=given, **WRN)
    # Statistics of the sequence itself are none of its modules.
    values = {"mean": torch.ones(3), "std": torch.ones(3), "1.conv1.weight": torch.ones(1)}
    assert unwrapped(path, values, {"conv1.weight"}, 3).hidden


def test_a_normalisation_that_contradicts_the_one_in_a_sequence(wrn, tmp_path):
    path = save(tmp_path / "x.pt", nn.Sequential(Normalization(), Published(wrn)))
    with pytest.raises(ConfigError, match="is not the one given"):
        exchange.load_foreign(path, "wrn", normalization={"mean": [0.5] * 3, "std": [0.25] * 3}, **WRN)


def test_statistics_of_another_number_of_channels_are_left_over(wrn, tmp_path):
    state = {f"1.{name}": value for name, value in wrn.state_dict().items()}
    torch.save(state | {"0.mean": torch.ones(1), "0.std": torch.ones(1)}, tmp_path / "x.pt")
    with pytest.raises(FileError, match=r"unexpected: 0\.mean, 0\.std"):
        exchange.load_foreign(tmp_path / "x.pt", "wrn", **WRN)


@pytest.mark.parametrize("part", ["model.conv1.weight", "model.fc.bias", "normalize.new_std"])
def test_an_attackers_copy_that_is_another_network_is_refused(part, wrn, tmp_path):
    state = AttackerModel(Published(wrn)).state_dict()
    state = {name: value.clone() for name, value in state.items()}
    state[f"attacker.{part}"] += 1e-3
    torch.save({"state_dict": state}, tmp_path / "x.pt")
    with pytest.raises(FileError, match=rf"two networks: attacker\.{re.escape(part)} is not equal to"):
        exchange.load_foreign(tmp_path / "x.pt", "wrn", **WRN)


def test_the_attackers_copy_is_counted(wrn, tmp_path):
    foreign = exchange.load_foreign(save(tmp_path / "x.pt", AttackerModel(Published(wrn))), "wrn", **WRN)
    twice = len(wrn.state_dict()) + 2
    assert f"{twice} tensors of a second copy of the network were left out: they are equal" in foreign.notes


def test_what_does_not_fit_is_said_in_numbers_first_names_and_what_they_have_in_common(wrn, tmp_path):
    state = Published(wrn).state_dict()
    needed = sum(not name.endswith("num_batches_tracked") for name in state)
    extra = {f"projector.{layer}.weight": torch.ones(2) for layer in range(6)}
    torch.save(state | extra, tmp_path / "more.pt")
    with pytest.raises(FileError) as error:
        exchange.load_foreign(tmp_path / "more.pt", "wrn", **WRN)
    shown = ", ".join(list(extra)[:4])
    assert str(error.value).endswith(
        "read as the names of the TRADES code without its unused stage:"
        f" {needed} of its {needed} names are there; unexpected: {shown} and 2 more (all begin with projector.)."
    )
    less = {f"module.{name}": value for name, value in state.items() if not name.startswith("block3.layer.0.bn")}
    torch.save(less, tmp_path / "less.pt")
    with pytest.raises(FileError) as error:
        exchange.load_foreign(tmp_path / "less.pt", "wrn", **WRN)
    assert f"without the prefix module.: {needed - 8} of its {needed} names are there; missing: " in str(error.value)
    assert "and 4 more (all begin with block3.layer.0.)." in str(error.value)
    assert len(str(error.value)) < 600


def test_what_equal_names_leave_open_is_noted(wrn, tmp_path):
    """The same file would come from a network with SiLU; here it computes with ReLU, and says so."""
    for network in (wrn, Published(wrn)):
        foreign = exchange.load_foreign(save(tmp_path / "x.pt", network), "wrn", **WRN)
        (note,) = [note for note in foreign.notes if "activation" in note]
        assert "SiLU" in note
        assert "compare the natural accuracy" in note
    model = models.build("preact_resnet18", num_classes=4, shape=(3, 8, 8), generator_seed=0)
    state = {name.replace("head.", "linear."): value for name, value in model.state_dict().items()}
    torch.save(state, tmp_path / "preact.pt")
    foreign = exchange.load_foreign(tmp_path / "preact.pt", "preact_resnet18", num_classes=4, shape=(3, 8, 8))
    assert [("SiLU" in note, "shortcut" in note) for note in foreign.notes[-2:]] == [(True, False), (False, True)]


def test_a_stored_normalisation_that_cannot_be_used_is_the_files(wrn, tmp_path):
    state = {"mean": torch.tensor(MEAN), "std": torch.zeros(3)} | wrn.state_dict()
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(FileError, match=r"x\.pt: the normalisation in the file, .*0\.0, 0\.0.* cannot be used: .*std"):
        exchange.load_foreign(tmp_path / "x.pt", "wrn", **WRN)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_normalisation_of_a_file_in_half_precision_may_be_given_exactly(wrn, tmp_path, dtype):
    """And is taken as it is given; one that differs by more is another."""
    state = {"mean": torch.tensor(MEAN), "std": torch.tensor(STD)} | wrn.state_dict()
    torch.save({name: value.to(dtype) for name, value in state.items()}, tmp_path / "x.pt")
    given = {"mean": list(MEAN), "std": list(STD)}
    found = exchange.load_foreign(tmp_path / "x.pt", "wrn", **WRN, normalization=given)
    assert found.spec["options"]["normalization"] == given
    other = {"mean": [0.5, *MEAN[1:]], "std": list(STD)}
    with pytest.raises(ConfigError, match="which is not the one given"):
        exchange.load_foreign(tmp_path / "x.pt", "wrn", **WRN, normalization=other)
