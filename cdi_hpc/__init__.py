"""Container Device Interface specs for launchers that need no root."""

__version__ = "0.1.0"
