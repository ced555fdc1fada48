"""A frozen network without its batch-norms gives what it gave with them."""

import copy

import pytest
import torch
from torch import nn

from ganad.features.backbone import FeatureExtractor
from ganad.features.folding import folded


def extractor(name: str) -> FeatureExtractor:
    """With batch-norms that do something."""
    made = FeatureExtractor(name, 32, weights="random")
    generator = torch.Generator().manual_seed(1)
    for norm in norms(made.network):
        norm.running_mean.normal_(0, 0.1, generator=generator)
        norm.running_var.uniform_(0.5, 2, generator=generator)
        norm.weight.data.uniform_(0.5, 2, generator=generator)
        norm.bias.data.normal_(0, 0.1, generator=generator)
    return made


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]


def images(num: int = 2) -> torch.Tensor:
    return torch.rand(num, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(
    ("name", "num_left"), [("efficientnet_b0", 0), ("resnet18", 0), ("densenet121", 62)]
)
def test_the_features_are_those_of_the_network_as_it_is(name, num_left):
    made = extractor(name)
    with torch.no_grad():
        found = made(images())
        (fast,) = made._fast
        made._fast[:] = [made.network]
        expected = made(images())
    assert len(norms(fast)) == num_left < len(norms(made.network))
    for level, vectors in expected.items():
        rounding = 1e-5 * float(vectors.abs().max())
        torch.testing.assert_close(found[level], vectors, rtol=0, atol=rounding)


class Odd(nn.Module):
    """Its convolution's output is used beside the batch-norm too, which folding would change."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.norm.running_mean.fill_(0.5)

    def forward_features(self, x):
        given = self.conv(x)
        return given + self.norm(given)


def test_a_network_that_folding_would_change_is_left_as_it_is():
    made = FeatureExtractor("resnet18", 32, weights="random", levels=["stem"])
    made.network = Odd().eval()
    made._paths = {"stem": "conv"}
    assert not torch.equal(
        folded(made.network, images()).conv(images()), made.network.conv(images())
    )
    with torch.no_grad():
        made(images())
    assert made._fast == [made.network]


def test_new_weights_are_seen_and_the_state_holds_no_copy():
    made, other = extractor("resnet18"), extractor("resnet18")
    with torch.no_grad():
        before = made(images())
        for parameter in other.parameters():
            parameter.mul_(1.1)
        keys = list(other.state_dict())
        assert list(made.state_dict()) == keys
        made.load_state_dict(other.state_dict())
        torch.testing.assert_close(made(images()), other(images()))
        assert not torch.equal(made(images())["layer4"], before["layer4"])
        copied = copy.deepcopy(made)
        copied.load_state_dict(extractor("resnet18").state_dict())
        assert made._fast
        torch.testing.assert_close(copied(images()), before)
