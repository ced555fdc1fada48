"""What tests of engines need of a machine."""

import pytest

from ganad.engines import openvino

needs_openvino = pytest.mark.skipif(
    openvino.available() is not None, reason="no OpenVINO: pip install 'ganad[openvino]'"
)
