#!/usr/bin/env bash
# The mounts, links and files of these devices as a function for bash, made by cdi-hpc: source this
# file and call cdi_mounts ROOT. It expects to run as root of a mount namespace of its own (unshare
# --user --map-root-user --mount will do) with the container's root made at ROOT, its /proc and /dev
# mounted, and writable where mount points and links are missing. They stay there. It returns 125 and
# says why if something fails. The environment is not set: see --only env.
# device: vendor.example/nic=all
# shellcheck disable=SC2016

# ... preamble.bash ...

# ==============================================================================================
# The plan.
# ==============================================================================================

wants_private_dev() { false; }

# What stops it: demands of the specs that can't be met.
cdi_hpc_refusals=(
  'netDevices eth0: a network device can'"'"'t be moved without privilege (/etc/cdi/vendor.yaml: containerEdits.netDevices[0])'
)

plan() {
  :
  # from /etc/cdi/vendor.yaml: containerEdits.intelRdt
  # not done: intelRdt: resctrl groups need privilege; the host's own apply
  # from /etc/cdi/vendor.yaml: containerEdits.netDevices[0]
  # not done: netDevices eth0: a network device can't be moved without privilege
}

cdi_mounts() ( # ROOT; a subshell, so that nothing else of the caller changes
  main_mounts "$@"
)
