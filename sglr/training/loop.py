"""The one training loop: natural warm-up, adversarial training and every method go through it."""

from collections.abc import Iterator
from dataclasses import InitVar, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from sglr import processes
from sglr.attacks.accuracy import LogitsError
from sglr.data import Split, batches, order
from sglr.models.precision import float32_by_default, full_precision
from sglr.random import torch_stream
from sglr.training.components import checked_targets, require_probabilities
from sglr.training.distributed import ALONE, Team
from sglr.training.errors import Interrupted, TrainingError
from sglr.training.history import measure, traced_examples
from sglr.training.hooks import NO_HOOKS, Hooks
from sglr.training.learner import Learner
from sglr.training.plan import Plan
from sglr.training.precision import monitoring
from sglr.training.requirements import require_trainable
from sglr.training.restoring import Restoration
from sglr.training.result import KeptEpochs, TrainingResult, evaluated_model, refined_labels, result
from sglr.training.state import LoopState, Row, capture, copied, finite, restore
from sglr.training.step import take


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
            a loss, or an epoch's logits or weights, are not finite; an objective's loss is not one number with a
            gradient, a label policy's targets or refined labels are no probabilities (n, classes); a schedule gives a
            learning rate that is negative or that float32 cannot hold; a policy's ``state_dict`` cannot be kept, or
            does not restore it (found where there are snapshots); the processes do not all see the same snapshots.
        FileError: A kept epoch that a snapshot counts on is missing or damaged.
        ConfigError: A team cannot train the model.
        Interrupted: ``hooks.should_stop`` said so.
    """
    on_gpu = train.given.device.type == "cuda"
    with (
        torch.inference_mode(False),  # gradients are taken whatever mode the caller is in
        float32_by_default(),
        processes.current(train.given.device),
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


@dataclass
class _Loop:
    """One training under way, in one of its processes."""

    plan: Plan
    model: InitVar[nn.Module]
    train: Split
    validation: Split | None
    hooks: Hooks
    title: str
    team: Team

    def __post_init__(self, model: nn.Module) -> None:
        plan, train, self.snapshots = self.plan, self.train, self.hooks.snapshots
        self.classes = self._count_classes(model)
        self.learner = Learner.build(plan, model, train.given, self.classes, self.team)
        self.restoration = Restoration(self.learner, plan, train.given, self.classes)
        self.restoration.require_storable()
        self.finite_at_start = finite(model)  # masks may hold infinity
        self.progress = LoopState()
        self.kept = KeptEpochs(plan.keep_epochs, self.snapshots, writes=self.team.leads)
        self.every_example = torch.arange(len(train), device=train.given.device)
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
            self.kept.before(self.progress.epoch)  # said now if one of them is gone, not after the last epoch
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
        return result(self.plan, self.learner, self.progress, self.kept, self.every_example, self.traced)

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
            taken = take(plan, learner, train.images(index), train.given[index], index, epoch, step)
            if step == 0 and bool(taken.loss.isfinite()):  # of a network that diverged targets are NaN, too
                require_probabilities(plan, taken.targets, "a batch")
            progress.loss = progress.loss + taken.loss.double() * len(index)
            first_bad = (progress.bad_step < 0) & ~torch.isfinite(taken.loss)
            progress.bad_step = torch.where(first_bad, step, progress.bad_step)
            progress.predicted[index] = taken.predicted
            progress.step = step + 1
            bar.update()
            if progress.step < self.steps:
                self._pause()
        self._close_epoch(bar, rate=rate)
        self._pause()

    def _close_epoch(self, bar: Any, rate: float) -> None:
        plan, progress, learner = self.plan, self.progress, self.learner
        epoch = progress.epoch
        self._require_finite_loss()
        under_attack = progress.predicted if learner.objective.attacks else None
        assert isinstance(progress.loss, Tensor)
        row: Row = {"epoch": epoch, "lr": rate, "train/loss": progress.loss.item() / len(self.train)}
        with full_precision():
            learner.weights.after_epoch(learner.model, epoch, self._images)
        if self.snapshots:
            self.restoration.require(epoch)
        evaluated, refined = evaluated_model(learner), self._refined_labels()
        try:
            with monitoring(plan.precision, self.train.given.device):
                row |= measure(plan, evaluated, refined, self.train, self.validation, epoch, under_attack, self.team)
        except LogitsError as error:
            raise TrainingError(f"after epoch {epoch} {error}.{self._advice()}") from error
        self._require_finite_weights(evaluated, epoch)
        score = row["val/pgd"] if learner.objective.attacks else row["val/natural"]
        if score is not None and score > progress.best_score:
            progress.best_score, progress.best_epoch = score, epoch
            progress.best, progress.best_labels = copied(evaluated.state_dict()), copied(learner.labels.state_dict())
        self.kept.keep(epoch, evaluated, learner)
        progress.trace.append(refined[self.traced.to(refined.device)].cpu())
        progress.history.append(row)
        progress.epoch, progress.step, progress.predicted = epoch + 1, 0, None
        bar.set_postfix(epoch=f"{epoch}/{plan.epochs}", loss=f"{row['train/loss']:.3f}", robust=_percent(score))
        self.hooks.on_epoch(row)

    def _refined_labels(self) -> Tensor:
        found = refined_labels(self.plan, self.learner, self.progress.epoch, self.every_example)
        checked_targets(self.plan, found, (len(self.train), self.classes), "refined labels")
        require_probabilities(self.plan, found, "refined labels")
        return found

    def _require_finite_weights(self, evaluated: nn.Module, epoch: int) -> None:
        """TrainingError for weights and statistics that losses and logits have not shown to be broken."""
        broken = sorted(self.finite_at_start - finite(evaluated))
        if broken:
            raise TrainingError(f"after epoch {epoch} {broken[0]} of the model is NaN or infinite.{self._advice()}")

    def _images(self) -> Iterator[Tensor]:
        # A team's batch norm takes its statistics from the shares of all.
        parts = batches(len(self.train), self.plan.batch_size)
        return (self.train.images(index[self.team.share(len(index))]) for index in parts)

    def _require_finite_loss(self) -> None:
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
        return (
            f" Likely causes: too high a learning rate ({rate:g}), bad values in the data, or a component of your own"
            f" that gives them.{kept}"
        )

    def _pause(self) -> None:
        due = self.team.leads and self.snapshots is not None and self.snapshots.due()
        stop, due = self.team.any(self.hooks.should_stop(), due)
        if self.snapshots and (stop or due):
            self._require_finite_loss()
            self.restoration.require_storable()
            if self.team.leads:
                self.snapshots.save(capture(self.learner, self.progress), self.progress.epoch, self.progress.step)
        if stop:
            again = "; run it again to continue there" if self.snapshots else ""
            raise Interrupted(f"stopped in epoch {self.progress.epoch}{again}")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"
