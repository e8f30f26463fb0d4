"""Options of the tests that write plans in other languages."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite golden files with what the program says now (pytest tests/render --update-golden)",
    )


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    # The option is unknown when another directory was named on the command line.
    return bool(request.config.getoption("--update-golden", default=False))
