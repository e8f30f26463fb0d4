"""pyelftools, as far as it is used, imported at half its price.

The library carries a parser framework whose debugging aid imports pdb, and with it (since Python 3.13) asyncio: 20 ms
of a launch for a class that nobody asks for. While the framework is imported, an empty module stands for pdb.
"""

from __future__ import annotations

import sys
from types import ModuleType

_absent = "pdb" not in sys.modules
if _absent:
    sys.modules["pdb"] = ModuleType("pdb")
try:
    from elftools.common.exceptions import ELFError
    from elftools.common.utils import struct_parse
    from elftools.elf.constants import E_FLAGS
    from elftools.elf.enums import ENUM_D_TAG_COMMON, ENUM_P_TYPE_BASE
    from elftools.elf.structs import ELFStructs
finally:
    if _absent:
        del sys.modules["pdb"]

__all__ = ["ENUM_D_TAG_COMMON", "ENUM_P_TYPE_BASE", "E_FLAGS", "ELFError", "ELFStructs", "struct_parse"]
