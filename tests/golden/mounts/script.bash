#!/usr/bin/env bash
# Runs a command in an image with these devices, as an ordinary user; made by cdi-hpc.
# usage: bash SCRIPT [--stage=auto|overlay|underlay] IMAGE COMMAND [ARGUMENT...]
# IMAGE is a directory; / is the host itself. It is not written to. The exit status is the command's;
# 125 is a failure of this script, 126 and 127 mean that the command can't be run or isn't there.
# Needs bash 4.2, util-linux 2.36, coreutils, and ldconfig where libraries are added.
# device: vendor.example/mounts=all
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
  # from /etc/cdi/mounts.yaml: devices[0].containerEdits.mounts[1]
  bind file /data/real-f /f bind,nodev,nosuid,ro,relatime,rprivate
  # from /etc/cdi/mounts.yaml: devices[0].containerEdits.mounts[1]
  # nothing to do for mounts /f: option 'noatime' is left out: a user namespace can't change how access times are kept
  # from /etc/cdi/mounts.yaml: devices[0].containerEdits.mounts[2]
  bind file /data/real-f /g bind,rprivate
  # from /etc/cdi/mounts.yaml: devices[0].containerEdits.mounts[2]
  # nothing to do for mounts /g: option 'size=1' means nothing to a bind and is left out
  # from /etc/cdi/mounts.yaml: devices[0].containerEdits.mounts[3]
  filesystem tmpfs tmpfs /scratch nosuid,size=64m,mode=1777
  # from /etc/cdi/mounts.yaml: devices[0].containerEdits.mounts[3]
  # nothing to do for mounts /scratch: option 'shared' means nothing to a mount of the container's own
  # from /etc/cdi/mounts.yaml: devices[0].containerEdits.mounts[4]
  bind socket /run/daemon.sock /run/daemon.sock bind,rprivate
  # from /etc/cdi/mounts.yaml: devices[0].containerEdits.mounts[5]
  bind directory /data /odd/path rbind,rprivate
  # from /etc/cdi/mounts.yaml: devices[0].containerEdits.mounts[0]
  bind directory /data /deep/er/data rbind,ro,nodev,relatime,rslave
  # from /etc/cdi/mounts.yaml: devices[0].containerEdits.mounts[0]
  # nothing to do for mounts /deep/er/data: option 'rro' is applied to the mount itself, not to mounts below it
}

cdi_hpc_next=()
main "$@"
exec -- "${cdi_hpc_next[@]}"
