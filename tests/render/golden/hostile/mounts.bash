#!/usr/bin/env bash
# The mounts, links and files of these devices as a function for bash, made by cdi-hpc: source this
# file and call cdi_mounts ROOT. It expects to run as root of a mount namespace of its own (unshare
# --user --map-root-user --mount will do) with the container's root made at ROOT, its /proc and /dev
# mounted, and writable where mount points and links are missing. They stay there. It returns 125 and
# says why if something fails. The environment is not set: see --only env.
# device: v/c=0\nreboot
# shellcheck disable=SC2016

# ... preamble.bash ...

# ==============================================================================================
# The plan.
# ==============================================================================================

# The container has a /dev of its own: because\nreboot
wants_private_dev() { true; }

# What stops it: demands of the specs that can't be met.
cdi_hpc_refusals=(
  'x\nreboot: $(reboot)\n'"'"' (/etc/cdi/x\nreboot #$(reboot)`reboot`.yaml: containerEdits.env[0]\r\nreboot)'
)

plan() {
  :
  # from /etc/cdi/x\nreboot #$(reboot)`reboot`.yaml: containerEdits.env[0]\r\nreboot
  environment+=($'A=it\'s $(reboot) `reboot` ${HOME} \\ "\n!! -n %s \377\033[2J \342\200\256')
  # from /etc/cdi/x\nreboot #$(reboot)`reboot`.yaml: containerEdits.env[0]\r\nreboot
  bind file $'/-n/$(reboot)\n' $'/it\'s\t\'; reboot; \'' rbind,ro,rprivate
  # from /etc/cdi/x\nreboot #$(reboot)`reboot`.yaml: containerEdits.env[0]\r\nreboot
  link /--help $'-n\nreboot'
  # from /etc/cdi/x\nreboot #$(reboot)`reboot`.yaml: containerEdits.env[0]\r\nreboot
  file /%s 600 $'%s \\\\n \\\\\\\\ \\0000 \377\n\''
  # from /etc/cdi/x\nreboot #$(reboot)`reboot`.yaml: containerEdits.env[0]\r\nreboot
  ldcache '/lib/$(reboot)'
  # from /etc/cdi/x\nreboot #$(reboot)`reboot`.yaml: containerEdits.env[0]\r\nreboot
  # nothing to do for hook\nreboot: why\nreboot
  # from /etc/cdi/x\nreboot #$(reboot)`reboot`.yaml: containerEdits.env[0]\r\nreboot
  # not done: x\nreboot: $(reboot)\n'
}

cdi_mounts() ( # ROOT; a subshell, so that nothing else of the caller changes
  main_mounts "$@"
)
