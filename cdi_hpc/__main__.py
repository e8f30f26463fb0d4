"""``python -m cdi_hpc``."""

from cdi_hpc.cli import main

main()
