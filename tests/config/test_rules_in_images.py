"""Rules about container paths hold for what is covered in the image, whatever links lead there."""

from __future__ import annotations

import json
import shutil

import pytest

#: The lab's image has /bin as a link to usr/bin.
CLOSED = "policy: {mount-targets: {rules: [{deny: [/usr/bin/printenv, /etc/ld.so.conf.d/**]}]}}"
REAL = "which is '/usr/bin/printenv'"


def mount(target: str) -> dict[str, object]:
    return {"mounts": [{"hostPath": "/etc/hostname", "containerPath": target}]}


def hook(*arguments: str) -> dict[str, object]:
    words = ["nvidia-cdi-hook", *arguments]
    return {"hooks": [{"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook", "args": words}]}


WAYS = {
    "a link in the image": mount("/bin/printenv"),
    "the kernel's link to the root": mount("/proc/self/root/usr/bin/printenv"),
    "a node": {"deviceNodes": [{"path": "/bin/printenv", "hostPath": "/dev/null"}]},
    "a link made by a hook": hook("create-symlinks", "--link", "/target::/bin/printenv"),
    "a new file system": {"mounts": [{"hostPath": "tmpfs", "containerPath": "/bin", "type": "tmpfs"}]},
}
DEVICE = "site.org/tool=one"


@pytest.mark.parametrize("way", WAYS)
def test_a_link_leads_around_no_rule(site, way):
    site.spec(**WAYS[way])
    site.configure(CLOSED, "config.d/10.yaml")
    said = site.refusal("-d", DEVICE)
    assert "the site does not allow the container path" in said
    assert "/etc/cdi-hpc/config.d/10.yaml:1:" in said


def test_a_link_in_something_that_the_spec_shows_leads_around_no_rule(site):
    (site.top / "shown").mkdir()
    (site.top / "shown/programs").symlink_to("/bin")
    shown = {"hostPath": str(site.top / "shown"), "containerPath": "/opt/shown"}
    (covering,) = mount("/opt/shown/programs/printenv")["mounts"]
    site.spec(mounts=[shown, covering])
    site.configure(CLOSED, "config.d/10.yaml")
    assert f"'/opt/shown/programs/printenv', {REAL}" in site.refusal("-d", DEVICE)


LAUNCHES = {
    "run": ("cdi-hpc", "run", "-d", DEVICE, "{image}", "true"),
    "python": ("cdi-hpc", "run", "--runner=python", "-d", DEVICE, "{image}", "true"),
    "SquashFS": ("cdi-hpc", "run", "-d", DEVICE, "{file}", "true"),
    "the machine": ("cdi-hpc", "run", "-d", DEVICE, "/", "true"),
    "compile": ("cdi-hpc", "compile", "--image", "{image}", DEVICE),
    "compile for a step": ("cdi-hpc", "compile", DEVICE),
    "compile for launchers of a step": ("cdi-hpc", "compile", "--handoff", DEVICE),
    "plan": ("cdi-hpc", "plan", "--image", "{image}", DEVICE),
    "explain": ("cdi-hpc", "explain", "--image", "{image}", "--for", "embedded", DEVICE),
    "doctor": ("cdi-hpc", "doctor", "--image", "{image}", DEVICE),
    "ch-run": ("cdi-hpc", "exec", "ch-run", "--device", DEVICE, "{image}", "--", "true"),
    "apptainer": ("cdi-hpc", "exec", "apptainer", "exec", "--device", DEVICE, "{image}", "true"),
}


@pytest.mark.parametrize("name", [n for n, words in LAUNCHES.items() if words[1] != "exec" or shutil.which(words[2])])
def test_every_launch_follows_links_before_it_asks_the_rules(site, name):
    site.spec(**mount("/bin/printenv"))
    site.configure(CLOSED, "config.d/10.yaml")
    places = {"image": site.image, "file": site.lab.image("debian.sqfs")}
    done = site.do(*(word.format(**places) for word in LAUNCHES[name]))
    assert REAL in done.stdout + done.stderr
    assert done.returncode in (1, 125)


def test_both_spellings_have_to_be_allowed(site):
    site.spec(**mount("/bin/printenv"))
    rule = "policy: {{mount-targets: {{default: deny, rules: [{{allow: [{}]}}]}}}}"
    site.configure(rule.format("/bin/**"), "config.d/10.yaml")
    assert "no rule allows it" in site.refusal("-d", DEVICE)
    site.configure(rule.format("/bin/**, /usr/bin/**"), "config.d/10.yaml")
    assert site.env_of("-d", DEVICE) == {"TOOL": "one"}


@pytest.mark.parametrize(
    ("closed", "said"),
    [
        ("/etc/ld.so.cache", "'/etc/ld.so.cache'"),
        ("/etc/ld.so.conf.d/**", "'/etc/ld.so.conf.d/00-nvcr-cdi-hpc.conf'"),
    ],
)
def test_what_is_made_for_the_loader_is_covered_too(site, closed, said):
    site.spec(**hook("update-ldcache", "--folder", "/opt/site/lib"))
    site.configure(f"policy: {{mount-targets: {{rules: [{{deny: {closed}}}]}}}}", "config.d/10.yaml")
    assert f"the site does not allow the container path {said}" in site.refusal("-d", DEVICE)


def test_what_a_launcher_puts_there_is_no_specs_doing(site):
    """/etc/passwd and /etc/resolv.conf, /dev, /tmp, what the command line binds."""
    site.configure("policy: {mount-targets: {default: deny}}", "config.d/10.yaml")
    assert site.env_of("-d", DEVICE, "--bind", "/srv:/mnt/other", "--contain") == {"TOOL": "one"}


def test_an_explanation_says_which_edit_it_is(site):
    site.spec(**mount("/bin/printenv"))
    site.configure(CLOSED, "config.d/10.yaml")
    done = site.do("cdi-hpc", "explain", "--format=json", "--image", str(site.image), "--for", "embedded", DEVICE)
    (edit,) = [each for each in json.loads(done.stdout)["edits"] if each["field"] == "mounts"]
    assert REAL in json.dumps(edit), edit
