import tarfile

import numpy as np
import pytest

from ganad.archive.manifest import write_manifest
from ganad.errors import ModelError
from ganad.images.decode import Preprocessing
from ganad.images.load import load_images
from ganad.scores.refetch import calibration_of, fetch, map_provider
from ganad.scores.table import ScoreTable
from ganad.training.fit import fit
from tests.ganad.scores.make_table import MODEL, rows_of, write_table

SMALL = Preprocessing(image_size=16, channels=1)


def scored(folder, manifest, model=MODEL, path="/gone"):
    place = {"uri": manifest.uri, "digest": manifest.digest, "images": manifest.num_images}
    models = [{"model": model, "path": path, "detector": model.split("-")[0]}]
    write_table(folder, {model: rows_of(manifest)}, models=models, manifest=place)
    return ScoreTable(folder)


def test_loose_files_are_fetched_in_order(image_folder, tmp_path):
    manifest = write_manifest([str(image_folder / "test")], str(tmp_path / "t" / "_manifest"))
    table = scored(str(tmp_path / "t"), manifest)
    rows = table.query("SELECT * FROM scores ORDER BY image_id DESC").to_pylist()
    found = fetch(table, rows, SMALL)
    for row, one in zip(rows, found, strict=True):
        assert np.array_equal(one.image, load_images([row], [SMALL])[0][0].image)


def test_members_of_tars_are_found_through_the_manifest(image_folder, tmp_path):
    shard = tmp_path / "shard.tar"
    with tarfile.open(shard, "w") as tar:
        for path in sorted((image_folder / "test").rglob("*.png")):
            tar.add(path, str(path.relative_to(image_folder)))
    manifest = write_manifest([str(shard)], str(tmp_path / "t" / "_manifest"))
    table = scored(str(tmp_path / "t"), manifest)
    rows = table.query("SELECT * FROM scores WHERE member LIKE '%good%'").to_pylist()
    assert len(rows) == 8
    for row, one in zip(rows, fetch(table, rows, SMALL), strict=True):
        loose = {"uri": str(image_folder / row["member"]), "offset": None, "size": None}
        assert np.array_equal(one.image, load_images([loose], [SMALL])[0][0].image)
    for part in (tmp_path / "t" / "_manifest").iterdir():
        part.unlink()
    lost = fetch(table, rows, SMALL)
    assert {one.error for one in lost} == {
        "its place in the file is not known: the manifest is gone"
    }


def test_what_has_vanished_has_an_error(image_folder, tmp_path):
    manifest = write_manifest([str(image_folder / "test")], str(tmp_path / "t" / "_manifest"))
    table = scored(str(tmp_path / "t"), manifest)
    rows = table.query("SELECT * FROM scores LIMIT 2").to_pylist()
    rows[0]["uri"] += ".gone"
    first, second = fetch(table, rows, SMALL)
    assert first.image is None
    assert "no such file" in first.error
    assert second.image is not None


@pytest.fixture(scope="module")
def fitted(image_folder, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("fitted") / "model")
    folder = str(image_folder / "train")
    model = fit("ganomaly", folder, out=out, image_size=32, epochs=1, batch_size=8, latent=8)
    return model, out


def test_maps_are_those_of_the_model_that_scored(image_folder, tmp_path, fitted):
    model, path = fitted
    manifest = write_manifest([str(image_folder / "test")], str(tmp_path / "t" / "_manifest"))
    table = scored(str(tmp_path / "t"), manifest, model.id, path)
    rows = table.query("SELECT * FROM scores ORDER BY image_id LIMIT 3").to_pylist()
    rows[1]["uri"] += ".gone"
    maps = map_provider(table, model.id)(rows)
    expected = model.score([row["uri"] for row in (rows[0], rows[2])], maps=True).maps
    assert maps[1] is None
    np.testing.assert_allclose(maps[0], expected[0])
    np.testing.assert_allclose(maps[2], expected[1])
    found = calibration_of(table, model.id)
    np.testing.assert_array_equal(found.scores, model.calibration.scores)


def test_another_model_in_its_place_is_refused(image_folder, tmp_path, fitted):
    _, path = fitted
    manifest = write_manifest([str(image_folder / "test")], str(tmp_path / "t" / "_manifest"))
    table = scored(str(tmp_path / "t"), manifest, MODEL, path)
    with pytest.raises(ModelError, match=f"holds ganomaly-.* now, not {MODEL} that scored"):
        map_provider(table, MODEL)
    assert calibration_of(table, MODEL) is None


def test_a_model_that_is_gone_is_told(image_folder, tmp_path):
    manifest = write_manifest([str(image_folder / "test")], str(tmp_path / "t" / "_manifest"))
    table = scored(str(tmp_path / "t"), manifest)
    with pytest.raises(ModelError, match="/gone does not exist"):
        map_provider(table, MODEL)
    assert calibration_of(table, MODEL) is None
    with pytest.raises(ModelError, match="does not say where other-0 is"):
        map_provider(table, "other-0")
