"""Standard training: cross-entropy on natural pictures, no attack."""

from torch import Tensor, nn

from sglr.objectives.registry import REGISTRY, ObjectiveOptions, Outputs, soft_cross_entropy


class Standard:
    """loss = CE(f(x), t)."""

    attacks = False

    def forward(self, model: nn.Module, x: Tensor, x_adv: Tensor) -> Outputs:
        return Outputs(natural=model(x))

    def loss(self, outputs: Outputs, targets: Tensor, y: Tensor) -> Tensor:
        return soft_cross_entropy(outputs.main, targets).mean()


@REGISTRY.register("standard")
class StandardOptions(ObjectiveOptions):
    """Nothing to set."""

    def build(self) -> Standard:
        return Standard()
