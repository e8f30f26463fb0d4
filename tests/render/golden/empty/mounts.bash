#!/usr/bin/env bash
# The mounts, links and files of these devices as a function for bash, made by cdi-hpc: source this
# file and call cdi_mounts ROOT. It expects to run as root of a mount namespace of its own (unshare
# --user --map-root-user --mount will do) with the container's root made at ROOT, its /proc and /dev
# mounted, and writable where mount points and links are missing. They stay there. It returns 125 and
# says why if something fails. The environment is not set: see --only env.
# shellcheck disable=SC2016

# ... preamble.bash ...

# ==============================================================================================
# The plan.
# ==============================================================================================

wants_private_dev() { false; }

# What stops it: demands of the specs that can't be met.
cdi_hpc_refusals=(
)

plan() {
  :
}

cdi_mounts() ( # ROOT; a subshell, so that nothing else of the caller changes
  main_mounts "$@"
)
