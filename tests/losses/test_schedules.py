import pytest

from nnunet_cmc.losses import alpha, beta


def test_numbers_of_the_paper():
    assert [alpha(t, 200) for t in (0, 100, 200)] == pytest.approx([6.7379e-4, 8.2085e-3, 0.1], rel=1e-4)
    assert [beta(t, 200) for t in (0, 100, 200)] == pytest.approx([0.1, 8.2085e-3, 6.7379e-4], rel=1e-4)
