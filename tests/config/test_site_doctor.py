"""What the doctor says on a machine with a site's configuration."""

from __future__ import annotations

import json

import pytest
from launched_site import SPEC

OTHER = {**SPEC, "kind": "site.org/other", "containerEdits": {"deviceNodes": [{"path": "/dev/gone"}]}}


def examined(site, *arguments: str) -> tuple[int, list[dict]]:
    done = site.do("cdi-hpc", "doctor", "--format", "json", *arguments)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def of(check: str, rows: list[dict]) -> list[tuple[str, str]]:
    return [(row["status"], row["finding"]) for row in rows if row["check"] == check]


def test_a_kind_that_is_refused_is_noted_and_does_not_hide_what_is_wrong_with_another(site):
    (site.specs / "other.json").write_text(json.dumps(OTHER))
    site.configure("policy: {kinds: {rules: [{deny: site.org/tool}]}}", "config.d/10.yaml")
    status, rows = examined(site)
    found = of("request", rows)
    assert status == 1
    assert [each for each, _ in found] == ["problem", "note"]
    assert "/dev/gone is not on this host" in found[0][1]
    assert found[1][1].startswith(
        "site.org/tool: device 'site.org/tool=one': the site does not allow the kind 'site.org/tool'; rule "
    )
    assert found[1][1].endswith("config.d/10.yaml:1:26: policy.kinds.rules[0] (and 1 more)")


def test_a_host_on_which_every_kind_is_refused_is_not_well(site):
    site.configure("policy: {kinds: {default: deny}}", "config.d/10.yaml")
    status, rows = examined(site)
    assert status == 0
    assert of("request", rows)[1:] == [("warning", "the site's rules refuse every kind of device to you")]
    named, rows = examined(site, "site.org/tool=one")
    assert (named, of("request", rows)[0][0]) == (1, "problem")


def test_a_rule_that_can_not_be_judged_is_a_problem(site):
    site.configure("policy: {kinds: {rules: [{deny: site.org/tool, users: nosuch}]}}", "config.d/10.yaml")
    status, rows = examined(site)
    assert status == 1
    assert [status for status, _ in of("request", rows)] == ["problem"]
    assert "the rule names the user 'nosuch', which nobody here knows" in of("request", rows)[0][1]


def test_specs_of_a_kind_that_is_refused_are_left_out_of_the_image(site):
    site.configure("policy: {kinds: {rules: [{deny: site.org/tool}]}}", "config.d/10.yaml")
    other = {**OTHER, "containerEdits": {}}
    (site.specs / "other.json").write_text(json.dumps(other))
    _, rows = examined(site, "--image", str(site.image))
    assert of("image-libraries", rows) == [("ok", "the image has what the devices' libraries need")]


@pytest.mark.parametrize("mode, text", [(0o644, "no-such-key: 1"), (0o666, "strict: true")])
def test_a_configuration_that_is_wrong_is_a_problem_of_the_configuration_alone(site, mode, text):
    site.configure(text, "config.d/10.yaml")
    (site.top / "etc/cdi-hpc/config.d/10.yaml").chmod(mode)
    status, rows = examined(site, "--slurm", "--image", str(site.image))
    assert status == 1
    # The lab's host has no Slurm.
    assert [row["check"] for row in rows if row["status"] == "problem"] == ["configuration", "slurm-release"]


def test_directories_of_the_sites_choice_are_held_to_less_and_users_own_to_nothing(site):
    site.specs.chmod(0o775)
    _, rows = examined(site)
    assert ("warning", f"others than root can write to {site.specs} (mode 775)") in of("spec-owners", rows)
    site.configure("strict: false")
    site.configure_user(f"spec-directories: [{site.specs}]")
    assert of("spec-owners", examined(site)[1]) == []
