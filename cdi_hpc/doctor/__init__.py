"""What may be wrong with a host, an image or a request, looked for before a launch meets it.

table.py     every check, in order
checks.py    a check, a finding, and how checks are made
kernel.py    namespaces, limits, overlays, FUSE
programs.py  the native runner, launchers, drop-ins, tools
places.py    directories that we use
specs.py     spec files, the devices of a request, access to them
images.py    an image, and what a plan finds in it
slurm.py     Slurm's plugin, what its GRES mean, what a step was given
"""
