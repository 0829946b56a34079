"""Decoders on encoders against the libraries that publish weights of them: `pytest -m parity`."""

import pytest
from parity.pairs import PAIRS, deviation, prepared

from jaxvision.errors import UserError

pytestmark = pytest.mark.parity
pytest.importorskip("torch", reason="needs PyTorch; see tests/parity/README.md")


@pytest.mark.parametrize("name", PAIRS)
def test_equal_or_refused(name):
    pair = PAIRS[name]
    network = prepared(pair)
    for size in pair.sizes:
        if pair.refused:
            with pytest.raises(UserError, match=pair.refused):
                deviation(pair, network, size)
        else:
            assert deviation(pair, network, size) < 1e-4
