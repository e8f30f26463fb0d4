"""The lab as fixtures, and the rules of this suite: nothing is skipped without a reason that is written down."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says more about the machine than about the program.
settings.register_profile("no deadline", deadline=None)
# A finding of chance belongs to who looks for one, not to whoever pushes next.
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "no deadline")

#: Written by the recipe of the lab's host: where it exists, the tests run on that host.
HOST_MARK = Path("/etc/cdi-hpc-lab")

MARKERS = (
    "root: root is the point of this test; scripts/test runs these in a second call, as root",
    "impossible_in_ci(reason): may be skipped in CI, for this reason",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite golden files with what the program says now: the diff is the review",
    )
    parser.addoption(
        "--slurm-cluster",
        choices=("local", "docker"),
        default="local",
        help="where tests of jobs that need no plugin get their cluster: daemons of this machine, or pytest-slurm's "
        "containers (extra slurm-docker; takes a Docker engine) [local]",
    )


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    # Who starts the tests in the background may ignore these (nohup(1), a shell's &), and programs would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.fail("root is the point of this test (run scripts/test as root, or select with -m 'not root')")


def in_ci() -> bool:
    return os.environ.get("CI") == "true"


def may_skip(item: pytest.Item) -> bool:
    """Whether a reason is given why this cannot run in CI."""
    marker = item.get_closest_marker("impossible_in_ci")
    reason = marker and (marker.kwargs.get("reason") or (marker.args and marker.args[0]))
    return bool(reason)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """In CI a skip and an expected failure are failures: a test that does not run is not green."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and in_ci() and not may_skip(item):
        report.outcome = "failed"
        report.longrepr = f"did not run: {skip_reason(report)} (skipping in CI takes the marker impossible_in_ci)"
        # With this attribute the terminal counts it as an expected failure still.
        vars(report).pop("wasxfail", None)


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """As above for a file that skips itself."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and in_ci():
        report.outcome = "failed"
        report.longrepr = f"not collected: {skip_reason(report)}"


def skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if hasattr(report, "wasxfail"):
        return f"expected to fail: {report.wasxfail}"
    return str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)


@dataclass(frozen=True)
class Lab:
    """The lab (tests/lab) as seen from its host, where the test itself is a process.

    Attributes:
        root: the stages that tests/lab/build made.
        canary: the directory that the links of the image ``hostile`` point at; the tests' user may write to it.

    """

    root: Path
    canary: Path = Path("/srv/canary")

    @property
    def oracle(self) -> Path:
        """The reference library as a program: one JSON request a line, one JSON answer a line."""
        return self.root / "oracle" / "oracle"

    def image(self, name: str) -> Path:
        """An image: a root directory (debian-root, debian-user, bare, links, musl, hostile, loops) or a file
        (debian.sqfs, debian-user.sqfs, musl.sqfs, debian.sif)."""
        path = self.root / "images" / name
        assert path.exists(), f"no image {name!r} in {path.parent}"
        return path

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        stdin: str = "",
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host as the test's own user; ``env`` is added to the environment."""
        return subprocess.run(
            [str(argument) for argument in argv],
            env={**os.environ, **(env or {})},
            cwd=cwd,
            input=stdin,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout,
            check=False,
        )

    def canary_state(self) -> dict[str, str]:
        """What is in the canary directory: name -> digest, type and mode. Equal before and after, or something
        reached out of an image."""
        return {
            str(path.relative_to(self.canary)): f"{path.lstat().st_mode:o} {sha256(content_of(path)).hexdigest()}"
            for path in sorted(self.canary.rglob("*"))
        }


def content_of(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


@pytest.fixture(scope="session")
def lab() -> Lab:
    if not HOST_MARK.is_dir():
        pytest.fail(
            "this test runs on the lab's host (run scripts/test, or tests/lab/enter python -m pytest ...)",
            pytrace=False,
        )
    return Lab(Path(os.environ["CDI_HPC_LAB"]))


@pytest.fixture
def canary(lab: Lab) -> Iterator[Path]:
    """The canary directory; the test fails if anything in it changes."""
    before = lab.canary_state()
    yield lab.canary
    assert lab.canary_state() == before
