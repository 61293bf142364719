"""AutoAttack (Croce and Hein 2020) by its authors' package, pyautoattack."""

import contextlib
import logging
from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sglr.attacks.accuracy import require_allowed
from sglr.attacks.inputs import outside_inference_mode, require_inputs
from sglr.attacks.losses import FEWEST_FOR_DLR, require_known
from sglr.attacks.mode import warn_in_train_mode
from sglr.attacks.registry import REGISTRY, Attack, AttackOptions
from sglr.models.precision import float32_by_default
from sglr.threat import L2, Linf, Threat, per_image

_LOGGER = "auto-attack"
_MISSING = "AutoAttack and Square Attack need the package pyautoattack: pip install pyautoattack"
Version = Literal["standard", "plus", "rand"]
# What each version runs, in its order.
MEMBERS: dict[str, tuple[str, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
# Restarts of its attacks, and gradients averaged for one step.
_RESTARTS = {"standard": 1, "plus": 5, "rand": 1}
_AVERAGED = {"standard": 1, "plus": 1, "rand": 20}
_STEPS, _QUERIES, _TARGETS = 100, 5000, 9
# Classes that the DLR losses need: the targeted one, which the others have, one more.
FEWEST_CLASSES: dict[str, int] = {"standard": FEWEST_FOR_DLR + 1, "plus": FEWEST_FOR_DLR + 1, "rand": FEWEST_FOR_DLR}


@outside_inference_mode
def autoattack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    seed: int = 0,
    version: Version = "standard",
    batch_size: int = 250,
    member: str | None = None,
) -> Tensor:
    """Adversarial examples by AutoAttack; where no attack succeeds, x itself.

    The global random state and the gradients of the model's parameters are left as they were. The model is used in the
    mode it is in, eval mode for a result that counts: a UserWarning says where train mode changes what it computes.

    Args:
        model: Images in [0, 1] in, logits (N, classes) out, in eval mode. With fewer than 10 classes the targeted
            attacks have one target less than classes, and a warning in the log says that this is not the standard
            version.
        x: Images (N, C, H, W) in [0, 1].
        y: Labels (N,), int64.
        threat: The ball, such as ``sglr.threat.Linf(8 / 255)``.
        seed: Of everything that is drawn.
        version: "standard", "plus" or "rand".
        batch_size: Images at once.
        member: The one attack of the version to run: one after another, each on the examples that are still correct,
            they find what the version finds. None: all.

    Raises:
        ValueError: Images lie outside [0, 1]; labels lie beyond the model's classes; it gives a single logit; version
            or member are unknown; the batch size is below 1; there are fewer than 4 classes, for "rand" than 3, which
            the DLR losses need.
        TypeError: As for ``pgd``.
        ImportError: pyautoattack is not installed.
    """
    if version not in MEMBERS:
        raise ValueError(f"unknown version {version!r}; known: {', '.join(MEMBERS)}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, found {batch_size}")
    if member is not None and member not in MEMBERS[version]:
        raise ValueError(f"{version} has no member {member!r}; it has: {', '.join(MEMBERS[version])}")
    require_inputs(x, y, threat)
    if len(x) == 0:
        return x.detach().clone()
    warn_in_train_mode(model, "autoattack")
    classes = classes_of(model, x, y)
    few = _few_classes(version, classes)
    if few:
        raise ValueError(f"AutoAttack {version}: {few}")
    if not _has_gradient(model, x[:1]):
        logging.getLogger(_LOGGER).warning("the logits have no gradient at the image: attacks that follow it are blind")
        model = _Connected(model)
    attacks = runner(model, x, threat=threat, seed=seed, version=version)
    if member is not None:
        attacks.attacks_to_run = [member]
    if classes < 10 and version != "rand":
        attacks.apgd_targeted.n_target_classes = attacks.fab.n_target_classes = classes - 1
        logging.getLogger(_LOGGER).warning("%d targets instead of 9: not AutoAttack's standard version", classes - 1)
    with _gradients_kept(model):
        return run(attacks, x, y, batch_size, threat)


@contextlib.contextmanager
def _gradients_kept(model: nn.Module) -> Iterator[None]:
    """The package's FAB calls ``backward``, which would add to the gradients of the parameters."""
    kept = [(each, each.grad) for each in (model.parameters() if isinstance(model, nn.Module) else ())]
    for each, _ in kept:
        each.grad = None
    try:
        yield
    finally:
        for each, gradient in kept:
            each.grad = gradient


@torch.no_grad()
def classes_of(model: nn.Module, x: Tensor, y: Tensor) -> int:
    """How many logits the model gives; ValueError for one alone, and for labels beyond them, which the package takes
    for broken."""
    logits: Tensor = model(x[:1].clone())
    require_known(y, logits)
    return logits.shape[1]


def _has_gradient(model: nn.Module, x: Tensor) -> bool:
    """Whether logits depend on images x by differentiable operations: the package's attacks crash if not."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = model(x)
        if not logits.requires_grad:
            return False
        return torch.autograd.grad(logits.sum(), x, allow_unused=True)[0] is not None


class _OfOneType(nn.Module):
    """The model for images of any floating type, with logits of that type: the package's attacks mix several."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x.to(self.dtype))
        return logits.to(x.dtype)


class _Connected(nn.Module):
    """The same logits with a gradient of zero."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits + 0 * x.flatten(1).sum(1, keepdim=True)


def runner(model: nn.Module, x: Tensor, *, threat: Threat, seed: int, **options: Any) -> Any:
    """pyautoattack's AutoAttack for a threat model; ImportError that says how to install it."""
    try:
        from pyautoattack import AutoAttack
    except ImportError:
        raise ImportError(_MISSING) from None
    norms: dict[type, str] = {Linf: "Linf", L2: "L2"}
    if type(threat) not in norms:
        raise TypeError(f"pyautoattack knows the balls Linf and L2, not {type(threat).__name__}")
    model = _OfOneType(model, x.dtype)
    return AutoAttack(model, norm=norms[type(threat)], eps=threat.eps, seed=seed, device=x.device, **options)


def run(attacks: Any, x: Tensor, y: Tensor, batch_size: int, threat: Threat) -> Tensor:
    """What a ``runner`` finds for x; its seeding of the global random state is undone.

    The package computes in single precision.

    RuntimeError, the package's own, where logits of all x are tied and L2's Square Attack is one of several; and where
    a model that changes its images in place leads it out of the ball.
    """
    single = x.detach().float().contiguous()
    if single.data_ptr() == x.data_ptr():
        single = single.clone()  # a model may change its images in place
    with float32_by_default(), torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        try:
            x_adv, _ = attacks.run_standard_evaluation(single, y, batch_size=batch_size)
        except RuntimeError as error:
            # Square takes a tie for a success, and under L2 cannot do with nothing left to change.
            if attacks.attacks_to_run != ["square"] or "0 elements" not in str(error):
                raise
            return x.detach()
    found: Tensor = x_adv.detach()
    if x.dtype == found.dtype:
        require_allowed(found, x, threat)
        return found
    x, untouched = x.detach(), per_image((found == single).flatten(1).all(1), x)
    return torch.where(untouched, x, threat.project(found.to(x.dtype), x))


def warn_of_square(shares: dict[str, float]) -> None:
    """Warn, as AutoAttack does after its last attack, where its black-box member beat the others.

    shares: robust share of the examples after "clean" and each member that ran, in order.
    """
    if "square" not in shares:
        return
    from pyautoattack.checks import check_square_sr

    check_square_sr(shares, logger=logging.getLogger(_LOGGER))


@contextlib.contextmanager
def captured_warnings() -> Iterator[list[str]]:
    """Collect AutoAttack's warnings (randomised or masked defences, unusual logits) instead of printing them."""
    found: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = " ".join(record.getMessage().split())
            if record.levelno >= logging.WARNING and message not in found:
                found.append(message)

    logger = logging.getLogger(_LOGGER)
    handler, propagate = Collect(), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def _few_classes(version: str, classes: int) -> str | None:
    fewest = FEWEST_CLASSES[version]
    if classes >= fewest:
        return None
    return (
        f"its DLR losses need at least {fewest} classes, there are {classes}; in its place run apgd (loss ce), apgd"
        " (loss cw) and square on the same examples, and count what withstands all three, as the row `worst` does"
    )


def square_misfit(shape: tuple[int, int, int], norm: str) -> str | None:
    """Why the package's Square Attack cannot attack images (C, H, W) under this norm; None where it can.

    Under L2 it begins with tiles of a fifth of the height, and ends in an error where the last ones do not fit.
    """
    height, width = shape[1:]
    tile = height // 5
    start = (height - 5 * tile) // 2
    if norm != "l2" or (tile and (tile == 1 or all(start + n // tile * tile <= n for n in (height, width)))):
        return None
    return f"pyautoattack's Square Attack under L2 does not take images of {height}x{width}"


@REGISTRY.register("autoattack")
class AutoAttackOptions(AttackOptions):
    """AutoAttack's version, as in its paper."""

    packages: ClassVar[tuple[str, ...]] = ("pyautoattack",)

    version: Version = "standard"

    def misfit(self, num_classes: int, shape: tuple[int, int, int], norm: str) -> str | None:
        few = _few_classes(self.version, num_classes)
        return few if few or "square" not in MEMBERS[self.version] else square_misfit(shape, norm)

    def passes(self, num_classes: int) -> tuple[float, float]:
        targets = min(_TARGETS, num_classes - 1)
        steps = _STEPS * _RESTARTS[self.version] * _AVERAGED[self.version]
        of: dict[str, tuple[float, float]] = {
            "apgd-ce": (steps, steps),
            "apgd-dlr": (steps, steps),
            "apgd-t": (_STEPS * targets, _STEPS * targets),
            # A point's gradients, of all classes where none is the target, and the logits of the next one.
            "fab": (2 * steps, num_classes * steps),
            "fab-t": (2 * _STEPS * targets, _STEPS * targets),
            "square": (_QUERIES, 0),
        }
        forwards, backwards = zip(*(of[member] for member in MEMBERS[self.version]), strict=True)
        return sum(forwards), sum(backwards)

    def build(self, threat: Threat) -> Attack:
        return self._attack(threat, None)

    def members(self, threat: Threat) -> dict[str, Attack]:
        return {member: self._attack(threat, member) for member in MEMBERS[self.version]}

    def _attack(self, threat: Threat, member: str | None) -> Attack:
        call = partial(autoattack, threat=threat, version=self.version, member=member)

        def attack(model: nn.Module, x: Tensor, y: Tensor, *, seed: int) -> Tensor:
            return call(model, x, y, seed=seed, batch_size=len(x))

        return attack
