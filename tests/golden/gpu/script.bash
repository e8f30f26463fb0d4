#!/usr/bin/env bash
# Runs a command in an image with these devices, as an ordinary user; made by cdi-hpc.
# usage: bash SCRIPT [--stage=auto|overlay|underlay] IMAGE COMMAND [ARGUMENT...]
# IMAGE is a directory; / is the host itself. It is not written to. The exit status is the command's;
# 125 is a failure of this script, 126 and 127 mean that the command can't be run or isn't there.
# Needs bash 4.2, util-linux 2.36, coreutils, and ldconfig where libraries are added.
# device: vendor.example/gpu=1
# device: vendor.example/gpu=0
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
  # from /etc/cdi/gpu.yaml: containerEdits.env[0]
  environment+=(VENDOR_VISIBLE_DEVICES=void)
  # from /etc/cdi/gpu.yaml: containerEdits.deviceNodes[0]
  bind device /dev/nvidiactl /dev/nvidiactl bind,rprivate
  # from /etc/cdi/gpu.yaml: devices[1].containerEdits.deviceNodes[0]
  bind device /dev/nvidia1 /dev/nvidia1 bind,rprivate
  # from /etc/cdi/gpu.yaml: devices[0].containerEdits.deviceNodes[0]
  bind device /dev/nvidia0 /dev/nvidia0 bind,rprivate
  # from /etc/cdi/gpu.yaml: containerEdits.mounts[1]
  # nothing to do for mounts /run/vendor-persistenced/socket: skipped: /run/vendor-persistenced/socket is not there, its daemon does not run on this host
  # from /etc/cdi/gpu.yaml: containerEdits.mounts[2]
  bind directory /opt/vendor/share /usr/share/vendor rbind,nodev,nosuid,ro,relatime,rprivate
  # from /etc/cdi/gpu.yaml: containerEdits.mounts[0]
  bind file /usr/lib/x86_64-linux-gnu/libcuda.so.570.1 /usr/lib/x86_64-linux-gnu/libcuda.so.570.1 bind,nodev,nosuid,ro,relatime,rprivate
  # from /etc/cdi/gpu.yaml: containerEdits.hooks[0]
  link /usr/lib/x86_64-linux-gnu/libcuda.so libcuda.so.1
  # from /etc/cdi/gpu.yaml: containerEdits.hooks[1]
  cuda_compat /usr/local/cuda/compat 570.1 ''
  # from /etc/cdi/gpu.yaml: containerEdits.hooks[2]
  ldcache /usr/lib/x86_64-linux-gnu
  # from /etc/cdi/gpu.yaml: containerEdits.hooks[3]
  file /proc/driver/nvidia/params 444 $'ModifyDeviceFiles: 0\nDeviceFileUID: 0\n'
  # from /etc/cdi/gpu.yaml: containerEdits.hooks[4]
  file /etc/nvidia/nvidia-application-profiles-rc.d/10-container.conf 444 '{"profiles":[{"name":"_container_","settings":["EGLVisibleDGPUDevices",0x3]}],"rules":[{"pattern":[],"profile":"_container_"}]}'
}

cdi_hpc_next=()
main "$@"
exec -- "${cdi_hpc_next[@]}"
