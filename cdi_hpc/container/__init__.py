"""A container's files before they exist, what its loader would find, and the mount steps that make it."""
