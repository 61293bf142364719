import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from sglr.information.gradients import last_layer_norms


@pytest.fixture(scope="module")
def case():
    """(norms by per-example autograd, probs, targets, features) of a network with batch norm in eval mode, float64."""
    generator = torch.Generator().manual_seed(0)
    body = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU()).double()
    head = nn.Linear(9, 4).double()
    with torch.no_grad():
        for tensor in (*body.parameters(), *head.parameters()):
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
        body[1].running_mean.normal_(generator=generator)
        body[1].running_var.uniform_(0.5, 2, generator=generator)
    body.eval()
    x = torch.randn(20, 6, generator=generator, dtype=torch.float64)
    targets = torch.rand(20, 4, generator=generator, dtype=torch.float64).softmax(1)
    targets[:5] = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 3, 0]]

    def loss(parameters, x, t):
        logits = functional_call(head, parameters, (body(x[None]),))
        return -(t * logits.log_softmax(1)[0]).sum()

    gradients = vmap(grad(loss), (None, 0, 0))({k: v.detach() for k, v in head.named_parameters()}, x, targets)
    norms = torch.cat([g.flatten(1) for g in gradients.values()], 1).norm(dim=1)
    with torch.no_grad():
        features = body(x)
        probs = head(features).softmax(1)
    return tuple(tensor.detach().numpy() for tensor in (norms, probs, targets, features))


def test_closed_form_equals_per_example_autograd(case):
    expected, probs, targets, features = case
    np.testing.assert_allclose(last_layer_norms(probs, targets, features), expected, rtol=1e-9)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda s, t, h: 2 * last_layer_norms(s, t, h),
        lambda s, t, h: np.linalg.norm(s - t, axis=1) * np.linalg.norm(h, axis=1),  # the bias forgotten
        lambda s, t, h: np.linalg.norm(s - t, axis=1) * (np.linalg.norm(h, axis=1) + 1),
        lambda s, t, h: last_layer_norms(s, np.eye(4)[t.argmax(1)], h),  # hard labels for soft ones
    ],
    ids=["factor 2", "no bias", "sum of norms", "hard targets"],
)
def test_wrong_formulas_miss(case, wrong):
    expected, *inputs = case
    assert not np.allclose(wrong(*inputs), expected, rtol=1e-9)


def test_zero_where_the_prediction_is_the_target():
    assert last_layer_norms([[0.25, 0.75]], [[0.25, 0.75]], [[3.0, 4.0]])[0] == 0


def test_shapes_must_fit():
    with pytest.raises(ValueError, match="must be"):
        last_layer_norms([[0.5, 0.5]], [[0.5, 0.5]], [[1.0], [2.0]])
    with pytest.raises(ValueError, match="targets must hold probabilities"):
        last_layer_norms([[0.5, 0.5]], [[0.5, 0.7]], [[1.0]])
