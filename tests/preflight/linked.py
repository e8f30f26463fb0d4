"""Libraries with the symbol versions that a test wants, made by the real compiler and linker."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from zlib import crc32

from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

#: Where libraries are in an image and are brought to.
LIBRARIES = "/lib/x86_64-linux-gnu"

#: What the C library of Debian 10 provides of what matters here.
OLD_GLIBC = ("GLIBC_2.2.5", "GLIBC_2.17", "GLIBC_2.28")

#: VER_FLG_WEAK of <elf.h>.
_WEAK = 2


def provider(path: Path, soname: str, versions: Sequence[str], *, flags: Sequence[str] = ()) -> Path:
    """A library that provides versions, the later ones on top of the earlier; without any, one without versions."""
    names = [_symbol(soname, number) for number in range(len(versions))]
    source = "".join(f"int {name}(void) {{ return 0; }}\n" for name in names) or "int f(void) { return 0; }\n"
    script, before = "", ""
    for name, version in zip(names, versions):
        script += f"{version} {{ global: {name}; }} {before};\n"
        before = version
    return _link(path, soname, source, script=script, flags=flags)


def library(
    path: Path,
    needs: Mapping[str, Sequence[str]],
    *,
    soname: str = "",
    run_path: str = "",
    flags: Sequence[str] = (),
) -> Path:
    """A library that needs these versions of these libraries."""
    work = path.parent / f".{path.name}.needs"
    work.mkdir(parents=True, exist_ok=True)
    source, others, number = "", [], 0
    for other, versions in needs.items():
        other_path = provider(work / other, other, versions, flags=flags)
        others.append(str(other_path))
        for index, version in enumerate(versions):
            source += (
                f'extern int g_{number}(void);\n__asm__(".symver g_{number}, {_symbol(other, index)}@{version}");\n'
            )
            source += f"int call_{number}(void) {{ return g_{number}(); }}\n"
            number += 1
    more = [f"-Wl,-rpath,{run_path}", "-Wl,--enable-new-dtags"] if run_path else []
    return _link(path, soname or path.name, source or "int f;\n", flags=[*flags, *more], others=others)


def weaken(path: Path) -> Path:
    """Mark every version that a library needs as weak, which the linker does for few."""
    with path.open("rb") as stream:
        section = next(s for s in ELFFile(stream).iter_sections() if isinstance(s, GNUVerNeedSection))
        auxiliaries = [aux for _, each in section.iter_versions() for aux in each]
        count = len(auxiliaries)
        at = section["sh_offset"]
        data = bytearray(section.data())
    # One library is needed, so its entry is followed by all of its versions (16 bytes each, flags at the fifth).
    for number in range(count):
        struct.pack_into("<H", data, 16 + 16 * number + 4, _WEAK)
    whole = bytearray(path.read_bytes())
    whole[at : at + len(data)] = data
    path.write_bytes(whole)
    return path


def _symbol(soname: str, number: int) -> str:
    """A name for the first symbol of a version: another one in each library."""
    return f"f_{crc32(soname.encode())}_{number}"


def _link(
    path: Path, soname: str, source: str, *, script: str = "", flags: Sequence[str] = (), others: Sequence[str] = ()
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    script_file = path.parent / f".{path.name}.map"
    script_file.write_text(script)
    argv = ["gcc", "-shared", "-fPIC", "-nostdlib", "-x", "c", "-", "-o", path, f"-Wl,-soname,{soname}", *flags]
    argv += [f"-Wl,--version-script={script_file}"] if script else []
    subprocess.run([*argv, "-x", "none", "-Wl,--no-as-needed", *others], input=source, text=True, check=True)
    return path
