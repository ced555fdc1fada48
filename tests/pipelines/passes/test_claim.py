from pathlib import Path

import pytest

from ganad.errors import ArchiveError, Mismatch
from pipelines.passes.claim import claim


def test_a_folder_is_claimed_for_one_work_and_damage_is_told(tmp_path: Path) -> None:
    def claimed(**work: object) -> None:
        claim(str(tmp_path), "job.json", {"manifest": "abc", **work}, "out", "give another --out")

    for _ in range(2):
        claimed(config={"width": 3})
    with pytest.raises(Mismatch, match=r"^out holds .* \(config.width was 3, now 4\): give"):
        claimed(config={"width": 4})
    file = tmp_path / "job.json"
    written = file.read_text()
    for text in (written.replace("3", "4"), written[:-5], "[]", "null", "[" * 200_000):
        file.write_text(text)
        with pytest.raises(ArchiveError, match=r"job.json: is damaged .*; delete it, and run"):
            claimed(config={"width": 4})
    file.write_text('{"manifest": "abc"}')  # of an earlier version, without a checksum
    claimed()
