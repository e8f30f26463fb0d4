#!/usr/bin/env bash
# The environment that these devices ask for, made by cdi-hpc: source this file in bash.
# Mounts, links and devices of the plan are not in it: a native job sees the host's.
# shellcheck disable=SC2016

