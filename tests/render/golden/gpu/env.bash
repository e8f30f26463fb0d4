#!/usr/bin/env bash
# The environment that these devices ask for, made by cdi-hpc: source this file in bash.
# Mounts, links and devices of the plan are not in it: a native job sees the host's.
# device: nvidia.com/gpu=0
# shellcheck disable=SC2016

# from /etc/cdi/vendor.yaml: containerEdits.env[0]
export NVIDIA_VISIBLE_DEVICES=void
