#!/usr/bin/env bash
# Runs a command in an image with these devices, as an ordinary user; made by cdi-hpc.
# usage: bash SCRIPT [--stage=auto|overlay|underlay] IMAGE COMMAND [ARGUMENT...]
# IMAGE is a directory; / is the host itself. It is not written to. The exit status is the command's;
# 125 is a failure of this script, 126 and 127 mean that the command can't be run or isn't there.
# Needs bash 4.2, util-linux 2.36, coreutils, and ldconfig where libraries are added.
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

cdi_hpc_next=()
main "$@"
exec -- "${cdi_hpc_next[@]}"
