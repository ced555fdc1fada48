import json

import pytest

from ganad.archive.manifest import write_manifest
from ganad.calibration import Calibration
from ganad.errors import ConfigError
from ganad.training.fit import fit
from pipelines.cli.evaluate import evaluate
from pipelines.cli.report import report
from tests.ganad.scores.make_table import MODEL, make_rows, rows_of, write_table


def test_a_page_is_written(tmp_path):
    folder = write_table(str(tmp_path / "t"), {MODEL: make_rows()})
    out = report(folder, str(tmp_path / "page.html"), num_worst=3)
    with open(out, encoding="utf-8") as page:
        assert "The 3 most anomalous images" in page.read()


def test_a_name_that_is_no_page_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^--out page.pdf is not an HTML file"):
        report(str(tmp_path), "page.pdf")


def test_maps_of_a_real_model_in_the_page_and_in_the_figures(image_folder, tmp_path, capsys):
    """From a saved model to heat maps and pixel figures, without anything standing in."""
    path = str(tmp_path / "model")
    train = str(image_folder / "train")
    model = fit("ganomaly", train, out=path, image_size=32, epochs=1, batch_size=8, latent=8)
    assert isinstance(model.calibration, Calibration)
    folder = str(tmp_path / "t")
    manifest = write_manifest([str(image_folder / "test")], f"{folder}/_manifest")
    rows = rows_of(manifest)
    result = model.score([row["uri"] for row in rows])
    for row, score, p_value in zip(rows, result.score, result.p_value, strict=True):
        row |= {"score": float(score), "p_value": float(p_value)}
    models = [{"model": model.id, "path": path, "detector": "ganomaly", "config": {}}]
    place = {"uri": manifest.uri, "digest": manifest.digest, "images": manifest.num_images}
    write_table(folder, {model.id: rows}, models=models, manifest=place)

    report(folder, str(tmp_path / "page.html"))
    html = (tmp_path / "page.html").read_text()
    assert html.count('class="heat"') == 16
    assert "there are no heat maps" not in html
    evaluate(folder, pixels=True, format="json")
    (whole,) = json.loads(capsys.readouterr().out)
    assert 0 <= whole["pixel_auroc"] <= 1
    assert 0 <= whole["aupro"] <= 1
