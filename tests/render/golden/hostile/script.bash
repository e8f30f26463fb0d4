#!/usr/bin/env bash
# Runs a command in an image with these devices, as an ordinary user; made by cdi-hpc.
# usage: bash SCRIPT [--stage=auto|overlay|underlay] IMAGE COMMAND [ARGUMENT...]
# IMAGE is a directory; / is the host itself. It is not written to. The exit status is the command's;
# 125 is a failure of this script, 126 and 127 mean that the command can't be run or isn't there.
# Needs bash 4.2, util-linux 2.36, coreutils, and ldconfig where libraries are added.
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

cdi_hpc_next=()
main "$@"
exec -- "${cdi_hpc_next[@]}"
