"""Write a CycloneDX 1.5 list of parts for a directory of packages: sbom.py DIRECTORY FILE.

What is inside of our files and not ours (the library that is brought along, the libc that the runner is linked with),
and what Debian's packages ask for, in the versions that are here. Run in the tree that the packages were built in. The
document is small and has one shape, so it is written as it is; a library for it would bring ten more.

The format: https://cyclonedx.org/docs/1.5/json/. Package URLs: https://github.com/package-url/purl-spec.
"""

# ruff: noqa: INP001 - a program
from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

#: Parts of our own files: Debian package -> (its part, SPDX licence).
LINKED = {"libc6-dev": ("glibc", "LGPL-2.1-or-later")}

NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # of URLs, RFC 9562


def ask(*argv: str | Path) -> str:
    """What a command prints."""
    return subprocess.run([*map(str, argv)], capture_output=True, text=True, check=True).stdout.strip()


def component(kind: str, name: str, version: str, purl: str, licence: str) -> dict[str, Any]:
    """A part."""
    licences = [{"license": {"id": licence}}] if licence else []
    part = {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl, "licenses": licences}
    return {key: value for key, value in part.items() if value}


def linked() -> list[dict[str, Any]]:
    """Libraries in the runner."""
    parts = []
    for package, (name, licence) in LINKED.items():
        version = ask("dpkg-query", "--show", "--showformat=${Version}", package)
        parts.append(component("library", name, version, f"pkg:deb/debian/{name}@{version}?arch=source", licence))
    return parts


def vendored(directory: Path) -> list[dict[str, Any]]:
    """Libraries beside our modules."""
    pins = re.findall(
        r"^([A-Za-z0-9_.-]+)==([^ ]+)", (Path(__file__).parent / "vendored.txt").read_text(), re.MULTILINE
    )
    for name, version in pins:
        if not (directory / f"{name.lower()}-{version}.tar.gz").is_file():
            sys.exit(f"sbom: no {name.lower()}-{version}.tar.gz in {directory}")
    return [component("library", n, v, f"pkg:pypi/{n.lower()}@{v}", "LGPL-2.1-only") for n, v in pins]


def required(package: Path) -> list[dict[str, Any]]:
    """What a Debian package depends on and is installed here."""
    depends = ask("dpkg-deb", "--field", package, "Depends")
    names = sorted(set(re.findall(r"(?:^|, )([a-z0-9.+-]+)", depends)))
    parts = []
    for name in names:
        shown = subprocess.run(
            ["dpkg-query", "--show", "--showformat=${Version}", name], capture_output=True, text=True, check=False
        ).stdout
        version = shown.strip()
        part = component("library", name, version, f"pkg:deb/debian/{name}{'@' if version else ''}{version}", "")
        parts.append({**part, "scope": "required"})
    return parts


def document(directory: Path) -> dict[str, Any]:
    """The list."""
    (package,) = (directory / "bookworm").glob("cdi-hpc_*.deb")
    version = ask("dpkg-deb", "--field", package, "Version").partition("-")[0]
    top = f"pkg:generic/cdi-hpc@{version}"
    parts = [*vendored(directory), *linked(), *required(package)]
    date = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, json.dumps(parts, sort_keys=True))}",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", date),
            "component": component("application", "cdi-hpc", version, top, "Apache-2.0"),
        },
        "components": parts,
        "dependencies": [{"ref": top, "dependsOn": [part["bom-ref"] for part in parts]}],
    }


def main(directory: str, file: str) -> None:
    """Write it."""
    Path(file).write_text(json.dumps(document(Path(directory)), indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
