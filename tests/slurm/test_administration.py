"""What an administrator gets: the library, the sample of plugstack.conf, its pages."""

from __future__ import annotations

import os
import re
import subprocess

from slurm_site import PROJECT

SAMPLE = (PROJECT / "packaging/slurm/plugstack.conf.d/cdi.conf").read_text()
ARGUMENTS = sorted(re.findall(r'IS\("([\w-]+)"\)', (PROJECT / "slurm/spank/site.c").read_text()))


def test_every_argument_is_explained_in_the_sample():
    assert sorted(re.findall(r"^# ([\w-]+)=", SAMPLE, re.MULTILINE)) == ARGUMENTS


def test_the_samples_place_for_plans_is_emptied_at_boot_and_goes_with_the_package():
    (place,) = re.findall(r"^required cdi_spank.so cache=(\S+)$", SAMPLE, re.MULTILINE)
    assert not place.startswith(("/run/", "/var/run/", "/tmp/")), "root's programs would have no room for their own"
    files = {name: (PROJECT / "packaging" / name).read_text() for name in PLACES}
    assert [line for line in files["tmpfiles.d/cdi-hpc-slurm.conf"].splitlines() if line[0] != "#"] == [
        f"d {place} 0755 root root -",
        f"R! {place}/*",
    ]
    assert f"rm -rf {place} ||" in files["debian/cdi-hpc-slurm.postrm"]
    assert f"rm -rf {place.replace('/var', '%{_localstatedir}')} ||" in files["rpm/cdi-hpc.spec"]
    pages = "".join((PROJECT / "docs" / name).read_text() for name in ("slurm.md", "install.md"))
    assert pages.count(place) >= 2  # in each
    assert not re.findall(r"cache=/run/\S+", pages)


#: What knows where the sample lets plans be.
PLACES = ("tmpfiles.d/cdi-hpc-slurm.conf", "debian/cdi-hpc-slurm.postrm", "rpm/cdi-hpc.spec")


def test_every_argument_is_explained_in_the_manual():
    text = (PROJECT / "docs/slurm.md").read_text().partition("## The plugin's arguments\n")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^\| `([\w-]+)=", text, re.MULTILINE)) == ARGUMENTS


def test_the_library_exports_what_slurm_looks_for_and_nothing_else(built):
    plugin, _ = built
    lines = subprocess.run(["nm", "-D", "--defined-only", plugin], capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1] for line in lines.splitlines()}
    assert {name for name in names if not re.match(r"(slurm_spank_|plugin_|spank_plugin_version$)", name)} == set()
    assert {"slurm_spank_init", "slurm_spank_user_init", "slurm_spank_task_init", "plugin_name"} <= names


def test_no_header_of_slurms_is_read_outside_the_files_that_talk_to_it():
    sources = [*PROJECT.glob("native/*.[ch]"), *PROJECT.glob("slurm/spank/*.[ch]")]
    talking = {path.name for path in sources if "#include <slurm/" in path.read_text()}
    assert talking == {"cdi_spank.c", "job_gpus.c", "task_variables.h"}


def test_install_puts_the_library_where_it_is_told_to(built, tmp_path):
    plugin, _ = built
    words = ["install", f"BUILD={plugin.parent}", f"DESTDIR={tmp_path}", "plugindir=/usr/lib/slurm"]
    subprocess.run(["make", "--silent", "-C", str(PROJECT / "slurm/spank"), *words], check=True, capture_output=True)
    assert (tmp_path / "usr/lib/slurm/cdi_spank.so").read_bytes() == plugin.read_bytes()


def test_what_the_package_installs_for_slurm_is_where_the_manual_says(built, tmp_path):
    plugin, _ = built
    words = ["install-slurm", f"DESTDIR={tmp_path}", "plugindir=/usr/lib/slurm", f"BUILD={plugin.parent}"]
    subprocess.run(["make", "--silent", "-C", str(PROJECT / "packaging"), *words], check=True, capture_output=True)
    assert (tmp_path / "usr/lib/slurm/cdi_spank.so").is_file()
    manual = (PROJECT / "docs/slurm.md").read_text()
    (program,) = re.findall(r"^HealthCheckProgram=(\S+)$", manual, re.MULTILINE)
    assert os.access(f"{tmp_path}{program}", os.X_OK)
    assert f"HealthCheckProgram={program}\n" in (PROJECT / "packaging/slurm/health-check").read_text()
    assert (tmp_path / "usr/share/cdi-hpc-slurm/plugstack.conf.d/cdi.conf").is_file()
    assert (tmp_path / "usr/lib/tmpfiles.d/cdi-hpc-slurm.conf").is_file()
