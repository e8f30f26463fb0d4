"""Batch scripts and interactive shells are on the machine; what they start runs in the image of --cdi-image.

The script is a file of slurmd's, which is in no image, and so are Slurm's own commands.
"""

from __future__ import annotations

GPU = ("--gres=gpu:1", "--cdi=nvidia.com/gpu")

#: Of the script or shell, then of a step of it: what it runs on, and whether it has the devices.
SCRIPT = """#!/bin/sh
test -e /opt/dlprobe && echo script: image || echo script: machine
nvidia-smi
srun --quiet -n2 sh -c 'test -e /opt/dlprobe && nvidia-smi'
srun --quiet --cdi=none -n1 sh -c 'test -e /opt/dlprobe || echo plain'
"""

#: What it says.
SAID = ["script: machine", *["nvidia-smi 570.133.20 of the lab"] * 3, "plain"]


def test_a_batch_script_is_on_the_machine_and_its_steps_are_in_the_image(hidden_site, lab):
    image = lab.image("debian-root")
    script = SCRIPT.replace("/bin/sh\n", f"/bin/sh\n#SBATCH --cdi-image={image}\n", 1)
    status, output = hidden_site.batch(script, "-n2", *GPU)
    assert (status, output.splitlines()) == (0, SAID)


def test_an_interactive_shell_is_on_the_machine_and_its_steps_are_in_the_image(hidden_site, lab):
    (hidden_site.top / "home/shell").write_text(SCRIPT)
    done = hidden_site.run("salloc", "--quiet", "-n2", *GPU, f"--cdi-image={lab.image('debian-root')}")
    assert (done.returncode, done.stdout.splitlines()) == (0, SAID), done.stderr
