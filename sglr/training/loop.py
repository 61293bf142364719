"""The one training loop: natural warm-up, adversarial training and every method go through it."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from sglr.attacks.accuracy import LogitsError
from sglr.data import Split, batches, order
from sglr.models.checkpoint import unwrap
from sglr.models.precision import float32_by_default, full_precision
from sglr.random import derive, seed_torch, torch_stream
from sglr.training.distributed import ALONE, Team
from sglr.training.errors import Interrupted, TrainingError
from sglr.training.history import measure, traced_examples
from sglr.training.hooks import NO_HOOKS, Hooks
from sglr.training.learner import Learner
from sglr.training.plan import Plan
from sglr.training.precision import monitoring
from sglr.training.requirements import require_trainable
from sglr.training.restoring import Restoration
from sglr.training.state import Progress, Row, capture, copied, finite, restore
from sglr.training.step import take


@dataclass
class TrainingResult:
    """What a training leaves. Weights are state dicts on the CPU."""

    last: dict[str, Tensor]
    best: dict[str, Tensor] | None
    best_epoch: int | None
    kept: dict[int, dict[str, Tensor]]
    history: list[Row]
    refined: Tensor
    """The refined labels (n, C) after the last epoch."""
    labels: dict[str, dict[str, Any]]
    """State of the label policy with each of these weights: "last", "best", "10" (a kept epoch)."""
    trace: dict[str, Tensor]
    state: dict[str, Any] | None
    """Everything a continuation needs (``fit(..., continue_from=state)``); None where the plan's epochs are over."""


def fit(
    plan: Plan,
    model: nn.Module,
    train: Split,
    validation: Split | None = None,
    *,
    hooks: Hooks = NO_HOOKS,
    continue_from: dict[str, Any] | None = None,
    title: str = "",
    team: Team = ALONE,
) -> TrainingResult:
    """Train ``model`` (on the splits' device) as ``plan`` says.

    A snapshot found in ``hooks.snapshots`` is continued, else ``continue_from`` (``TrainingResult.state`` of a shared
    warm-up), else training starts at epoch 1 with the weights ``model`` has. Torch's global generators begin anew with
    every step, and are afterwards as they were.

    Args:
        plan: Objective, labels, weights, schedule and the rest of what is trained how.
        model: From images in [0, 1] (N, C, H, W) to logits (N, classes); is trained in place.
        train: Training images, their given and their true labels.
        validation: Images by which the best epoch is chosen; None: there is no best.
        hooks: Where the state is kept, whom each epoch is told, who stops it; by default nowhere and nobody.
        continue_from: State of an earlier training of the same model.
        title: Of the progress bar.
        team: The processes that share every batch; each calls this with the same arguments.

    Raises:
        TrainingError: A batch is larger than the data, smaller than the team, or one image where the model has batch
            norm; an augmentation does not fit the images, or it or an objective's attack gives other than such images;
            a loss, or an epoch's logits or weights, are not finite; a schedule gives a learning rate that is negative
            or that float32 cannot hold; a policy's ``state_dict`` cannot be kept, or does not restore it (found where
            there are snapshots); the processes do not all see the same snapshots.
        FileError: A kept epoch that a snapshot counts on is missing or damaged.
        ConfigError: A team cannot train the model.
        Interrupted: ``hooks.should_stop`` said so.
    """
    on_gpu = train.given.device.type == "cuda"
    with (
        torch.inference_mode(False),  # gradients are taken whatever mode the caller is in
        float32_by_default(),
        torch.random.fork_rng(range(torch.cuda.device_count()) if on_gpu else []),
    ):
        require_trainable(plan, model, train, team)
        loop = _Loop(plan, model, train, validation, hooks, title, team)
        try:
            return loop.run(continue_from)
        finally:
            # Gradients of a CUDA graph lie in its memory, which goes with the compiled network.
            loop.learner.optimizer.zero_grad(set_to_none=True)
            loop.learner.release()


class _Loop:
    def __init__(
        self,
        plan: Plan,
        model: nn.Module,
        train: Split,
        validation: Split | None,
        hooks: Hooks,
        title: str,
        team: Team,
    ) -> None:
        self.plan, self.train, self.validation = plan, train, validation
        self.hooks, self.snapshots, self.title, self.team = hooks, hooks.snapshots, title, team
        classes = self._count_classes(model)
        self.learner = Learner.build(plan, model, train.given, classes, team)
        self.restoration = Restoration(self.learner, plan, train.given, classes)
        self.restoration.require_storable()
        self.finite = finite(model)  # masks may hold infinity
        self.progress = Progress()
        self.kept: dict[int, dict[str, Any]] = {}
        self.all = torch.arange(len(train), device=train.given.device)
        self.traced = traced_examples(train, torch_stream(plan.seed, "trace"))
        self.steps = self.learner.steps

    @torch.no_grad()
    def _count_classes(self, model: nn.Module) -> int:
        training = model.training
        classes = model.eval()(self.train.images(slice(0, 2))).shape[1]
        model.train(training)
        return int(classes)

    def run(self, continue_from: dict[str, Any] | None) -> TrainingResult:
        found = self._load()
        state = found if found is not None else continue_from
        if state is not None:
            self.progress = restore(self.learner, state, self.train.given.device)
        if found is not None:
            self._kept()  # said now if one of them is gone, not after the last epoch
            self.hooks.on_resume(self.progress.epoch, self.progress.step + 1)
        for row in self.progress.history:
            self.hooks.on_epoch(row)
        done = (self.progress.epoch - 1) * self.steps + self.progress.step
        with tqdm(
            total=self.plan.until * self.steps, initial=done, desc=self.title, unit="step", leave=False,
            disable=None if self.team.leads else True,
        ) as bar:  # fmt: skip
            while self.progress.epoch <= self.plan.until:
                self._epoch(bar)
        return self._result()

    def _load(self) -> dict[str, Any] | None:
        """The newest whole snapshot. The leader reads first: it removes damaged ones."""
        found = self.snapshots.load() if self.snapshots and self.team.leads else None
        self.team.wait()
        if self.snapshots and not self.team.leads:
            found = self.snapshots.load()
        progress = found["progress"] if found is not None else {"epoch": 0, "step": 0}
        if not self.team.agrees(progress["epoch"] * self.steps + progress["step"]):
            folder = self.snapshots.folder if self.snapshots else None
            raise TrainingError(f"the processes do not see the same snapshots in {folder}: let them share that folder")
        return found

    def _epoch(self, bar: Any) -> None:
        plan, progress, learner, train = self.plan, self.progress, self.learner, self.train
        epoch, device = progress.epoch, train.given.device
        if progress.predicted is None:
            progress.predicted = torch.full_like(train.given, -1)
            progress.loss = torch.zeros((), dtype=torch.float64, device=device)
            progress.bad_step = torch.full((), -1, dtype=torch.int64, device=device)
        shuffled = order(len(train), seed=plan.seed, epoch=epoch).to(device)
        parts = list(batches(len(train), plan.batch_size, shuffled))
        for step in range(progress.step, self.steps):
            rate = plan.learning_rate(epoch, step, self.steps)
            for group in learner.optimizer.param_groups:
                group["lr"] = rate
            index = parts[step]
            loss, predicted = take(plan, learner, train.images(index), train.given[index], index, epoch, step)
            progress.loss = progress.loss + loss.double() * len(index)
            first_bad = (progress.bad_step < 0) & ~torch.isfinite(loss)
            progress.bad_step = torch.where(first_bad, step, progress.bad_step)
            progress.predicted[index] = predicted
            progress.step = step + 1
            bar.update()
            if progress.step < self.steps:
                self._pause()
        self._close_epoch(bar, rate=rate)
        self._pause()

    def _close_epoch(self, bar: Any, rate: float) -> None:
        plan, progress, learner = self.plan, self.progress, self.learner
        epoch = progress.epoch
        self._check_finite()
        attacked = progress.predicted if learner.objective.attacks else None
        assert isinstance(progress.loss, Tensor)
        row: Row = {"epoch": epoch, "lr": rate, "train/loss": progress.loss.item() / len(self.train)}
        with full_precision():
            learner.weights.after_epoch(learner.model, epoch, self._images)
        if self.snapshots:
            self.restoration.require(epoch)
        evaluated, refined = self._evaluated(), self._refined(epoch)
        try:
            with monitoring(plan.precision, self.train.given.device):
                row |= measure(plan, evaluated, refined, self.train, self.validation, epoch, attacked, self.team)
        except LogitsError as error:
            raise TrainingError(f"after epoch {epoch} {error}.{self._advice()}") from error
        self._require_finite(evaluated, epoch)
        score = row["val/pgd"] if learner.objective.attacks else row["val/natural"]
        if score is not None and score > progress.best_score:
            progress.best_score, progress.best_epoch = score, epoch
            progress.best, progress.best_labels = copied(evaluated.state_dict()), copied(learner.labels.state_dict())
        if epoch in plan.keep_epochs:
            self._keep(epoch, copied({"model": evaluated.state_dict(), "labels": learner.labels.state_dict()}))
        progress.trace.append(refined[self.traced.to(refined.device)].cpu())
        progress.history.append(row)
        progress.epoch, progress.step, progress.predicted = epoch + 1, 0, None
        bar.set_postfix(epoch=f"{epoch}/{plan.epochs}", loss=f"{row['train/loss']:.3f}", robust=_percent(score))
        self.hooks.on_epoch(row)

    def _evaluated(self) -> nn.Module:
        found = unwrap(self.learner.weights.evaluated(self.learner.model))
        if found.state_dict().keys() != self.learner.model.state_dict().keys():
            raise TrainingError(
                f"{type(found).__name__}, which the weight policy gives to evaluate, has not the names of the model's"
                " weights: it must be a copy of the model, or torch's own wrapper around one (AveragedModel)"
            )
        return found

    def _require_finite(self, evaluated: nn.Module, epoch: int) -> None:
        """TrainingError for weights and statistics that losses and logits have not shown to be broken."""
        broken = sorted(self.finite - finite(evaluated))
        if broken:
            raise TrainingError(f"after epoch {epoch} {broken[0]} of the model is NaN or infinite.{self._advice()}")

    def _refined(self, epoch: int) -> Tensor:
        """The refined labels (n, C) after an epoch, whatever was drawn before."""
        seed_torch(derive(self.plan.seed, "refined", epoch), self.train.given.device)
        return self.learner.labels.refined(epoch, self.all)

    def _images(self) -> Iterator[Tensor]:
        # A team's batch norm takes its statistics from the shares of all.
        parts = batches(len(self.train), self.plan.batch_size)
        return (self.train.images(index[self.team.share(len(index))]) for index in parts)

    def _check_finite(self) -> None:
        """Waits for the device; called once per epoch and before a snapshot."""
        bad_step = int(self.progress.bad_step)
        if bad_step >= 0:
            raise TrainingError(
                f"the loss is not finite from epoch {self.progress.epoch}, batch {bad_step + 1} of {self.steps} on."
                f"{self._advice()}"
            )

    def _advice(self) -> str:
        rate = self.learner.optimizer.param_groups[0]["lr"]
        kept = " Snapshots from before are kept." if self.snapshots else ""
        return f" Likely causes: too high a learning rate ({rate:g}), or bad values in the data.{kept}"

    def _pause(self) -> None:
        due = self.team.leads and self.snapshots is not None and self.snapshots.due()
        stop, due = self.team.any(self.hooks.should_stop(), due)
        if self.snapshots and (stop or due):
            self._check_finite()
            self.restoration.require_storable()
            if self.team.leads:
                self.snapshots.save(capture(self.learner, self.progress), self.progress.epoch, self.progress.step)
        if stop:
            again = "; run it again to continue there" if self.snapshots else ""
            raise Interrupted(f"stopped in epoch {self.progress.epoch}{again}")

    def _keep(self, epoch: int, state: dict[str, Any]) -> None:
        if self.snapshots:
            if self.team.leads:
                self.snapshots.keep(epoch, state)
        else:
            self.kept[epoch] = state

    def _kept(self) -> dict[int, dict[str, Any]]:
        """What was kept of the epochs so far; FileError where a file of them is gone."""
        past = [epoch for epoch in self.plan.keep_epochs if epoch < self.progress.epoch]
        return self.snapshots.kept(past) if self.snapshots else {epoch: self.kept[epoch] for epoch in past}

    def _result(self) -> TrainingResult:
        learner, progress = self.learner, self.progress
        kept = self._kept()
        labels = {"last": copied(learner.labels.state_dict())} | {str(epoch): kept[epoch]["labels"] for epoch in kept}
        if progress.best is not None:
            labels["best"] = progress.best_labels
        refined = self._refined(progress.epoch - 1).cpu()
        return TrainingResult(
            last=copied(self._evaluated().state_dict()),
            best=progress.best,
            best_epoch=progress.best_epoch,
            kept={epoch: state["model"] for epoch, state in kept.items()},
            history=progress.history,
            refined=refined,
            labels=labels,
            trace={
                "index": self.traced,
                "p": torch.stack(progress.trace) if progress.trace else refined[self.traced][None][:0],
            },
            state=copy.deepcopy(capture(learner, progress)) if self.plan.until < self.plan.epochs else None,
        )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"
