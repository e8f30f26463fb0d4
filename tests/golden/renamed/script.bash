#!/usr/bin/env bash
# Runs a command in an image with these devices, as an ordinary user; made by cdi-hpc.
# usage: bash SCRIPT [--stage=auto|overlay|underlay] IMAGE COMMAND [ARGUMENT...]
# IMAGE is a directory; / is the host itself. It is not written to. The exit status is the command's;
# 125 is a failure of this script, 126 and 127 mean that the command can't be run or isn't there.
# Needs bash 4.2, util-linux 2.36, coreutils, and ldconfig where libraries are added.
# device: vendor.example/accel=third
# shellcheck disable=SC2016

# ... preamble.bash ...

# ==============================================================================================
# The plan.
# ==============================================================================================

# The container has a /dev of its own: the host's /dev has no /dev/accel0
wants_private_dev() { true; }

# What stops it: demands of the specs that can't be met.
cdi_hpc_refusals=(
)

plan() {
  :
  # from /etc/cdi/renamed.yaml: devices[0].containerEdits.deviceNodes[0]
  bind device /dev/accel/accel3 /dev/accel0 bind,rprivate
  # from /etc/cdi/renamed.yaml: devices[0].containerEdits.deviceNodes[0]
  # not done: deviceNodes /dev/accel0 access: /dev/accel/accel3 can't be opened (Permission denied): it needs membership of group video, which a user namespace can't add; ask the administrator to add you to it
  # from /etc/cdi/renamed.yaml: devices[0].containerEdits.deviceNodes[1]
  bind device /dev/accel/accel3 /dev/accel-by-id/x bind,rprivate
  # from /etc/cdi/renamed.yaml: devices[0].containerEdits.deviceNodes[1]
  # not done: deviceNodes /dev/accel-by-id/x access: /dev/accel-by-id/x can't be opened (Operation not permitted): the job's device cgroup does not allow it
  # from /etc/cdi/renamed.yaml: devices[0].containerEdits.hooks[0]
  link /dev/accel-by-name/first ../accel0
}

cdi_hpc_next=()
main "$@"
exec -- "${cdi_hpc_next[@]}"
