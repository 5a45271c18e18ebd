"""One folder of made-up runs for all tests of the viewer."""

import pytest
from viewer.synthetic import write_world


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Runs in every condition, good ones and broken ones; nobody writes there."""
    return write_world(tmp_path_factory.mktemp("runs"))
