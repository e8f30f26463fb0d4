"""``cdi-hpc shims``: what is written, what is left alone, and that modulefiles lead to it."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from lab_backend import KIND

from cdi_hpc.cli import shims

COMMANDS = ("ch-run", "apptainer", "singularity", "lab-run")

#: Programs that read modulefiles, with what they print for a shell: on the lab's other hosts.
MODULE_SYSTEMS = {
    "/usr/bin/modulecmd": ["/usr/bin/modulecmd", "sh"],
    "/usr/share/lmod/lmod/libexec/lmod": ["/usr/share/lmod/lmod/libexec/lmod", "sh"],
}

#: Names that shells, Lua and Tcl would do something about.
AWKWARD = ["plain", "with a blank", "a'b", 'a"b', "a$HOME", "a[exit]b", "a{b", "a\\b", "a;b", "ä", "-x"]


def written(site, *words, **env) -> dict:
    done = site.run("cdi-hpc", "shims", "--format=json", *words, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def tree(top: Path) -> dict[str, str]:
    """Every path below a directory, with what is there."""
    return {
        str(path.relative_to(top)): os.readlink(path) if path.is_symlink() else path.read_text("utf-8", "replace")
        for path in sorted(top.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def test_there_is_a_drop_in_for_every_backend_and_a_profile_for_every_launcher_that_is_installed(site):
    top = site.top / "new/drop-ins"
    found = written(site, top)
    assert [each["command"] for each in found["dropIns"]] == [*COMMANDS]
    for each in found["dropIns"]:
        assert os.access(each["path"], os.X_OK)
        installed = shutil.which(each["command"], path=f"{site.top}/bin:/usr/bin")
        assert each["launcher"] == installed
        assert (each["profile"] is not None) == (installed is not None)
        if each["profile"]:
            assert stat.S_IMODE(os.stat(each["profile"]).st_mode) == 0o644
    assert {*tree(top)} == {
        *COMMANDS,
        "cdi-hpc",
        *(os.path.relpath(path, top) for path in found["modulefiles"]),
        *(os.path.relpath(each["profile"], top) for each in found["dropIns"] if each["profile"]),
    }


def test_what_is_written_is_read_by_the_drop_ins_and_the_launcher_is_not_asked_again(site):
    top = site.top / "drop-ins"
    written(site, top, "lab-run")
    assert len(site.probes) == 1
    done = site.run("lab-run", "-d", site.image, env={"PATH": f"{top}:{site.top}/bin:{os.environ['PATH']}"})
    assert done.returncode == 0, done.stderr
    assert len(site.probes) == 1


def test_to_write_it_again_changes_nothing(site):
    top = site.top / "drop-ins"
    written(site, top)
    before = tree(top)
    written(site, top)
    assert tree(top) == before
    found = [line for line in os.listdir(top) if line.startswith(".")]
    assert found == []


def test_only_the_launchers_that_are_named_get_drop_ins(site):
    top = site.top / "drop-ins"
    found = written(site, top, "lab-run", "lab-run")
    assert [each["command"] for each in found["dropIns"]] == ["lab-run"]
    assert not (top / "ch-run").exists()


def test_files_of_somebody_else_are_all_named_and_nothing_is_written(site):
    top = site.top / "drop-ins"
    (top / "modulefiles").mkdir(parents=True)
    (top / "ch-run").write_text("#!/bin/sh\n")
    (top / "lab-run").symlink_to("/bin/true")
    (top / "modulefiles/cdi-hpc").write_text("#%Module1.0\n")
    before = tree(top)
    done = site.run("cdi-hpc", "shims", top)
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert [name in line for name, line in zip(("ch-run", "lab-run", "modulefiles/cdi-hpc"), lines)] == [True] * 3
    assert len(lines) == 3
    assert tree(top) == before


@pytest.mark.parametrize(
    "words, said",
    [
        (["a:b"], "a directory with a colon"),
        (["a\nb"], "a colon or a line break"),
        (["top", "no-such-launcher"], "there is no backend for it"),
        (["top", "/usr/bin/ch-run"], "is a path"),
    ],
)
def test_what_can_not_be_is_refused(words, said, site):
    done = site.run("cdi-hpc", "shims", *words, cwd=site.top)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert not (site.top / "top").exists()


def test_a_launcher_that_can_not_be_asked_is_a_warning_and_no_reason_to_have_none(site):
    (site.top / "site/lab_backend.py").write_text("raise RuntimeError('of the backend')\n")
    done = site.run("cdi-hpc", "shims", site.top / "drop-ins")
    assert done.returncode == 0
    assert done.stderr.count("warning") == 1
    assert "of the backend" in done.stderr
    assert (site.top / "drop-ins/ch-run").is_symlink()


@pytest.mark.parametrize("name", AWKWARD)
def test_the_line_for_a_shell_puts_the_directory_before_all_others(name, site):
    top = site.top / name
    use = written(site, "--", top, "lab-run")["use"]
    done = subprocess.run(["sh", "-c", f'{use}; printf %s "$PATH"'], capture_output=True, text=True, check=True)
    assert done.stdout == f"{top}:{os.environ['PATH']}"


@pytest.mark.parametrize("name", AWKWARD)
def test_modulefiles_lead_to_the_drop_ins(name, site):
    found = written(site, "--", site.top / name, "lab-run")
    # Module systems have their own ideas about the names of directories in MODULEPATH.
    modules = site.top / "modules"
    shutil.copytree(os.path.dirname(found["modulefiles"][0]), modules)
    for program, argv in MODULE_SYSTEMS.items():
        if Path(program).exists():
            assert loaded_path(argv, modules) == f"{site.top}/{name}:/usr/bin:/bin"
            assert "take devices" in run_module([*argv, "whatis", "cdi-hpc"], modules)


def loaded_path(argv: list[str], modules: Path) -> str:
    """The PATH of a shell that has loaded the module."""
    code = run_module([*argv, "load", "cdi-hpc"], modules)
    shell = ["/bin/sh", "-c", f'{code}\nprintf %s "$PATH"']
    done = subprocess.run(shell, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True)
    return done.stdout


def run_module(argv: list[str], modules: Path) -> str:
    env = {"PATH": "/usr/bin:/bin", "MODULEPATH": str(modules), "HOME": str(modules.parent), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout if argv[2] == "load" else done.stdout + done.stderr


@pytest.mark.parametrize("text", ["/a b", 'q"', "b\\", "c$d", "[e]", "{f", "n\nl", "\x01"])
def test_strings_of_lua_and_tcl_hold_what_is_put_into_them(text):
    lua, tcl = shims._lua(text), shims._tcl(text)
    if shutil.which("lua"):
        done = subprocess.run(["lua", "-e", f"io.write({lua})"], capture_output=True, check=True)
        assert done.stdout == text.encode()
    if shutil.which("tclsh"):
        done = subprocess.run(["tclsh"], input=f"puts -nonewline {tcl}\n".encode(), capture_output=True, check=True)
        assert done.stdout == text.encode()
    assert lua.count("\n") == 0
    assert lua[0] == lua[-1] == tcl[0] == tcl[-1] == '"'


def test_without_the_native_program_a_drop_in_is_a_script(site, monkeypatch, tmp_path):
    monkeypatch.setattr(shims, "find_runner", lambda environ: None)
    monkeypatch.setattr("sys.argv", [shutil.which("cdi-hpc")])
    monkeypatch.setenv("PATH", site.environ()["PATH"])
    top = tmp_path / "drop-ins"
    shims.command.callback(str(top), ("ch-run",), "json", 0, 0)
    first, *_, last = (top / "ch-run").read_text().splitlines()
    assert first == "#!/bin/sh"
    assert last.endswith(' exec ch-run "$@"')
    done = site.run(top / "ch-run", "--version", env={"CDI_HPC_NATIVE": "/no/such"})
    bare = subprocess.run(["/usr/bin/ch-run", "--version"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (bare.stdout, bare.stderr)


# Beforehand -----------------------------------------------------------------------------------------------------------


def test_a_launch_that_was_compiled_beforehand_starts_no_python(site):
    done = site.run("cdi-hpc", "compile", "--for", "lab-run", "--image", site.image, f"{KIND}=one")
    assert done.returncode == 0, done.stderr
    (plan,) = site.plans()
    assert done.stdout == f"{site.cache}/{plan}\n"
    for words in (["--device", f"{KIND}=one", site.image, "x"], [site.image, "x", f"-d{KIND}=one"]):
        launched = site.run("lab-run", *words, env={"CDI_HPC_PYTHON_FRONT": "/bin/false"})
        assert launched.stdout.splitlines()[-1] == "word x"


@pytest.mark.parametrize("command", ["compile", "plan"])
@pytest.mark.parametrize(
    "words, said",
    [
        (["--for=no-such"], "launcher 'no-such': there is no backend for it"),
        (["--for=lab-run"], "Missing option '--image'"),
        (["--for=lab-run", "--image=IMAGE", "--strict"], "--strict: is not for --for lab-run"),
        (["--for=lab-run", "--image=/no/such"], "image /no/such: is no directory"),
        (["--for=singularity", "--image=IMAGE"], "is not on the PATH"),
    ],
)
def test_what_can_not_be_compiled_or_planned_is_refused(command, words, said, site):
    words = [word.replace("IMAGE", str(site.image)) for word in words]
    # Some hosts of the lab have every launcher.
    path = os.pathsep.join([f"{site.top}/bin", os.path.dirname(shutil.which("cdi-hpc"))])
    done = site.run("cdi-hpc", command, *words, f"{KIND}=one", env={"PATH": path})
    assert done.returncode != 0
    assert done.stdout == ""
    assert said in done.stderr


def test_a_plan_for_a_launcher_has_its_command_line_and_how_each_edit_is_done(site):
    site.write_spec(mounts=[{"hostPath": "/etc/hostname", "containerPath": "/opt/lab/name", "options": ["ro"]}])
    asked = ("plan", "--for=lab-run", "--image", site.image, f"{KIND}=one")
    done = site.run("cdi-hpc", *asked)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("command line"))
    assert line.endswith(f"{site.launcher} --stage=STAGE/own/file:x -- {site.image}")
    document = json.loads(site.run("cdi-hpc", *asked, "--format=json").stdout)
    assert document["commandLine"] == [str(site.launcher), "--stage=STAGE/own/file:x", "--", str(site.image)]
    assert document["variables"] == {"LAB_DEVICE": "one", "LAB_DEFAULT": "the backend's"}
    assert document["messages"] == ["lab-run was told"]
    assert [action["action"] for action in document["actions"]] == ["SetEnv", "Bind"]
    assert not site.plans()
