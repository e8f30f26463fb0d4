#!/usr/bin/env bash
# Runs a command in an image with these devices, as an ordinary user; made by cdi-hpc.
# usage: bash SCRIPT [--stage=auto|overlay|underlay] IMAGE COMMAND [ARGUMENT...]
# IMAGE is a directory; / is the host itself. It is not written to. The exit status is the command's;
# 125 is a failure of this script, 126 and 127 mean that the command can't be run or isn't there.
# Needs bash 4.2, util-linux 2.36, coreutils, and ldconfig where libraries are added.
# device: nvidia.com/gpu=0
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
  # from /etc/cdi/vendor.yaml: containerEdits.env[0]
  environment+=(NVIDIA_VISIBLE_DEVICES=void)
  # from /etc/cdi/vendor.yaml: devices[0].containerEdits.deviceNodes[0]
  bind device /dev/nvidia0 /dev/nvidia0 rbind,rprivate
  # from /etc/cdi/vendor.yaml: containerEdits.mounts[0]
  bind file /usr/lib/x86_64-linux-gnu/libcuda.so.570.133.20 /usr/lib/x86_64-linux-gnu/libcuda.so.570.133.20 rbind,ro,nosuid,nodev,relatime,rprivate
  # from /etc/cdi/vendor.yaml: containerEdits.mounts[1]
  bind directory /usr/share/vendor /usr/share/vendor bind,ro,nosuid,nodev,rprivate
  # from /etc/cdi/vendor.yaml: containerEdits.hooks[0]
  link /usr/lib/x86_64-linux-gnu/libcuda.so libcuda.so.1
  # from /etc/cdi/vendor.yaml: containerEdits.hooks[1]
  cuda_compat /usr/local/cuda/compat 570.133.20 ''
  # from /etc/cdi/vendor.yaml: containerEdits.hooks[2]
  ldcache /usr/lib/x86_64-linux-gnu /usr/lib/x86_64-linux-gnu/vdpau
  # from /etc/cdi/vendor.yaml: containerEdits.hooks[3]
  file /proc/driver/nvidia/params 444 $'ModifyDeviceFiles: 0\n'
  # from /etc/cdi/vendor.yaml: containerEdits.hooks[4]
  # nothing to do for hook chmod: the bind keeps the host's mode
}

cdi_hpc_next=()
main "$@"
exec -- "${cdi_hpc_next[@]}"
