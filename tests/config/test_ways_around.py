"""Ways around a site's rules that somebody may try with a spec, an alias or a name: none gains anything.

Where the rules themselves are only advice is another question: docs/configuration.md, "Who can get around it".
"""

from __future__ import annotations

import errno

import pytest
from fake_host import host
from policy_cases import ALICE, link, mount, node, planned, policy, refusals, spec

from cdi_hpc.errors import CdiError
from cdi_hpc.site.aliases import Alias, expand
from cdi_hpc.site.policy import enforce
from cdi_hpc.spec.model import Hook, Mount

CLOSED = policy(
    kinds=[{"deny": "secret.org/*"}],
    devices=[{"deny": "nvidia.com/gpu=0"}],
    mount_sources=[{"deny": ["/etc/shadow", "/dev/sd*"]}],
    mount_targets=[{"deny": ["/etc/passwd", "/usr/bin/**"]}],
    environment=[{"deny": ["LD_PRELOAD", "PATH=*evil*"]}],
)
ONLY_OURS = policy(
    specs={"default": "deny", "rules": [{"allow": ["/etc/cdi/**"]}]},
    mount_sources={"default": "deny", "rules": [{"allow": ["/opt/**", "/dev/nvidia*"]}]},
    kinds={"default": "deny", "rules": [{"allow": "nvidia.com/gpu"}]},
)

AROUND_DENIALS = {
    "the path itself": spec(**mount("/etc/shadow")),
    "dots": spec(**mount("/scratch/../etc/shadow")),
    "a dot": spec(**mount("/etc/./shadow")),
    "double slashes": spec(**mount("//etc//shadow")),
    "a link to the file": spec(**mount("/scratch/shadow")),
    "the directory of the file": spec(**mount("/etc")),
    "a link to that directory": spec(**mount("/scratch/link")),
    "the root": spec(**mount("/")),
    "a device node as a mount": spec(**mount("/dev/sda")),
    "a node under another name": spec(**node("/dev/harmless", "/dev/sda")),
    "a mount point inside what is closed": spec(**mount("/opt/lib", "/usr/bin")),
    "a mount point around what is closed": spec(**mount("/opt/lib", "/etc")),
    "a mount point with dots": spec(**mount("/opt/lib", "/opt/../etc/passwd")),
    "a mount point without a slash": spec(**mount("/opt/lib", "etc/passwd")),
    "a new file system as a mount point": spec(mounts=(Mount("tmpfs", "/usr/bin", type="tmpfs"),)),
    "a link made by a hook": spec(**link("/etc/passwd")),
    "a link made by a hook, with dots": spec(**link("/opt/../usr/bin/ssh")),
    "a node as a mount point": spec(**node("/usr/bin/ssh", "/dev/nvidia0")),
    "a variable": spec(env=("LD_PRELOAD=/x.so",)),
    "an empty variable": spec(env=("LD_PRELOAD=",)),
    "a value with line ends": spec(env=("PATH=/bin\n:/evil",)),
    "a kind": spec("secret.org/x"),
    "a device": spec(name="0"),
    "the edits of a spec without a device": spec("secret.org/x", name=""),
    "another file that defines the device": spec(name="0", path="/home/me/cdi/x.yaml"),
}


@pytest.mark.parametrize("way", AROUND_DENIALS)
def test_what_is_denied_stays_denied(way):
    assert refusals(CLOSED, AROUND_DENIALS[way])


AROUND_PERMISSIONS = {
    "a spec in the user's directory": spec(path="/home/me/cdi/x.yaml", env=("A=1",)),
    "a directory that begins like ours": spec(path="/etc/cdi-mine/x.yaml", env=("A=1",)),
    "a spec's path with dots": spec(path="/etc/cdi/../../home/me/x.yaml", env=("A=1",)),
    "a kind in capitals": spec("NVIDIA.com/gpu"),
    "a kind that begins like ours": spec("nvidia.com/gpux"),
    "a kind that ends like ours": spec("xnvidia.com/gpu"),
    "a path that begins like ours": spec(**mount("/etc/passwd")),
    "a path around ours": spec(**mount("/")),
    "our path in capitals": spec(**mount("/scratch")),
    "a link out of anywhere": spec(**mount("/scratch/link")),
    "another device's node under our name": spec(**node("/dev/nvidia0", "/dev/sda")),
}


@pytest.mark.parametrize("way", AROUND_PERMISSIONS)
def test_what_is_not_allowed_stays_so(way):
    assert refusals(ONLY_OURS, AROUND_PERMISSIONS[way])


def test_our_own_spec_is_not_refused():
    assert refusals(ONLY_OURS, spec(env=("A=1",), **mount("/opt/lib"), **node("/dev/nvidia0"))) == []


def test_a_link_in_our_directory_to_a_users_spec_is_refused():
    asked = spec(env=("A=1",))
    assert refusals(ONLY_OURS, asked, spec_paths={"/etc/cdi/x.yaml": "/home/me/x.yaml"})


def test_a_link_out_of_an_allowed_directory_is_refused():
    there = host({"/opt/out": "d real=/etc", "/opt/in": "d real=/opt/lib"})
    for path, refused in (("/opt/out", True), ("/opt/in", False)):
        edits, plan = planned(spec(**mount(path)), there)
        if refused:
            with pytest.raises(CdiError, match="'/opt/out', which is '/etc'"):
                enforce(ONLY_OURS, edits, plan, ALICE)
        else:
            enforce(ONLY_OURS, edits, plan, ALICE)


def test_a_source_that_nobody_can_look_at_is_not_mounted():
    there = host(look_errors={"/root/x": errno.EACCES})
    _, plan = planned(spec(**mount("/root/x")), there)
    assert [lack.fatal for lack in plan.unsupported()] == [True]


def test_an_alias_changes_nothing_about_the_device():
    alias = {"innocent": Alias("innocent", ("secret.org/x=0",))}
    assert expand(["innocent"], alias) == ("secret.org/x=0",)
    assert refusals(CLOSED, spec("secret.org/x"))


def test_a_pattern_that_looks_like_it_denies_everything_and_does_not_is_no_configuration():
    for text in ("*", "**", "nvidia.com", "secret.org/", "/secret.org"):
        with pytest.raises(CdiError, match="is no pattern for a kind"):
            policy(kinds=[{"deny": text}])


def test_an_unknown_hook_is_not_run_whatever_the_rules_say():
    hook = Hook("createContainer", "/home/me/evil", ("evil",))
    _, plan = planned(spec(hooks=(hook,)))
    assert ["this program is not known" in lack.reason for lack in plan.unsupported()] == [True]
