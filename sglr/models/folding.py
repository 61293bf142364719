"""The eval-mode network of a model with batch norm folded into the convolutions before it, kept up to date cheaply."""

import copy
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.parametrize import type_before_parametrizations as _kind

from sglr.random import undisturbed


@dataclass(frozen=True)
class _Pair:
    """A convolution and the batch norm after it, and the one convolution that replaces both."""

    convolution: nn.Conv2d
    norm: nn.BatchNorm2d | nn.SyncBatchNorm
    folded: nn.Conv2d


@dataclass(frozen=True)
class _Shared:
    """A weight or buffer of the model, and its stand-in in the traced copy: the same memory, unless the model was
    given another tensor since (as ``vector_to_parameters`` and an assignment in a forward do)."""

    owner: dict[str, Any]
    name: str
    stand_in: Tensor


class Folded(nn.Module):
    """A network with the logits of ``model`` in eval mode, up to rounding, with fewer operations.

    For gradients with respect to images only: nothing in it takes a gradient. Layers that cannot be folded use the
    model's weights and statistics where they lie in memory. After these changed call ``refresh``. A model that torch.fx
    cannot trace (its operations depend on values), that has hooks of its own, that draws numbers in its forward, or
    that computes with tensors which are neither weights nor buffers, is used as it is, in the mode it is in. Python
    numbers are taken as they are now.

    precision: of the folded convolutions, but for the network's first, which sees images, and stays in the model's.
    ``traced`` tells whether it is a copy, and not the model as it is.
    """

    def __init__(self, model: nn.Module, precision: torch.dtype | None = None) -> None:
        super().__init__()
        self._pairs: list[_Pair] = []
        self._shared: list[_Shared] = []
        modes = [(module, module.training) for module in model.modules()]
        model.eval()  # dropout is traced as it is in this mode
        try:
            shared = _shared(model)
            stand_ins = {id(each.owner[each.name]): each.stand_in for each in shared}
            traced = copy.deepcopy(_traced(model), stand_ins)
        except Exception:
            # A model that cannot be traced or copied still works as it is.
            self.network, self.traced = model, False
        else:
            self._fold(traced, precision)
            self.network, self.traced, self._shared = traced, True, shared
        finally:
            for module, training in modes:
                module.training = training
        self.refresh()

    @property
    def folds(self) -> int:
        """How many batch norms are folded."""
        return len(self._pairs)

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the model's weights and running statistics as they are now."""
        for each in self._shared:
            now = each.owner[each.name]
            if now.data_ptr() != each.stand_in.data_ptr():
                each.stand_in.copy_(now)
        # Statistics, weights and biases exist, which torch's types leave open.
        pairs: list[Any] = self._pairs
        if not pairs:
            return
        norms = [pair.norm for pair in pairs]
        # All layers at once: on a GPU one by one would be 160 launches for a ResNet-18.
        scales: Any = torch._foreach_add([norm.running_var for norm in norms], [norm.eps for norm in norms])
        torch._foreach_rsqrt_(scales)
        torch._foreach_mul_(scales, [norm.weight for norm in norms])
        shifts = torch._foreach_mul([norm.running_mean for norm in norms], scales)
        shifts = torch._foreach_sub([norm.bias for norm in norms], shifts)
        for pair, scale, shift in zip(pairs, scales, shifts, strict=True):
            if pair.convolution.bias is not None:
                shift += pair.convolution.bias * scale
            pair.folded.weight.copy_(pair.convolution.weight * scale.view(-1, 1, 1, 1))
        # The first alone, whose type may be another: on CUDA torch before 2.11 takes the first's for that of them all.
        pairs[0].folded.bias.copy_(shifts[0])
        if pairs[1:]:
            torch._foreach_copy_([pair.folded.bias for pair in pairs[1:]], shifts[1:])

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, C, H, W)."""
        logits: Tensor = self.network(x)
        return logits

    def _fold(self, traced: fx.GraphModule, precision: torch.dtype | None) -> None:
        modules = dict(traced.named_modules())
        calls = [node for node in traced.graph.nodes if node.op == "call_module"]
        once = [node for node in calls if sum(other.target == node.target for other in calls) == 1]
        elsewhere = [str(node.target) for node in traced.graph.nodes if node.op == "get_attr"]
        first = next((node for node in calls if isinstance(modules[str(node.target)], nn.Conv2d)), None)
        for node in once:
            norm, before = modules[str(node.target)], node.args[0]
            if before not in once or len(before.users) > 1:
                continue
            convolution = modules[str(before.target)]
            # No classes of their own, which may compute something else.
            if type(norm) not in (nn.BatchNorm2d, nn.SyncBatchNorm) or _kind(convolution) is not nn.Conv2d:
                continue
            if any(other.startswith((f"{before.target}.", f"{node.target}.")) for other in elsewhere):
                continue  # the network computes with these weights in another place, too
            if norm.running_mean is None or not norm.affine or _hooked(norm) or _hooked(convolution):
                continue
            folded = _convolution_like(convolution, convolution.weight.dtype if before is first else precision)
            self._pairs.append(_Pair(convolution, norm, folded))
            traced.set_submodule(str(before.target), folded)
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
        traced.recompile()
        # The one of another type first: see ``refresh``.
        self._pairs.sort(key=lambda pair: pair.folded.weight.dtype == precision)


class _Tracer(fx.Tracer):
    """Keeps buffers as such: what a forward computes from them alone would be a constant of the graph."""

    proxy_buffer_attributes = True


def _traced(model: nn.Module) -> fx.GraphModule:
    """The graph of a forward; ValueError where it leaves out the model's own hooks (those of layers are traced) or
    another forward than its class's, holds other tensors than the model's own, which would not follow, or numbers that
    are drawn anew in each forward."""
    if _hooked(model):
        raise ValueError("the model has hooks, or a forward of its own")
    before = set(vars(model))
    with undisturbed() as drawn:
        try:
            traced = fx.GraphModule(model, _Tracer().trace(model))
        finally:
            for constant in vars(model).keys() - before:  # that tracing left in the model
                delattr(model, constant)
        if drawn():
            raise ValueError("what it draws in a forward would be drawn once for all")
    own = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    for node in traced.graph.nodes:
        if node.op == "get_attr" and id(operator.attrgetter(str(node.target))(traced)) not in own:
            raise ValueError(f"{node.target} is neither a weight nor a buffer")
    return traced


def _hooked(module: nn.Module) -> bool:
    """Whether calling a layer does more than its class's forward, or something else, as where torch's older weight_norm
    makes the weight."""
    return bool(module._forward_hooks or module._forward_pre_hooks) or "forward" in vars(module)


def _shared(model: nn.Module) -> list[_Shared]:
    """All weights and buffers of a model, with stand-ins for a copy.

    Weights without gradients: a compiled backward pass computes all that are required, wanted or not.
    """
    made: dict[int, Tensor] = {}
    found = []
    for module in model.modules():
        for owner, frozen in ((module._parameters, True), (module._buffers, False)):
            for name, tensor in owner.items():
                if tensor is not None:
                    stand_in = nn.Parameter(tensor.detach(), requires_grad=False) if frozen else tensor
                    found.append(_Shared(owner, name, made.setdefault(id(tensor), stand_in)))
    return found


def _convolution_like(convolution: nn.Conv2d, precision: torch.dtype | None) -> nn.Conv2d:
    """A frozen convolution of the same form with a bias."""
    weight = convolution.weight.detach()
    made = nn.Conv2d(
        convolution.in_channels, convolution.out_channels, convolution.kernel_size,  # type: ignore[arg-type]
        stride=convolution.stride, padding=convolution.padding, dilation=convolution.dilation,  # type: ignore[arg-type]
        groups=convolution.groups, padding_mode=convolution.padding_mode, device="meta",
    )  # fmt: skip
    kept = torch.empty_like(weight, dtype=precision or weight.dtype)  # in the weight's memory format
    made.weight = nn.Parameter(kept, requires_grad=False)
    made.bias = nn.Parameter(torch.empty(len(weight), dtype=kept.dtype, device=weight.device), requires_grad=False)
    return made
