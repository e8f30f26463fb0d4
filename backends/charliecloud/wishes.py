"""What the options of an invocation ask of the image, where that changes what we do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cdi_hpc.backend import Invocation, Profile
from cdi_hpc.errors import CdiError, Problem

#: Size of what is written to an image with --write-fake, of the memory, where none is given (bin/ch-run.c).
_DEFAULT_SIZE = "12%"

_SIZE = re.compile(r"[0-9]+[kKmMgGtTpPeE%]?\Z", re.ASCII)


@dataclass(frozen=True)
class Wishes:
    """An invocation's options, asked by name.

    Attributes:
        has_write_fake: ch-run can lay a tmpfs over the image, and does so for ``--home``, too.

    """

    invocation: Invocation
    environ: Mapping[str, str]
    has_write_fake: bool

    @staticmethod
    def of(invocation: Invocation, profile: Profile, environ: Mapping[str, str]) -> Wishes:
        """Those of an invocation of this ch-run."""
        return Wishes(invocation, environ, dict(profile.capabilities).get("write-fake") == "yes")

    def numbers(self, *names: str) -> list[int]:
        """Places of these options among those given."""
        return [n for n, given in enumerate(self.invocation.given) if set(names).intersection(given.option.names)]

    def has(self, name: str) -> bool:
        """Whether an option was given."""
        return bool(self.numbers(name))

    def values(self, name: str) -> list[str]:
        """Values that were given for an option; "" where none was."""
        return [self.invocation.given[n].value or "" for n in self.numbers(name)]

    @property
    def home_on_fake(self) -> bool:
        """``--home`` makes the image writable, which ch-run can't do with ours: its overlay takes no mounts below."""
        return self.has_write_fake and self.has("--home")

    @property
    def fake_size(self) -> str | None:
        """Size of the tmpfs for what is written to the image, as tmpfs(5) has it; None without one.

        Raises:
            CdiError: it is none.

        """
        sizes = self.values("--write-fake")
        if not sizes and not self.home_on_fake:
            return None
        size = (sizes and sizes[-1]) or _DEFAULT_SIZE
        if not _SIZE.match(size):
            raise CdiError(Problem(f"--write-fake={size}", "is no size of a file system", "write 500m, 2g or 12%"))
        return size

    @property
    def writes_through(self) -> bool:
        """What is written goes to the image itself."""
        return self.has("--write") and self.fake_size is None
