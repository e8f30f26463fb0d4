#!/usr/bin/env bash
# The environment that these devices ask for, made by cdi-hpc: source this file in bash.
# Mounts, links and devices of the plan are not in it: a native job sees the host's.
# device: v/c=0\nreboot
# shellcheck disable=SC2016

# from /etc/cdi/x\nreboot #$(reboot)`reboot`.yaml: containerEdits.env[0]\r\nreboot
export A=$'it\'s $(reboot) `reboot` ${HOME} \\ "\n!! -n %s \377\033[2J \342\200\256'
