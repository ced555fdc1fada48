"""A real scoring job over the corpus of odd images, loose and in a tar: none stops it, none is
missing, and each comes to what is expected of it."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from ganad.scores.table import ScoreTable
from pipelines.cli.app import main
from pipelines.score.run import score
from pipelines.train.request import TrainRequest
from pipelines.train.run import train
from tests.ganad.images.odd_images import write_corpus

SMALL: dict[str, Any] = {
    "image_size": 16,
    "channels": 3,
    "width": 8,
    "latent": 10,
    "batch_size": 8,
    "epochs": 1,
}
PLACES = ("loose/", "shard.tar#")


@pytest.mark.usefixtures("ray_cluster")
def test_every_odd_image_has_its_outcome(image_folder: Path, tmp_path: Path) -> None:
    model, table = str(tmp_path / "model"), str(tmp_path / "table")
    train(
        TrainRequest(
            "ganomaly", (str(image_folder / "train"),), model, values=SMALL, workers=1, gpu=False
        )
    )
    archive = tmp_path / "archive"
    corpus = write_corpus(archive / "loose")
    with tarfile.open(archive / "shard.tar", "w") as tar:
        for odd in corpus.values():
            info = tarfile.TarInfo(odd.name)
            info.size = len(odd.data)
            tar.addfile(info, io.BytesIO(odd.data))
    (archive / "loose" / "dangling.png").symlink_to(tmp_path / "nowhere")
    (archive / "loose" / "folder.png").mkdir()  # no image, and no error
    strange = archive / "loose" / "line\nbreak 'quote' 100% #1 ä.png"
    strange.write_bytes(corpus["alpha.png"].data)
    (run,) = score([model], [f"{archive}/*"], table, gpu=False).values()

    rows = ScoreTable(table).query("SELECT * FROM scores").to_pylist()
    found = {row["name"]: row for row in rows}
    expected = {f"{place}{name}": odd for name, odd in corpus.items() for place in PLACES}
    assert found.keys() == {*expected, "loose/dangling.png", f"loose/{strange.name}"}
    assert len(rows) == len(found)
    for name, odd in expected.items():
        row = found[name]
        if odd.error is None:
            assert row["error"] is None, row
            assert (row["width"], row["height"]) == odd.size
            assert row["score"] is not None
        else:
            assert row["score"] is None, row
            assert row["error"].startswith(odd.error), row
    assert found["loose/dangling.png"]["error"].startswith("cannot be fetched: there is no such")
    assert found[f"loose/{strange.name}"]["score"] == found["loose/alpha.png"]["score"]
    for name in corpus:  # a score depends on the image alone
        assert found[f"loose/{name}"]["score"] == found[f"shard.tar#{name}"]["score"]
    num_bad = sum(odd.error is not None for odd in expected.values()) + 1
    assert (run.counts["in"], run.counts["failed"]) == (len(rows), num_bad)
    assert sum(run.failure_kinds.values()) == num_bad


@pytest.mark.usefixtures("ray_cluster")
def test_a_cut_shard_among_others_is_a_row_and_the_exit_status_and_show_tell(
    model: str, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = sorted(image_folder.rglob("good/*.png"))[:6]
    for number in range(3):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for image in images[2 * number : 2 * number + 2]:
                tar.add(image, f"{number}{image.name}")
    cut = tmp_path / "1.tar"
    cut.write_bytes(cut.read_bytes()[:2000])  # in the first image
    table = str(tmp_path / "table")
    with pytest.raises(SystemExit) as end:
        main(["score", model, f"{tmp_path}/*.tar", "--out", table, "--no-gpu"])
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert f"{tmp_path}/1.tar: could not be listed completely: is damaged or not a tar" in said
    assert f"{tmp_path}/*.tar: 1 of its shards could not be listed completely" in said
    rows = ScoreTable(table).query("SELECT name, error FROM scores").to_pylist()
    errors = {row["name"]: row["error"] for row in rows}
    assert len(errors) == 6
    assert errors.pop("1.tar").startswith("is damaged or not a tar file")
    assert errors.pop(f"1.tar#1{images[2].name}").startswith("truncated: the archive ends before")
    assert set(errors.values()) == {None}
    with pytest.raises(SystemExit):
        main(["show", table])
    assert "1 of the shards, so images are missing" in capsys.readouterr().out
