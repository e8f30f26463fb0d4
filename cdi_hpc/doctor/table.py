"""Every check, in the order in which a launch would meet what it looks at."""

from __future__ import annotations

from cdi_hpc.doctor import images, kernel, places, programs, slurm, specs
from cdi_hpc.doctor.checks import Check

CHECKS: tuple[Check, ...] = (
    Check("user-namespaces", "kernel", kernel.user_namespaces),
    Check("namespace-limits", "kernel", kernel.limits),
    Check("overlay", "kernel", kernel.overlay),
    Check("fuse", "kernel", kernel.fuse),
    Check("native-runner", "programs", programs.native_runner),
    Check("launchers", "programs", programs.launchers),
    Check("drop-ins", "programs", programs.drop_ins),
    Check("squashfs-tools", "programs", programs.squashfs_tools),
    Check("yaml-loader", "programs", programs.yaml_loader),
    Check("plan-cache", "places", places.plan_cache),
    Check("temporary-directory", "places", places.temporary_directory),
    Check("configuration", "places", specs.configuration),
    Check("spec-files", "specs", specs.files),
    Check("spec-modes", "specs", specs.modes),
    Check("spec-owners", "specs", specs.owners),
    Check("conflicts", "specs", specs.conflicts),
    Check("empty-all", "specs", specs.empty_all),
    Check("driver-version", "specs", specs.driver_version),
    Check("nvidia-nodes", "specs", specs.nvidia_nodes),
    Check("request", "request", specs.request),
    Check("image", "image", images.readable, wants="image"),
    Check("image-layers", "image", images.layers, wants="image"),
    Check("image-libraries", "image", images.libraries, wants="image"),
    Check("slurm-release", "slurm", slurm.release, wants="slurm"),
    Check("slurm-plugin", "slurm", slurm.plugin, wants="slurm"),
    Check("slurm-arguments", "slurm", slurm.arguments, wants="slurm"),
    Check("slurm-gres", "slurm", slurm.gres, wants="slurm"),
    Check("slurm-constrained", "slurm", slurm.constrained, wants="slurm"),
    Check("slurm-step", "slurm", slurm.step, wants="slurm"),
)
