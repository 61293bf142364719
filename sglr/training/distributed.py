"""Several processes that train one model together, on one machine or several, each with its share of every batch.

Random numbers are drawn for the whole batch and everything that is remembered (label table, history, weights) is the
same in all of them, so that their number changes a result only in the order in which floats are added.
"""

import contextlib
import inspect
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from sglr import processes
from sglr.config import ConfigError
from sglr.data import batches

_LEAVING = 5.0


@dataclass(frozen=True)
class Team:
    """The processes that train one model together, seen from one of them; by default one alone."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes, logs and speaks for all."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This process's part of a batch of n examples: consecutive, all parts as equal as they can be."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def whole(self, part: Tensor, n: int) -> Tensor:
        """The parts (rows ``share(n)``) of all processes as one tensor (n, ...), the same bits in each of them."""
        if self.size == 1:
            return part
        whole = part.new_zeros(n, *part.shape[1:])
        whole[self.share(n)] = part
        dist.all_reduce(whole)
        return whole

    def total(self, parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The sum over all processes of each tensor."""
        if self.size > 1:
            for part in parts:
                dist.all_reduce(part)
        return tuple(parts)

    def fill(self, rows: Tensor, batch_size: int, work: Callable[[int, Tensor], Tensor]) -> Tensor:
        """``rows`` (n, ...), zeros so far, with ``work(number, index)`` in the rows of each batch.

        Batches are those of one process and are taken in turns, so that no row is computed twice or with other company.
        """
        for number, index in enumerate(batches(len(rows), batch_size)):
            if number % self.size == self.rank:
                rows[index] = work(number, index)
        if self.size > 1:
            dist.all_reduce(rows)
        return rows

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag whether it is set in some process. Hosts wait for each other here, devices do not."""
        if self.size == 1:
            return flags
        votes = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(votes, dist.ReduceOp.MAX)
        return tuple(bool(vote) for vote in votes)

    def wait(self) -> None:
        """Until all of them are here."""
        self.any(True)

    def agrees(self, value: int) -> bool:
        """Whether a whole number is the same in all processes."""
        if self.size == 1:
            return True
        ends = torch.tensor([value, -value])
        dist.all_reduce(ends, dist.ReduceOp.MAX)
        return int(ends[0]) == -int(ends[1])

    def trained(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network whose backward pass averages gradients over the processes."""
        if self.size == 1:
            return network
        devices = [device] if device.type == "cuda" else None
        # Batch norm's statistics are the same everywhere already, and a second forward may not change the first's.
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        synchronised = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {"device_ids": devices, synchronised: False}
        return DistributedDataParallel(network, **options)


ALONE = Team()


def shared(model: nn.Module, team_size: int, device: torch.device) -> nn.Module:
    """``model`` for so many processes: batch norm takes its statistics from all of them.

    Raises ConfigError for a model with batch norm on CPUs, where torch cannot do that.
    """
    if team_size == 1 or not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return model
    if device.type != "cuda":
        raise ConfigError(
            f"{team_size} processes cannot train a model with batch norm on a CPU: torch shares its statistics on GPUs"
            " only. Set SGLR_NPROC=1 (threads are experiment.threads), or a model without it (small_cnn has batch_norm:"
            " false)."
        )
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return converted


@contextlib.contextmanager
def together(
    size: int, device: torch.device, work: Callable[..., None], *arguments: Any
) -> Iterator[tuple[Team, torch.device]]:
    """Within the block this process belongs to a team; yields it and this process's device.

    Under a launcher such as torchrun the team is the launcher's, whatever ``size`` says. Otherwise ``size`` - 1 more
    processes are started on this machine, which run ``work(team, device, *arguments)``; this one leads. ConfigError
    when there are fewer GPUs than processes; ProcessError when one of them fails.
    """
    launch = processes.launched()
    if launch is not None:
        _require_own_gpu(launch, device)
        with _member(launch.rank, launch.size, processes.device_of(launch.local_rank, device), "env://") as found:
            yield found
    elif size == 1:
        yield ALONE, device
    else:
        _require_gpus(size, device)
        with tempfile.TemporaryDirectory(prefix="sglr-") as folder, contextlib.ExitStack() as stack:
            store = f"file://{Path(folder).resolve() / 'store'}"
            member = _member(0, size, processes.device_of(0, device), store)
            with processes.alongside(size - 1, _join, size, device, store, torch.get_num_threads(), work, arguments):
                yield stack.enter_context(member)
                # In order: before the others are waited for. After an error they are ended first.
                stack.close()


def _require_gpus(size: int, device: torch.device) -> None:
    if device.type != "cuda":
        return
    gpus = 1 if device.index is not None else torch.cuda.device_count()
    if size > gpus:
        raise ConfigError(f"{size} training processes need one GPU each, there are {gpus}: lower SGLR_NPROC.")


def _require_own_gpu(launch: processes.Launch, device: torch.device) -> None:
    """ConfigError where a launcher's processes on this machine would share a GPU. Where it shows each process one GPU
    of its own, they all call theirs cuda:0."""
    if device.type != "cuda" or launch.local_size == 1:
        return
    gpus = torch.cuda.device_count()
    if device.index is not None and gpus > 1:
        raise ConfigError(
            f"{launch.local_size} training processes need one GPU each: SGLR_DEVICE={device} is one for all of"
            " them; set SGLR_DEVICE=cuda"
        )
    if 1 < gpus < launch.local_size:
        raise ConfigError(
            f"{launch.local_size} training processes on this machine need one GPU each, there are {gpus}: start fewer"
        )


def _join(
    rank: int, size: int, device: torch.device, store: str, threads: int, work: Callable[..., None], arguments: Any
) -> None:
    torch.set_num_threads(threads)
    with _member(rank, size, processes.device_of(rank, device), store) as (team, own):
        work(team, own, *arguments)


@contextlib.contextmanager
def _member(rank: int, size: int, device: torch.device, where: str) -> Iterator[tuple[Team, torch.device]]:
    """Join the process group found at ``where``; leave it at the end, after an error within ``_LEAVING`` seconds."""
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend, init_method=where, rank=rank, world_size=size)
    try:
        yield Team(rank, size), device
    except BaseException:
        # A GPU's waits for the others, which may wait for this process: without end, and its error would not be told.
        leaving = threading.Thread(target=_leave, daemon=True)
        leaving.start()
        leaving.join(_LEAVING)
        raise
    _leave()


def _leave() -> None:
    dist.destroy_process_group()
