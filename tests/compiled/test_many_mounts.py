"""A plan for as many devices and mounts as anybody will ask for."""

from __future__ import annotations

import pytest
from compiled_launch import KIND, Site

DEVICES, MOUNTS = 1000, 2000


def write_many(site: Site, devices: int, mounts: int) -> None:
    """Each device has its own mounts; there are a few directories of them, as drivers have."""
    (site.driver / "many").mkdir()
    for number in range(mounts):
        (site.driver / "many" / f"{number}").write_text(f"{number}\n")
    lines = ["cdiVersion: 0.6.0", f"kind: {KIND}", "devices:"]
    for device in range(devices):
        lines += [f"- name: d{device}", "  containerEdits:", f"    env: [DEVICE_{device}=yes]", "    mounts:"]
        for number in range(device, mounts, devices):
            target = f"/opt/many/{number % 17}/{number}"
            lines.append(f"    - {{hostPath: {site.driver}/many/{number}, containerPath: {target}, options: [ro]}}")
    (site.specs / "lab.yaml").write_text("\n".join(lines) + "\n")
    site.devices = (f"{KIND}=all",)


@pytest.mark.parametrize("stage", ["overlay", "underlay"])
def test_thousands_of_mounts_are_all_there(site, stage):
    write_many(site, DEVICES, MOUNTS)
    site.more = (f"--stage={stage}",)
    command = ["sh", "-c", "cat /opt/many/*/* | sort | md5sum; set -- /opt/many/*/*; echo $#; env | sort | md5sum"]
    first, second = site.launch(*command), site.launch(*command)
    assert (first.returncode, first.stderr) == (0, b"")
    assert first.stdout == second.stdout
    assert first.stdout.split()[2] == f"{MOUNTS}".encode()
    expected = site.launch(*command, python=True)
    assert (expected.returncode, expected.stdout) == (0, first.stdout)
