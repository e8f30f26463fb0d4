"""Environment variables that several modules read, by themselves: a shell that completes a word imports little."""

from __future__ import annotations

#: Devices where no option asks for any, separated by commas.
DEVICES_VARIABLE = "CDI_HPC_DEVICES"

#: What is to be done about libraries that can't work in the image: ``fail``, ``warn`` or ``off``.
PREFLIGHT_VARIABLE = "CDI_HPC_PREFLIGHT"
