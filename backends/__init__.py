"""Launchers that somebody else made, one package each (protocol: :mod:`cdi_hpc.backend`)."""
