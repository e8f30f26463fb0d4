"""The embedded launcher: a container with nothing but the kernel."""
