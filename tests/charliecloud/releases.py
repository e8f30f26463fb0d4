"""Releases of ch-run as far as the backend looks at them, for tests that need none installed."""

from __future__ import annotations

from collections.abc import Sequence

from cdi_hpc.backend import Invocation, Profile
from cdi_hpc.backends.charliecloud import options
from cdi_hpc.launch import launcher_options

_EARLY = """
  -b, --bind=X
  -c, --cd=X
      --env-no-expand
      --home
  -j, --join
      --join-ct=X
      --join-pid=X
      --join-tag=X
  -m, --mount=X
      --no-passwd
      --set-env[=X]
  -s, --storage=X
  -t, --private-tmp
      --unset-env=X
  -v, --verbose
  -w, --write
"""

_LATE = """
  -q, --quiet
  -W, --write-fake[=X]
"""


def _profile(text: str, write_fake: str) -> Profile:
    table = options.option_table(text)
    return Profile(
        "charliecloud",
        "/usr/bin/ch-run",
        "getopt",
        table,
        capabilities=(("set-env", "yes"), ("write-fake", write_fake)),
    )


#: Without a tmpfs over the image, and with one.
EARLY = _profile(_EARLY, "no")
LATE = _profile(_EARLY + _LATE, "yes")


def invocation(words: Sequence[str], profile: Profile = LATE) -> Invocation:
    """What the words mean."""
    found = launcher_options.read(words, profile, wanted=True)
    assert isinstance(found, Invocation)
    return found
