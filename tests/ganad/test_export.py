"""A model as one file gives the model's scores, to programs that do not know ganad."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganad.calibration import Calibration
from ganad.detectors.base import StatisticsDetector
from ganad.engines import onnx, program
from ganad.errors import ArchiveError, ConfigError, EngineError
from ganad.export import export
from ganad.model import Model, load
from tests.ganad.detectors.small import random_images, small

README = Path(__file__).parents[2] / "ganad" / "engines" / "README.md"
needs_onnx = pytest.mark.skipif(
    onnx.available() is not None, reason="no ONNX Runtime: pip install 'ganad[onnx]'"
)
formats = pytest.mark.parametrize(
    ("suffix", "module"), [(".pt2", program), pytest.param(".onnx", onnx, marks=needs_onnx)]
)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for number in range(24):
        pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder


def saved(name: str, folder: Path, **keys: object) -> str:
    """A small model with 30 calibration images; its detector is fitted to random ones."""
    detector = small(name, **{"channels": 3, "precision": "float32", **keys})
    images = random_images(40, 3, detector.config.image_size)
    if isinstance(detector, StatisticsDetector):
        detector.finish(detector.observe(detector.begin(images), images))
    scores = detector.eval().score(images[:30], list(map(str, range(30)))).score
    return Model(detector, Calibration(scores, tuple(map(str, range(30))))).save(str(folder))


@pytest.mark.slow
@formats
@pytest.mark.parametrize(
    ("name", "keys", "outputs", "batch"),
    [
        (
            "ganomaly",
            {"image_size": 48, "patch": {"size": 32, "pool": "top_k"}},
            ("score", "heat_map"),
            1,
        ),
        ("gaussian", {}, ("score",), None),
    ],
)
def test_the_file_gives_the_scores_and_maps_of_the_model(
    name, keys, outputs, batch, suffix, module, photographs, tmp_path
):
    model = saved(name, tmp_path / "model", **keys)
    out = tmp_path / f"model{suffix}"
    done = export(model, str(out), source=str(photographs))
    assert (done.outputs, done.batch) == (outputs, batch)
    assert done.agreement.n == 24
    size = keys.get("image_size", 32)
    for num in (1, 5) if batch is None else (1,):
        images = random_images(num, 3, size)
        found = module.load(out)(images)
        expected = load(model).detector.score(images, maps=len(outputs) > 1)
        np.testing.assert_allclose(found[0], expected.score, rtol=1e-4)
        if expected.maps is not None:
            np.testing.assert_allclose(found[1], expected.maps, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_method_that_fixes_the_number_of_images_takes_one(photographs, tmp_path):
    model = saved("ocsvm", tmp_path / "model")
    done = export(model, str(tmp_path / "model.pt2"), source=str(photographs))
    assert done.batch == 1


@needs_onnx
def test_what_onnx_lacks_is_refused(photographs, tmp_path):
    model = saved("dictionary", tmp_path / "model")
    out = tmp_path / "model.onnx"
    with pytest.raises(EngineError, match="dictionary has .* onnx lacks: use --format torch --out"):
        export(model, str(out), source=str(photographs))
    assert not out.exists()


def test_gradients_cannot_be_exported(photographs, tmp_path):
    model = saved("anogan", tmp_path / "model")
    out = tmp_path / "model.pt2"
    with pytest.raises(EngineError, match="anogan follows gradients while it scores, which no fi"):
        export(model, str(out), source=str(photographs))
    assert not out.exists()


def test_scores_that_differ_are_not_written(photographs, tmp_path, monkeypatch):
    reading = program.load

    def off(file):
        run = reading(file)
        return lambda images: [run(images)[0] * 1.01]

    monkeypatch.setattr(program, "load", off)
    out = tmp_path / "model.pt2"
    with pytest.raises(EngineError, match="so no file is written: train it with --set precision"):
        export(saved("autoencoder", tmp_path / "model"), str(out), source=str(photographs))
    assert not out.exists()


def test_what_is_typed_wrong_is_named(photographs, tmp_path):
    model = saved("autoencoder", tmp_path / "model")
    for out, kind, said in (
        ("m.tflite", None, r"--out m.tflite: give a file that ends in .pt2 \(torch\) or .onnx"),
        ("m.onnx", "torch", r"--out m.onnx: give a file that ends in .pt2 \(torch\)$"),
        ("m.pt2", "coreml", "--format coreml: use one of torch, onnx"),
    ):
        with pytest.raises(ConfigError, match=said):
            export(model, out, kind)
    with pytest.raises(ArchiveError, match="0 can be read, and 20 are needed .* by --source"):
        export(model, str(tmp_path / "m.pt2"))


@pytest.mark.slow
@needs_onnx
def test_the_lines_of_the_readme_run_without_ganad(photographs, tmp_path):
    model = saved("autoencoder", tmp_path / "model", image_size=64)
    for suffix in (".pt2", ".onnx"):
        export(model, str(tmp_path / f"model{suffix}"), source=str(photographs))
    Image.open(photographs / "03.png").save(tmp_path / "part.png")
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    program = "\n".join([*blocks, "import sys", "assert 'ganad' not in sys.modules"])
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    shown = [float(one) for one in re.findall(r"\[([\d.e+-]+)", done.stdout)]
    expected = load(model).score(str(tmp_path / "part.png")).score[0]
    np.testing.assert_allclose(shown, [expected, expected], rtol=1e-3)  # four digits
