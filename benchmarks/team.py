"""A training step shared by two processes against the same step in one, in turns, parity first."""

import torch
from layout import ROOT, Table, Times, in_turns, require

from sglr import models
from sglr.config import load
from sglr.data import Split
from sglr.training.distributed import ALONE, Team, together
from sglr.training.learner import Learner
from sglr.training.plan import Plan
from sglr.training.step import take

SIZE = 2
SHAPE = (3, 32, 32)
# Without batch norm, which processes on CPUs cannot share; as large as a network that one would share there.
MODEL = {"channels": (32, 64), "hidden": 256, "batch_norm": False}


class Shared:
    """SGLR's step on one batch of CIFAR-sized images, for a team or alone, from the same weights."""

    def __init__(self, team: Team, device: torch.device, batch: int) -> None:
        config = load(ROOT / "params.yaml")
        section = config.train.model_copy(update={"batch_size": batch})
        config = config.model_copy(update={"train": section})
        generator = torch.Generator().manual_seed(0)
        x = torch.randint(0, 256, (batch, *SHAPE), generator=generator, dtype=torch.uint8)
        y = torch.randint(0, 10, (batch,), generator=generator)
        self.split = Split(*(values.to(device) for values in (x, y, y)))
        self.plan = Plan.training(config, config.methods["sglr"], 0)
        model = models.build("small_cnn", num_classes=10, shape=SHAPE, generator_seed=0, **MODEL)
        self.learner = Learner.build(self.plan, model.to(device), self.split.given, 10, team)
        self.index = torch.arange(batch, device=device)

    def step(self) -> torch.Tensor:
        """One step in a refining epoch; the loss."""
        split = self.split
        return take(self.plan, self.learner, split.images(), split.given, self.index, 50, 0)[0]


def work(team: Team, device: torch.device, rounds: int, batch: int) -> Times:
    """In every process of the team: rounds of a step of the first one alone, while the others wait, and one of all."""
    alone, ours = Shared(ALONE, device, batch), Shared(team, device, batch)
    first, second = float(alone.step()), float(ours.step())
    if team.leads:
        print(f"\nParity: losses {first:.6f} in one process, {second:.6f} in {team.size}.")
        require(abs(first - second) <= 1e-4 * abs(first), "shared step")

    def one() -> None:
        if team.leads:
            alone.step()

    def all_of_us() -> None:
        team.wait()
        ours.step()

    return in_turns(one, all_of_us, rounds, device)


def section(rounds: int, device: torch.device, batch: int = 128) -> None:
    """The table; an empty row where there are fewer GPUs than processes."""
    times = None
    if device.type == "cpu" or torch.cuda.device_count() >= SIZE:
        with together(SIZE, device, work, rounds, batch) as (team, own):
            times = work(team, own, rounds, batch)
    table = Table(f"Training step shared by processes, small_cnn without batch norm, 3x32x32, batch {batch}")
    what = f"step of sglr, {SIZE} processes"
    if times is None:
        table.empty(what, f"needs {SIZE} GPUs")
    else:
        table.row(what, "one process", times, images=batch)
