"""Generate again whenever devices come or go."""

from __future__ import annotations

import time
from typing import Any, Callable

from cdi_hpc.generate.machine import udev_context

#: A driver that is loaded makes many devices: wait until it has been quiet for so long, but no longer than the second.
_QUIET = 1.0
_LONGEST = 10.0


def watch(again: Callable[[], object], *, wait: Callable[[Any], None] | None = None) -> None:
    """Call ``again`` after every burst of the kernel's device events, for ever.

    Events of all subsystems count: a recipe may look at paths, of which nobody knows the subsystem. The kernel's own
    events are used, not udev's: modules such as NVIDIA's make nodes that udevd never hears of.

    Args:
        again: is called once at the start, when events are already being listened to, and after each burst.
        wait: waits for the end of a burst on a monitor; for tests.

    Raises:
        CdiError: pyudev is not installed.

    """
    import pyudev

    monitor = pyudev.Monitor.from_netlink(udev_context(), source="kernel")
    monitor.start()
    again()
    while True:
        monitor.poll()
        (wait or _wait_for_quiet)(monitor)
        again()


def _wait_for_quiet(monitor: Any) -> None:
    deadline = time.monotonic() + _LONGEST
    while time.monotonic() < deadline and monitor.poll(timeout=_QUIET) is not None:
        pass
