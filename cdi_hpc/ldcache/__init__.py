"""The dynamic loader's cache for a container, worked out without ldconfig and without writing to the image."""

from __future__ import annotations

from cdi_hpc.ldcache.format import CorruptCacheError, Entry, entries
from cdi_hpc.ldcache.scan import Link
from cdi_hpc.ldcache.update import File, Update, update
from cdi_hpc.ldcache.view import DirectoryView, Listed, Status, View

__all__ = [
    "CorruptCacheError",
    "DirectoryView",
    "Entry",
    "File",
    "Link",
    "Listed",
    "Status",
    "Update",
    "View",
    "entries",
    "update",
]
