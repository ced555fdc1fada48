"""Parts that a disk has damaged are found by the same ganad score, and scored again."""

from pathlib import Path

import pytest

from ganad.errors import TableError
from ganad.scores.table import ScoreTable
from pipelines.score.run import score
from tests.pipelines.processes import parts, scores

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def table(model: str, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight images in parts of two."""
    monkeypatch.setattr("pipelines.score.work.rows_per_unit", lambda *_: 2)
    score([model], [str(image_folder / "test" / "good")], str(tmp_path / "table"), gpu=False)
    return tmp_path / "table"


def cut(data: bytes) -> bytes:
    return data[:3000]


def flipped(data: bytes) -> bytes:
    return data[:2000] + bytes([data[2000] ^ 1]) + data[2001:]


def test_a_truncated_or_flipped_part_is_scored_again(
    table: Path, model: str, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = scores(table)
    first, second, *others = parts(table)
    first.write_bytes(cut(first.read_bytes()))
    second.write_bytes(flipped(second.read_bytes()))
    times = [path.stat().st_mtime_ns for path in others]
    with pytest.raises(TableError, match=r"part-00000\d\.parquet.*run the same ganad score"):
        ScoreTable(str(table)).query("SELECT * FROM scores")
    capsys.readouterr()
    (run,) = score([model], [str(image_folder / "test" / "good")], str(table), gpu=False).values()
    assert "2 damaged parts are scored again, the first: model=" in capsys.readouterr().err
    assert run.timings["images_scored_now"] == 4
    assert scores(table) == before
    assert [path.stat().st_mtime_ns for path in others] == times
    assert ScoreTable(str(table)).check_counts() == []
