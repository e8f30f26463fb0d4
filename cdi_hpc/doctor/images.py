"""An image, and what the plan of a request finds in it."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from cdi_hpc.container import preflight
from cdi_hpc.container.compose import Composition, compose
from cdi_hpc.container.stage import Assembly
from cdi_hpc.container.tree import ContainerTree
from cdi_hpc.doctor.checks import Finding, Question, Status, configured
from cdi_hpc.doctor.places import file_system
from cdi_hpc.doctor.specs import plan_for
from cdi_hpc.host import LiveHost
from cdi_hpc.launch import embedded, runner
from cdi_hpc.launch.image import Image, read_image
from cdi_hpc.mountinfo import mount_points
from cdi_hpc.planning import enforce_in_image

#: Programs of an image that say which C library it has.
_LOADERS = (
    ("glibc", ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1", "/lib64/ld64.so.2")),
    ("musl", ("/lib/ld-musl-x86_64.so.1", "/lib/ld-musl-aarch64.so.1", "/lib/ld-musl-powerpc64le.so.1")),
)


def readable(question: Question) -> Iterator[Finding]:
    """What the image is, and whether it can be read."""
    image = read_image(question.image or "")
    if image.files is None:
        yield Finding("problem", f"{question.image}: {image.reason}", image.fix)
        return
    tree = ContainerTree(image.place, files=image.files)
    libc = [name for name, loaders in _LOADERS if any(_is_there(tree, loader) for loader in loaders)]
    has_ldconfig = any(_is_there(tree, path) for path in ("/sbin/ldconfig", "/usr/sbin/ldconfig"))
    described = f"C library: {' and '.join(libc) or 'none found'}; {'an' if has_ldconfig else 'no'} ldconfig"
    yield Finding("ok", f"{question.image}: {image.kind}; {described}")
    yield from (Finding("note", note) for note in image.notes)


def layers(question: Question) -> Iterator[Finding]:
    """Whether the kernel takes an overlay over this very image."""
    image = read_image(question.image or "")
    if image.kind != "directory":
        return
    if image.path == "/":
        return
    kind = file_system(image.path)
    assembly = _assembly(question, image)
    if assembly is None:
        return
    steps = compose(assembly, Composition("overlay", mount_points()))
    if runner.overlay_is_refused(steps):
        what = f"the kernel refuses an overlay on {image.path} ({kind}): tmpfs and binds are used instead"
        yield Finding("note", what, "a SquashFS file of the image does without")
    else:
        yield Finding("ok", f"an overlay can be mounted on {image.path} ({kind})")


def libraries(question: Question) -> Iterator[Finding]:
    """Whether the devices may be had in the image, by the site's rules, and the libraries that they bring can work."""
    assembly = _assembly(question, read_image(question.image or ""))
    if assembly is None:
        return
    configuration, plan = configured(question), plan_for(question)
    if configuration is not None and plan is not None:
        enforce_in_image(configuration.policy, plan, assembly.covered)
    misfits = preflight.check(assembly)
    for misfit in misfits:
        where = f"{misfit.where}: " if misfit.where else ""
        status: Status = "problem" if misfit.fatal else "warning"
        yield Finding(status, f"{where}{misfit.what}", misfit.fix or "take an image with a newer C library")
    if not misfits:
        yield Finding("ok", "the image has what the devices' libraries need")


def _assembly(question: Question, image: Image) -> Assembly | None:
    """The plan of the request put into the image; None if one of the two is not there."""
    plan = plan_for(question)
    if plan is None or image.files is None:
        return None
    return embedded.prepare(plan, image.place, LiveHost(), embedded.RunOptions(), files=image.files)


def _is_there(tree: ContainerTree, path: str) -> bool:
    parent = tree.resolve(posixpath.dirname(path))
    entry = tree.entry(posixpath.join(parent, posixpath.basename(path)))
    return entry is not None
