import pytest
import torch

from ganad.batch.fixed import fixed


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 1, 4, 4)])
def test_a_short_batch_is_filled_with_its_last_row(shape):
    rows = torch.arange(torch.Size(shape).numel()).reshape(shape)
    batch, num = fixed(rows, 5)
    assert num == 3
    assert torch.equal(batch, torch.stack([*rows, rows[-1], rows[-1]]))


def test_a_whole_batch_is_not_copied():
    rows = torch.zeros(4, 2)
    batch, num = fixed(rows, 4)
    assert num == 4
    assert batch is rows


@pytest.mark.parametrize("num", [0, 5])
def test_rows_that_do_not_fit_are_an_error(num):
    with pytest.raises(ValueError, match=f"^{num} rows do not fit a batch of 4: give 1 to 4$"):
        fixed(torch.zeros(num, 2), 4)
