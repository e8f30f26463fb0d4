#!/usr/bin/env bash
# Runs a command in an image with these devices, as an ordinary user; made by cdi-hpc.
# usage: bash SCRIPT [--stage=auto|overlay|underlay] IMAGE COMMAND [ARGUMENT...]
# IMAGE is a directory; / is the host itself. It is not written to. The exit status is the command's;
# 125 is a failure of this script, 126 and 127 mean that the command can't be run or isn't there.
# Needs bash 4.2, util-linux 2.36, coreutils, and ldconfig where libraries are added.
# device: vendor.example/gpu=0
# shellcheck disable=SC2016

# ... preamble.bash ...

# ==============================================================================================
# The plan.
# ==============================================================================================

wants_private_dev() { false; }

# What stops it: demands of the specs that can't be met.
cdi_hpc_refusals=(
  'deviceNodes /dev/gone: /dev/gone is not on this host; is the driver loaded, and the spec from this machine? (/etc/cdi/not-from-this-machine.yaml: containerEdits.deviceNodes[0])'
  'deviceNodes /dev/gone-with-numbers: /dev/gone-with-numbers is not on this host, and a user namespace can'"'"'t make a device node (c 195:9); load the driver or have the administrator make it (/etc/cdi/not-from-this-machine.yaml: containerEdits.deviceNodes[1])'
  'deviceNodes /dev/other-type: the spec says type '"'"'b'"'"' (block), /dev/other-type is a character device; generate the spec again (/etc/cdi/not-from-this-machine.yaml: containerEdits.deviceNodes[2])'
  'deviceNodes /dev/plain-file: /dev/plain-file is a file on this host, not a device node (/etc/cdi/not-from-this-machine.yaml: containerEdits.deviceNodes[3])'
  'deviceNodes relative: '"'"'relative'"'"' is not an absolute path; correct the spec (/etc/cdi/not-from-this-machine.yaml: containerEdits.deviceNodes[4])'
  'deviceNodes /dev/hidden/x: permission denied on the way to /dev/hidden/x: ask the administrator for search permission on its directories (/etc/cdi/not-from-this-machine.yaml: containerEdits.deviceNodes[5])'
  'mounts /usr/..: a mount can'"'"'t replace the container'"'"'s root (/etc/cdi/not-from-this-machine.yaml: containerEdits.mounts[2])'
  'mounts /proc: a user namespace can'"'"'t mount file system type '"'"'proc'"'"'; ask for a bind of one that is mounted (/etc/cdi/not-from-this-machine.yaml: containerEdits.mounts[3])'
  'mounts /usr/lib/libgone.so.1: /usr/lib/libgone.so.1 is not on this host; was the driver changed after the spec was made? Generate the spec again (/etc/cdi/not-from-this-machine.yaml: containerEdits.mounts[0])'
  'mounts /usr/lib/relative.so: hostPath '"'"'lib/relative.so'"'"' is not absolute; correct the spec (/etc/cdi/not-from-this-machine.yaml: containerEdits.mounts[1])'
)

plan() {
  :
  # from /etc/cdi/not-from-this-machine.yaml: devices[0].containerEdits.env[0]
  environment+=(A=1)
  # from /etc/cdi/not-from-this-machine.yaml: containerEdits.deviceNodes[0]
  # not done: deviceNodes /dev/gone: /dev/gone is not on this host; is the driver loaded, and the spec from this machine?
  # from /etc/cdi/not-from-this-machine.yaml: containerEdits.deviceNodes[1]
  # not done: deviceNodes /dev/gone-with-numbers: /dev/gone-with-numbers is not on this host, and a user namespace can't make a device node (c 195:9); load the driver or have the administrator make it
  # from /etc/cdi/not-from-this-machine.yaml: containerEdits.deviceNodes[2]
  # not done: deviceNodes /dev/other-type: the spec says type 'b' (block), /dev/other-type is a character device; generate the spec again
  # from /etc/cdi/not-from-this-machine.yaml: containerEdits.deviceNodes[3]
  # not done: deviceNodes /dev/plain-file: /dev/plain-file is a file on this host, not a device node
  # from /etc/cdi/not-from-this-machine.yaml: containerEdits.deviceNodes[4]
  # not done: deviceNodes relative: 'relative' is not an absolute path; correct the spec
  # from /etc/cdi/not-from-this-machine.yaml: containerEdits.deviceNodes[5]
  # not done: deviceNodes /dev/hidden/x: permission denied on the way to /dev/hidden/x: ask the administrator for search permission on its directories
  # from /etc/cdi/not-from-this-machine.yaml: containerEdits.mounts[2]
  # not done: mounts /usr/..: a mount can't replace the container's root
  # from /etc/cdi/not-from-this-machine.yaml: containerEdits.mounts[3]
  # not done: mounts /proc: a user namespace can't mount file system type 'proc'; ask for a bind of one that is mounted
  # from /etc/cdi/not-from-this-machine.yaml: containerEdits.mounts[4]
  # nothing to do for mounts /tmp/nvidia-mps: skipped: /tmp/nvidia-mps is not there, its daemon does not run on this host
  # from /etc/cdi/not-from-this-machine.yaml: containerEdits.mounts[0]
  # not done: mounts /usr/lib/libgone.so.1: /usr/lib/libgone.so.1 is not on this host; was the driver changed after the spec was made? Generate the spec again
  # from /etc/cdi/not-from-this-machine.yaml: containerEdits.mounts[1]
  # not done: mounts /usr/lib/relative.so: hostPath 'lib/relative.so' is not absolute; correct the spec
}

cdi_hpc_next=()
main "$@"
exec -- "${cdi_hpc_next[@]}"
