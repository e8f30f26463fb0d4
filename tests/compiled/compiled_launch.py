"""A user, an image and specs of a test's own, all of which it may change; launches of them; what is in the cache."""

from __future__ import annotations

import os
import posixpath
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from cdi_hpc import cli
from cdi_hpc.container.tree import ContainerTree

KIND = "lab.example/thing"

#: Programs of the small image.
PROGRAMS = ("sh", "cat", "echo", "env", "find", "ls", "md5sum", "readlink", "sleep", "sort", "true")

#: Everything that a plan decides, as the container's shell sees it. Mounted files and links are followed to contents.
VIEW = r"""
cd /
echo "LAB_VARIABLE=$LAB_VARIABLE"
for path in /opt/lab/* /opt/lab/*/* /usr/lib/lab/* /dev/lab* \
    /etc/passwd /etc/group /etc/ld.so.cache /etc/ld.so.conf.d/*; do
    [ -e "$path" ] || [ -L "$path" ] || continue
    echo "$path -> $(readlink "$path")"
    [ ! -f "$path" ] || md5sum "$path"
done
ls -ldn --time-style=+ / /opt /etc /usr/lib |
    while read -r mode links owner group size name; do echo "$mode $owner $name"; done
ls -lAnR --time-style=+ /opt /usr/lib/lab 2>&1 |
    while read -r mode links owner group rest; do echo "$mode $owner $rest"; done
while read -r _ _ _ _ point options _; do echo "mount $point"; done </proc/self/mountinfo | sort
"""


def runner() -> str:
    """The native runner."""
    found = cli.find_runner({"PATH": os.environ["PATH"]})
    assert found is not None, "cdi-hpc-run is not there: make -C native"
    return found


@cache
def front() -> str:
    """The Python program."""
    found = shutil.which("cdi-hpc")
    assert found is not None, "cdi-hpc is not on the PATH"
    return os.path.realpath(found)


@dataclass
class Site:
    """What one test's launches are made from; everything below ``top``.

    Attributes:
        driver: files of the host that the spec has mounted.
        devices: what is asked for.
        more: options besides.

    """

    top: Path
    image: Path
    devices: tuple[str, ...] = (f"{KIND}=one",)
    more: tuple[str, ...] = ()

    @property
    def specs(self) -> Path:
        return self.top / "cdi"

    @property
    def driver(self) -> Path:
        return self.top / "driver"

    @property
    def runtime(self) -> Path:
        """XDG_RUNTIME_DIR."""
        return self.top / "runtime"

    @property
    def cache(self) -> Path:
        return self.runtime / "cdi-hpc"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "XDG_RUNTIME_DIR": str(self.runtime), "CDI_HPC_DIRS": str(self.specs)}

    def argv(self, command: Sequence[str | bytes], *, options: Sequence[str] = ()) -> list:
        """Arguments after ``cdi-hpc run``."""
        devices = [word for device in self.devices for word in ("-d", device)]
        return [*devices, *self.more, *options, str(self.image), "--", *command]

    def launch(
        self,
        *command: str | bytes,
        options: Sequence[str] = (),
        python: bool = False,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        **keywords,
    ) -> subprocess.CompletedProcess[bytes]:
        """Launch by the native runner, or by Python alone, which neither reads nor writes the cache."""
        program = [front(), "run", "--runner=python"] if python else [runner()]
        environment = {**self.environment, **(env or {})}
        argv = [*prefix, *program, *self.argv(command or ("true",), options=options)]
        keywords = {"timeout": 60, "input": b"", "capture_output": True, **keywords}
        return subprocess.run(argv, env=environment, check=False, **keywords)

    def view(self, *, python: bool = False, **keywords) -> str:
        """What the container's shell sees, or why there is no container."""
        done = self.launch("sh", "-c", VIEW, python=python, **keywords)
        if done.returncode == 125:
            return done.stderr.decode("utf-8", "backslashreplace")
        assert done.returncode == 0, done.stderr
        return done.stdout.decode("utf-8", "surrogateescape")

    def content(self, **keywords) -> list[str]:
        """A view without the mounts that make it."""
        return [line for line in self.view(**keywords).splitlines() if not line.startswith("mount ")]

    def plans(self) -> dict[str, int]:
        """Inode of each plan: a plan that is compiled again is another file."""
        if not self.cache.is_dir():
            return {}
        return {path.name: path.stat().st_ino for path in self.cache.glob("*.plan")}

    def plan(self) -> Path:
        """The only plan."""
        (path,) = self.cache.glob("*.plan")
        return path

    def stages(self) -> list[Path]:
        return sorted(self.cache.glob("*.stage"))

    def write_spec(self, edits: Mapping | None = None, *, name: str = "lab.yaml", device: str = "one") -> Path:
        """Write a spec, in place if it is there."""
        self.specs.mkdir(parents=True, exist_ok=True)
        devices = [{"name": device, "containerEdits": edits or self.usual_edits()}]
        path = self.specs / name
        path.write_text(yaml.safe_dump({"cdiVersion": "0.6.0", "kind": KIND, "devices": devices}))
        return path

    def usual_edits(self) -> dict:
        """A bit of everything: a variable, a node, files, a directory, a library with its links, the loader's cache."""
        hook = "/usr/bin/nvidia-cdi-hook"
        links = ["--link", "file::/opt/lab/link", "--link", "libthing.so.1::/usr/lib/lab/libthing.so"]
        return {
            "env": ["LAB_VARIABLE=from the spec"],
            "deviceNodes": [{"path": "/dev/null"}],
            "mounts": [
                {"hostPath": f"{self.driver}/file", "containerPath": "/opt/lab/file", "options": ["ro"]},
                {"hostPath": f"{self.driver}/directory", "containerPath": "/opt/lab/directory", "options": ["ro"]},
                {
                    "hostPath": f"{self.driver}/libthing.so.1.5",
                    "containerPath": "/usr/lib/lab/libthing.so.1.5",
                    "options": ["ro"],
                },
            ],
            "hooks": [
                {
                    "hookName": "createContainer",
                    "path": hook,
                    "args": ["nvidia-cdi-hook", "create-symlinks", *links],
                },
                {
                    "hookName": "createContainer",
                    "path": hook,
                    "args": ["nvidia-cdi-hook", "update-ldcache", "--folder", "/usr/lib/lab"],
                },
            ],
        }


def make_site(top: Path, template: Path) -> Site:
    """A user's runtime directory, a spec, the driver's files, and an image copied from a template."""
    copy_image(template, top / "image")
    site = Site(top, top / "image")
    site.runtime.mkdir(mode=0o700)
    (site.driver / "directory").mkdir(parents=True)
    (site.driver / "file").write_text("from the host\n")
    (site.driver / "directory" / "entry").write_text("in a directory of the host\n")
    shutil.copy(driver_library("libnvidia-ml"), site.driver / "libthing.so.1.5")
    site.write_spec()
    return site


def copy_image(template: Path, image: Path) -> None:
    """A copy that may be changed, but for what is in /usr: that is large, and may only be replaced."""
    usr = f"{template}/usr/"
    copy = {True: os.link, False: shutil.copy2}
    shutil.copytree(
        template, image, symlinks=True, copy_function=lambda source, place: copy[source.startswith(usr)](source, place)
    )


def make_small_image(top: Path, image: Path) -> Path:
    """The programs that VIEW calls with what they need, from a Debian image, as an image that may be copied often."""
    for directory in ("dev", "etc", "opt", "proc", "sys", "tmp", "usr/bin", "usr/lib", "usr/local/lib", "var"):
        (top / directory).mkdir(parents=True)
    for link in ("bin", "lib", "lib64"):
        if (image / link).is_symlink():
            (top / link).symlink_to(os.readlink(image / link))
    shutil.copytree(image / "etc/ld.so.conf.d", top / "etc/ld.so.conf.d")
    for name in ("passwd", "group", "ld.so.conf", "ld.so.cache"):
        shutil.copy2(image / "etc" / name, top / "etc" / name)
    tree = ContainerTree(str(image))
    for name in PROGRAMS:
        program = f"/usr/bin/{name}"
        for path in (program, *libraries(f"{image}{tree.resolve(program)}")):
            place = posixpath.join(tree.resolve(posixpath.dirname(path)), posixpath.basename(path))
            (top / place[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(f"{image}{tree.resolve(path)}", f"{top}{place}")
    return top


def libraries(program: str) -> list[str]:
    """What the loader loads for a program of an image that is like this host."""
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
    return [word for line in done.stdout.splitlines() for word in line.split() if word.startswith("/")]


def driver_library(name: str) -> Path:
    """A library of the lab's driver: a real one, with a SONAME that no image has."""
    return next(iter(sorted(Path("/usr/lib").glob(f"*/{name}.so.*.*"))))


class Namespaces:
    """A user namespace, in which this user is himself, and a mount namespace, where he may mount.

    Launches go in by ``prefix`` and are an ordinary user's.
    """

    def __init__(self) -> None:
        user, group = f"--map-user={os.geteuid()}", f"--map-group={os.getegid()}"
        argv = ["unshare", "--user", user, group, "--mount", "--keep-caps", "sh"]
        self.shell = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.do("true")
        self.prefix = ("nsenter", "--user", "--mount", "--preserve-credentials", f"--target={self.shell.pid}", "--")

    def do(self, command: str) -> None:
        """Run a shell command that may mount."""
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        self.shell.stdin.write(f"{command}\necho $?\n")
        self.shell.stdin.flush()
        assert self.shell.stdout.readline() == "0\n", command

    def leave(self) -> None:
        self.shell.communicate()
