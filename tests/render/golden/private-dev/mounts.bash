#!/usr/bin/env bash
# The mounts, links and files of these devices as a function for bash, made by cdi-hpc: source this
# file and call cdi_mounts ROOT. It expects to run as root of a mount namespace of its own (unshare
# --user --map-root-user --mount will do) with the container's root made at ROOT, its /proc and /dev
# mounted, and writable where mount points and links are missing. They stay there. It returns 125 and
# says why if something fails. The environment is not set: see --only env.
# device: vendor.example/device=renamed
# shellcheck disable=SC2016

# ... preamble.bash ...

# ==============================================================================================
# The plan.
# ==============================================================================================

# The container has a /dev of its own: /dev/accel/accel3 is to be seen as /dev/accel0
wants_private_dev() { true; }

# What stops it: demands of the specs that can't be met.
cdi_hpc_refusals=(
)

plan() {
  :
  # from /etc/cdi/vendor.yaml: devices[0].containerEdits.deviceNodes[0]
  bind device /dev/accel/accel3 /dev/accel0 rbind,rprivate
  # from /etc/cdi/vendor.yaml: devices[0].containerEdits.hooks[0]
  link /dev/accel-by-name/first ../accel0
  # from /etc/cdi/vendor.yaml: containerEdits.mounts[0]
  filesystem tmpfs scratch /scratch nosuid,nodev,size=64m,mode=1777
}

cdi_mounts() ( # ROOT; a subshell, so that nothing else of the caller changes
  main_mounts "$@"
)
