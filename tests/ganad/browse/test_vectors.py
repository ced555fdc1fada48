"""Near duplicates are grouped under the worst of them."""

import numpy as np

from ganad.browse.selection import Rows, Selection
from ganad.browse.vectors import Vectors, grouped
from tests.ganad.scores.make_table import MODEL


def unit(*values):
    vector = np.array(values, np.float32)
    return vector / np.linalg.norm(vector)


def test_alike_images_join_the_first_of_them():
    vectors = [unit(1, 0), unit(0, 1), None, unit(1, 0.1), unit(0.1, 1), np.zeros(2, np.float32)]
    assert grouped(vectors) == [[0, 3], [1, 4], [2], [5]]


def test_an_image_is_like_itself_and_one_that_is_gone_has_no_vector(table):
    rows = Rows(table)
    shown = rows.page(Selection(MODEL, size=96))
    vectors = Vectors(table, rows.typical(MODEL, 20)).of([*shown, shown[0]])
    gone = [row["name"] for row, one in zip(shown, vectors, strict=False) if one is None]
    assert gone == ["good/004.png"]
    assert grouped([vectors[0], vectors[-1]]) == [[0, 1]]
    similar = Vectors(table, rows.typical(MODEL, 20)).similar(shown[0])
    assert 1 <= len(similar) <= 6
    assert shown[0]["image_id"] not in {row["image_id"] for row in similar}
