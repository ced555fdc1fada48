"""Records: whatever is in the file, one clear line or the record that was written."""

import json
import random

import pytest
from pydantic import Field

from ganad.errors import ArchiveError, ModelError
from ganad.storage import files as storage
from ganad.storage.records import Record, read_record, write_record

REMEDY = "make it again"


class Card(Record):
    name: str
    num: int = Field(ge=0, alias="number")
    parts: tuple[tuple[str, int], ...] = ()


CARD = Card(name="ä", num=3, parts=(("a", 1), ("b", 2)))


@pytest.fixture
def file(tmp_path):
    write_record(str(tmp_path / "card.json"), CARD)
    return tmp_path / "card.json"


def test_what_is_written_is_read(file):
    assert read_record(str(file), Card, REMEDY) == CARD
    info = json.loads(file.read_text())
    assert info["number"] == 3
    assert len(info["checksum"]) == 16


def test_a_file_without_a_checksum_is_read_and_further_keys_are_ignored(file):
    file.write_text('{"name": "x", "number": 1, "later": [null]}')
    assert read_record(str(file), Card, REMEDY) == Card(name="x", num=1)


def test_any_changed_byte_is_noticed(file):
    whole, rng = file.read_bytes(), random.Random(0)
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        try:
            found = read_record(str(file), Card, REMEDY)
        except ArchiveError as error:
            message = str(error)
            assert message.startswith(f"{file}: is damaged (")
            assert message.endswith("; make it again")
            assert "\n" not in message
        else:  # white space, or the key of the checksum itself
            assert found == CARD


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"name": null, "number": 1}',
        b'{"name": "x"}',
        b'{"name": "x", "number": -1}',
        b'{"name": "x", "number": 1e400}',
        b'{"name": "x", "number": NaN}',
        b'{"name": "x", "number": 1, "parts": [["a"]]}',
        b"[" * 200_000,
        b'{"name":' * 200_000,
        b'{"name": "\xff", "number": 1}',
        b"\x00" * 100,
    ],
)
def test_whatever_is_in_the_file_there_is_one_line(file, data):
    file.write_bytes(data)
    with pytest.raises(ModelError) as caught:
        read_record(str(file), Card, REMEDY, ModelError)
    message = str(caught.value)
    assert message.startswith(f"{file}: is damaged (")
    assert message.endswith("; make it again")
    assert "\n" not in message
    assert len(message) < len(str(file)) + 300


def test_a_missing_file_is_not_called_damaged(tmp_path):
    with pytest.raises(ArchiveError, match="there is no such file"):
        read_record(str(tmp_path / "none.json"), Card, REMEDY)


def test_a_file_without_end_is_not_read_whole(file, monkeypatch):
    monkeypatch.setattr("ganad.storage.records.MAX_BYTES", 100)
    storage.write_bytes(str(file), b" " * 1000)
    with pytest.raises(ArchiveError, match="it is larger than 100 bytes"):
        read_record(str(file), Card, REMEDY)
