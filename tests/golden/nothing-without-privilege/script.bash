#!/usr/bin/env bash
# Runs a command in an image with these devices, as an ordinary user; made by cdi-hpc.
# usage: bash SCRIPT [--stage=auto|overlay|underlay] IMAGE COMMAND [ARGUMENT...]
# IMAGE is a directory; / is the host itself. It is not written to. The exit status is the command's;
# 125 is a failure of this script, 126 and 127 mean that the command can't be run or isn't there.
# Needs bash 4.2, util-linux 2.36, coreutils, and ldconfig where libraries are added.
# device: vendor.example/nic=port0
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
  # from /etc/cdi/nothing-without-privilege.yaml: devices[0].containerEdits.env[0]
  environment+=(PORT=0)
  # from /etc/cdi/nothing-without-privilege.yaml: devices[0].containerEdits.deviceNodes[0]
  bind device /dev/nic0 /dev/nic0 bind,rprivate
  # from /etc/cdi/nothing-without-privilege.yaml: devices[0].containerEdits.deviceNodes[0]
  # nothing to do for deviceNodes /dev/nic0: the spec says 231:4, the host's node is 231:192 and is the one bound; generate the spec again if the driver was reloaded
  # from /etc/cdi/nothing-without-privilege.yaml: devices[0].containerEdits.deviceNodes[0]
  # not done: deviceNodes /dev/nic0 permissions r: device cgroup rules need privilege; the host node's owner and mode decide
  # from /etc/cdi/nothing-without-privilege.yaml: devices[0].containerEdits.deviceNodes[0]
  # nothing to do for deviceNodes /dev/nic0: a bind keeps the host's owner and mode: not fileMode 660 (host's 666), uid 1000 (host's 0), gid 7 (host's 0)
  # from /etc/cdi/nothing-without-privilege.yaml: devices[0].containerEdits.hooks[0]
  # not done: hooks site-hook: '/opt/site/bin/site-hook': this program is not known
  # from /etc/cdi/nothing-without-privilege.yaml: devices[0].containerEdits.netDevices[0]
  # nothing to do for netDevices eth0: the host's network namespace is shared: the interface is there under its own name
  # from /etc/cdi/nothing-without-privilege.yaml: devices[0].containerEdits.netDevices[1]
  # not done: netDevices ib0: moving or renaming an interface needs privilege; it is seen as ib0
  # from /etc/cdi/nothing-without-privilege.yaml: devices[0].containerEdits.additionalGids[0]
  # not done: additionalGids 44: a user namespace can't add groups, and you are not a member of video; ask the administrator to add you to it
  # from /etc/cdi/nothing-without-privilege.yaml: devices[0].containerEdits.additionalGids[1]
  # nothing to do for additionalGids 1000: you are a member already, and membership is kept
  # from /etc/cdi/nothing-without-privilege.yaml: devices[0].containerEdits.intelRdt
  # not done: intelRdt: resctrl groups need privilege; the host's own apply
}

cdi_hpc_next=()
main "$@"
exec -- "${cdi_hpc_next[@]}"
