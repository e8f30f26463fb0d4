"""A machine with a site configuration."""

from __future__ import annotations

import pytest
from launched_site import Site, make_site


@pytest.fixture
def site(lab, tmp_path) -> Site:
    return make_site(lab, tmp_path)
