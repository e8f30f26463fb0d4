"""What a script tells the dynamic loader, against what the library does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import small_trees
from script_runs import HERE, plan, said, start

from cdi_hpc import ldcache
from cdi_hpc.ldcache import DirectoryView
from cdi_hpc.ldcache.conf import configured
from cdi_hpc.ldcache.tree import Tree
from cdi_hpc.plan import Plan, UpdateLdCache
from cdi_hpc.render.bash import script

UP = "../../../../../../../../../.."

CONF = {
    "none": {},
    "plain": {"/etc/ld.so.conf": b"/a\n/b/\n  /c//  \n\n# comment\n/d # why\n\t/e f\t\nrelative\n/\n//\n"},
    "no newline": {"/etc/ld.so.conf": b"/a"},
    "empty": {"/etc/ld.so.conf": b""},
    "old words": {"/etc/ld.so.conf": b"hwcap 0 nosegneg\nHWCAP\t1 x\n/lib=libc6\ninclude\nincluded\n"},
    "drop-ins": {
        "/etc/ld.so.conf": b"include ld.so.conf.d/*.conf\n/last\n",
        "/etc/ld.so.conf.d/b.conf": b"/b\n",
        "/etc/ld.so.conf.d/a.conf": b"/a\n",
        "/etc/ld.so.conf.d/B.conf": b"/B\n",
        "/etc/ld.so.conf.d/.hidden.conf": b"/hidden\n",
        "/etc/ld.so.conf.d/c.conf~": b"/backup\n",
        "/etc/ld.so.conf.d/d.conf": None,
        "/etc/ld.so.conf.d/e.conf": "-> a.conf",
        "/etc/ld.so.conf.d/f.conf": "-> nowhere",
    },
    "several": {
        "/etc/ld.so.conf": b"include \t one.conf  /etc/two.conf\tthree.conf\ninclude\tone.conf\n",
        "/etc/one.conf": b"/one\n",
        "/etc/two.conf": b"/two\n",
    },
    "hidden ones": {"/etc/ld.so.conf": b"include .h*\n", "/etc/.h": b"/hidden\n", "/etc/h": b"/not\n"},
    "directories of patterns": {
        "/etc/ld.so.conf": b"include /*/x?/[a-c].conf\ninclude /opt/../etc/x1/d.conf\n",
        "/etc/x1/a.conf": b"/a1\n",
        "/etc/x2/c.conf": b"/c2\n",
        "/etc/x2/d.conf": b"/d2\n",
        "/etc/x1/d.conf": b"/d1\n",
        "/opt/x1/b.conf": b"/b1\n",
    },
    "circles": {
        "/etc/ld.so.conf": b"/a\ninclude ld.so.conf\ninclude b.conf\ninclude /*/*\n",
        "/etc/b.conf": b"/b\ninclude ld.so.conf\ninclude /etc/b.conf\n/c\n",
    },
    "links": {
        "/etc": "-> /opt/etc",
        "/opt/etc/ld.so.conf": "-> ../real.conf",
        "/opt/real.conf": b"/real\ninclude beside.conf\n",
        "/opt/etc/beside.conf": b"/beside\n",
        "/opt/beside.conf": b"/wrong\n",
    },
    "out of the image": {
        "/etc/ld.so.conf": f"include {UP}/etc/ld.so.conf.d/*\ninclude /proc/self/root/etc/*\n".encode()
    },
    "loops": {
        "/etc/ld.so.conf": b"/a\ninclude d/*\ninclude loop/x\ninclude d/*/x\n/loop/b\n",
        "/etc/d/1": "-> 1",
        "/etc/d/2": b"/two\n",
        "/etc/d/3": "-> 2/x",
        "/etc/loop": "-> loop",
        "/loop": "-> loop",
    },
    "binary": {"/etc/ld.so.conf": b"/a\xff\xfe\n/b\x1b[1m\n/$(echo c)\n/`d`\n/'e\"\\\n"},
    "escapes": {"/etc/ld.so.conf": b"include a\\*.con[f]\n", "/etc/a*.conf": b"/star\n", "/etc/ab.conf": b"/no\n"},
}

ASK = r"""
source "$1"
ask() {
  local LC_ALL=C
  shopt -s nullglob dotglob
  image=$1
  add_mount '' "$image" directory '' ''
  search_order
  printf '%s\0' "${configured[@]}"
}
with_state ask "$2"
"""


@pytest.fixture(scope="module")
def functions(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("conf") / "functions.bash"
    path.write_text(script(Plan((), ()), only="mounts"))
    return path


@pytest.mark.parametrize("name", CONF)
def test_the_script_reads_a_configuration_as_the_library_does(name, functions, tmp_path):
    root = os.path.realpath(small_trees.make(tmp_path / "image", CONF[name]))
    asked = ["bash", "-c", ASK, "bash", functions, root]
    done = subprocess.run(asked, capture_output=True, check=True, timeout=60)
    found = [os.fsdecode(folder) for folder in done.stdout.split(b"\0") if folder]
    with DirectoryView(root) as view:
        # ldconfig leaves out what is relative, with a warning.
        wanted = [folder for folder in configured(Tree(view)) if folder.startswith("/")]
    assert (found, done.stderr) == (wanted, b"")


FOLDERS = ("/opt/driver", "/lib", "/usr/lib/x86_64-linux-gnu", "/opt/driver/more")


@pytest.mark.parametrize(
    "before", [None, "", "/lib\n/opt/driver/more\n", "/a:/lib:/opt/driver", "/a\n\n/b", "-> ld.so.cache"]
)
@pytest.mark.parametrize("conf", ["", "/lib\n/opt/driver/more\n"])
def test_the_list_of_musls_loader_is_that_of_the_library(image, tmp_path, before, conf):
    path = image / "etc" / "ld-musl-x86_64.path"
    path.unlink(missing_ok=True)
    if before is not None and before.startswith("-> "):
        path.symlink_to(before[3:])
    elif before is not None:
        path.write_text(before)
    (image / "etc" / "ld.so.conf").write_text(conf)
    with DirectoryView(str(image)) as view:
        update = ldcache.update(view, folders=FOLDERS)
    command = ["/bin/busybox", "cat", "/etc/ld-musl-x86_64.path"]
    assert said(start(plan(UpdateLdCache(FOLDERS, HERE)), tmp_path, image, command)) == update.musl.content


@pytest.mark.parametrize("stage", ["overlay", "underlay"])
def test_a_cache_that_is_a_link_is_covered_wherever_it_leads(image, tmp_path, stage):
    (image / "etc" / "ld.so.cache").unlink(missing_ok=True)
    (image / "etc" / "ld.so.cache").symlink_to("passwd")
    show = "head -c 17 /etc/ld.so.cache; tail -n 1 /etc/passwd | cut -d: -f3; readlink /etc/ld.so.cache"
    command = ["/bin/busybox", "sh", "-c", f"{show} || true"]
    done = start(plan(UpdateLdCache(("/opt",), HERE)), tmp_path, image, command, f"--stage={stage}")
    assert said(done) == b"glibc-ld.so.cache%d\n" % os.getuid()
