"""Ways around a site's rules that a user may try with a step of Slurm's, as data: test_policy_ways.py tries them.

Whatever the rules deny has a text in it that the site's specs write and nobody else: a task that says it was given it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: In every variable and path that the rules deny.
MARK = "given-by-the-spec"

#: The kind of the site's own devices; one that everybody may have, one that nobody may, one in the user's directory.
KIND = "lab.example/tool"
OPEN = f"{KIND}=open"
VAULT = f"{KIND}=vault"
SHARED = f"{KIND}=shared"

MODES = ("handoff", "mounts")

# What is said.
RULE = "the site does not allow the device 'lab.example/tool=vault'"
SOURCE = "the site does not allow the host path"
TARGET = "the site does not allow the container path"
NO_DEVICE = "is not a device"
NO_SPEC = "no spec for the kind"
NO_GPUS = "this step has no GPUs allocated"

_LINK_HOOK = {
    "hookName": "createContainer",
    "path": "/usr/bin/nvidia-cdi-hook",
    "args": ["nvidia-cdi-hook", "create-symlinks", "--link", f"/opt::/lib/{MARK}"],
}

#: Devices of the site's spec: name -> edits. In texts as in those of a Way.
DEVICES = {
    "open": {"env": ["OPEN=1"]},
    "vault": {"env": [f"VAULT={MARK}"]},
    "token": {"env": [f"TOKEN={MARK}"]},
    "source": {"mounts": [{"hostPath": "{site}/" + MARK, "containerPath": "/mnt"}]},
    "dotted": {"mounts": [{"hostPath": "{home}/../" + MARK, "containerPath": "/mnt"}]},
    "around": {"mounts": [{"hostPath": "{site}", "containerPath": "/mnt"}]},
    "shared": {"mounts": [{"hostPath": "{home}/shared", "containerPath": "/mnt"}]},
    "covering": {"mounts": [{"hostPath": "{site}/open", "containerPath": "/usr/local/lib"}]},
    # On a machine like those of the lab, /lib is a link to usr/lib.
    "linked": {"mounts": [{"hostPath": "{site}/open", "containerPath": f"/lib/{MARK}"}]},
    "rooted": {"mounts": [{"hostPath": "{site}/open", "containerPath": "/proc/self/root/usr/local/lib"}]},
    "node": {"deviceNodes": [{"path": f"/lib/{MARK}", "hostPath": "/dev/null"}]},
    "link": {"hooks": [_LINK_HOOK]},
    "cache": {"hooks": [{**_LINK_HOOK, "args": ["nvidia-cdi-hook", "update-ldcache", "--folder", "/opt/site"]}]},
    "through": {"mounts": [{"hostPath": "{site}/open", "containerPath": "/through"}]},
    "hooked": {"hooks": [{"hookName": "createContainer", "path": "/opt/vendor/hook", "args": ["hook"]}]},
}

#: Specs that the user has planted, where they are looked for if he gets it so: he gives himself what is denied.
PLANTED_DEVICES = {
    "lab.example/tool": {"open": {"env": [f"VAULT={MARK}"]}, "vault": {"env": [f"VAULT={MARK}"]}},
    "mine.example/tool": {"x": {"env": [f"VAULT={MARK}"]}},
}

RULES = """\
spec-directories: ['{site}/specs', /etc/cdi]
hooks: {{unknown: fail}}
aliases: {{safe: lab.example/tool=vault}}
slurm: {{unmapped: all, gres: {{gpu: {{kind: nvidia.com/gpu, by: index}}}}}}
policy:
  kinds: {{rules: [{{deny: secret.org/*}}]}}
  devices: {{rules: [{{allow: lab.example/tool=vault, users: root, groups: root}}, {{deny: lab.example/tool=vault}}]}}
  mount-sources: {{rules: [{{deny: '{site}/given-by-the-spec/**'}}]}}
  mount-targets: {{rules: [{{deny: [/usr/local/**, /usr/lib/given-by-the-spec, /etc/ld.so.conf.d/**]}}]}}
  environment: {{rules: [{{deny: TOKEN}}]}}
"""

#: What the user plants as a configuration, by the name of its directory.
PLANTED_CONFIGURATIONS = {
    "config": "spec-directories: ['{planted}/specs']\naliases: {{safe: mine.example/tool=x}}\n",
    "rules": "policy: {{devices: {{default: allow}}}}\n",
    "home/.config": "spec-directories: ['{planted}/specs']\n",
}


@dataclass(frozen=True)
class Way:
    """One attempt. In texts {home} is the user's directory, {planted} the one below it where he has planted something,
    {site} the administrator's, {cache} the user's plans as the plugin keeps them, {mode} the --cdi-mode.

    Attributes:
        ask: the value of --cdi.
        said: in the refusal; "" where the step runs, and has what it may have.
        words: further words of srun's.
        env: of srun's.
        before: a script of the user's, run before. There are no plans yet.
        instead: a script of the user's in place of `srun ... {probe}`; {probe} says what was given.
        found: a script that is run when a plan has been found, before it is used, as a quick process of the user's.
        compiled: the same for a plan that has been compiled.
        modes: values of --cdi-mode to try; "" for none.

    """

    ask: str = VAULT
    said: str = RULE
    words: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    before: str = ""
    instead: str = ""
    found: str = ""
    compiled: str = ""
    modes: tuple[str, ...] = ("mounts",)


def spelled(text: str, said: str) -> Way:
    """The denied device in other words."""
    return Way(text, said)


def led_to(before: str = "", **env: str) -> Way:
    """Variables that lead to what the user has planted: what is allowed is had as the site has it."""
    return Way(OPEN, "", env=env, before=before)


def kept(change: str, ask: str = OPEN) -> Way:
    """A plan of what is allowed, changed where it is kept."""
    return Way(ask, "", before=f"srun --quiet --cdi={ask} --cdi-mode={{mode}} true\n{change}", modes=MODES)


def in_turn(script: str, said: str = RULE, *, mode: str = "") -> Way:
    """Commands of the user's own."""
    return Way(said=said, instead=script, modes=(mode,))


#: Every plan that is kept has the denied variable, and the denied directory in place of the user's.
FORGE = "python3 {planted}/forge.py {cache}/*.plan\n"

#: Plans as they are where the plugin keeps them, forged, in another directory.
ELSEWHERE = (
    f"srun --quiet --cdi={OPEN} --cdi-mode={{mode}} true\n"
    "rm -rf {planted}/run; mkdir -m 700 -p {planted}/run {planted}/tmp; cp -r {cache} {planted}/run/cdi-hpc\n"
    "python3 {planted}/forge.py {planted}/run/cdi-hpc/*.plan; cp {planted}/run/cdi-hpc/*.plan {planted}/a.plan\n"
    "rm -rf {planted}/tmp/*; cp -r {planted}/run/cdi-hpc {planted}/tmp/cdi-hpc-$(id -u); rm -r {cache}\n"
)

LINK = f"rmdir {{home}}/shared; ln -s {{site}}/{MARK} {{home}}/shared\n"

#: A plan is being compiled, as far as anybody can see, and is there: but it is the user's.
COMPILED_ELSEWHERE = (
    f"srun --quiet --cdi={OPEN} --cdi-mode={{mode}} true\n"
    "plan=$(echo {cache}/*.plan); cp $plan {planted}/a.plan; python3 {planted}/forge.py {planted}/a.plan; rm $plan\n"
    'flock ${{plan%.plan}}.lock sh -c "sleep 2; cp {planted}/a.plan $plan" > /dev/null 2>&1 &\n'
)

#: A node's own Python, with rules in which everything is allowed, in a user namespace of the user's.
WITHOUT_RULES = (
    "srun --quiet unshare --map-current-user --keep-caps --mount sh -c '"
    "mount --bind {planted}/etc /etc/cdi-hpc && XDG_RUNTIME_DIR={cache}/.. cdi-hpc compile " + VAULT + "'"
)

ALL_GPUS = {
    "SLURM_STEP_GPUS": "0,3",
    "SLURM_JOB_GPUS": "0,3",
    "SLURM_GPUS_ON_NODE": "8",
    "CUDA_VISIBLE_DEVICES": "0,3",
    "GPU_DEVICE_ORDINAL": "0,3",
}
GPU = "nvidia.com/gpu=3"
NOT_ALLOCATED = "it was not allocated to this step"

WAYS: dict[str, Way] = {
    "asking for it": Way(modes=MODES),
    # Spelling -------------------------------------------------------------------------------------------------------
    "the whole kind": spelled(KIND, RULE),
    "all of the kind": spelled(f"{KIND}=all", RULE),
    "behind what is allowed": spelled(f"{OPEN},{VAULT}", RULE),
    "twice": spelled(f"{VAULT},{VAULT}", RULE),
    "a kind that is denied": spelled("secret.org/vault=x", "the site does not allow the kind 'secret.org/vault'"),
    "a vendor in capitals": spelled("LAB.example/tool=vault", NO_SPEC),
    "a class in capitals": spelled("lab.example/Tool=vault", NO_SPEC),
    "a name in capitals": spelled(f"{KIND}=VAULT", "no such device"),
    "a name with a dot": spelled(f"{VAULT}.", NO_DEVICE),
    "a letter that looks the same": spelled(f"{KIND}=v\u0430ult", NO_DEVICE),
    "a letter of two code points": spelled(f"{KIND}=va\u0308ult", NO_DEVICE),
    "a glob": spelled(f"{KIND}=vaul?", NO_DEVICE),
    "a star": spelled(f"{KIND}=*", NO_DEVICE),
    "a bracket": spelled(f"{KIND}=[v]ault", NO_DEVICE),
    "an alias": spelled("safe", NO_DEVICE),
    "a spec of the user's by its path": spelled("{planted}/specs/0.json", NO_DEVICE),
    "a spec of the user's by a relative path": spelled("./planted/specs/0.json", NO_DEVICE),
    "a path with ..": spelled(f"{KIND}/../tool=vault", NO_DEVICE),
    "a lock file": spelled("{planted}/job.lock", NO_DEVICE),
    "a spec in the working directory": spelled("planted/specs/0.json", NO_DEVICE),
    "a spec in the working directory, like a kind": spelled("planted/tool.json", NO_DEVICE),
    "a spec in the working directory, like a device": spelled("mine.example/tool=x.json", NO_DEVICE),
    "a relative lock file": spelled("planted/job.lock", NO_DEVICE),
    "an option in place of a device": spelled("--cdi-dir={planted}/specs", NO_DEVICE),
    "a line end": spelled(f"{OPEN}\n{VAULT}", NO_DEVICE),
    "nothing between commas": spelled(f"{OPEN},,{VAULT}", NO_DEVICE),
    "none, and then something": spelled(f"none,{VAULT}", NO_DEVICE),
    "a mode in capitals": Way(said="is neither handoff nor mounts", words=("--cdi-mode=MOUNTS",), modes=("",)),
    "the option twice": Way(said="given twice", words=(f"--cdi={OPEN}",), modes=("",)),
    # What an allowed name leads to ----------------------------------------------------------------------------------
    "a path that is denied": Way(f"{KIND}=source", SOURCE, modes=MODES),
    "a path with .. that is denied": Way(f"{KIND}=dotted", SOURCE),
    "a directory around what is denied": Way(f"{KIND}=around", SOURCE),
    "a place that is denied": Way(f"{KIND}=covering", "the site does not allow the container path '/usr/local/lib'"),
    "a place behind a link": Way(f"{KIND}=linked", TARGET, modes=MODES),
    "a place behind the kernel's link to the root": Way(f"{KIND}=rooted", TARGET, modes=MODES),
    "a node behind a link": Way(f"{KIND}=node", TARGET, modes=MODES),
    "a link behind a link": Way(f"{KIND}=link", TARGET, modes=MODES),
    "what is written for the loader": Way(f"{KIND}=cache", TARGET),
    "a place behind a link in an image": in_turn(
        f"srun --quiet --cdi={KIND}=through --cdi-image={{planted}}/image /probe", TARGET
    ),
    "a place behind a link in an image that is a file": in_turn(
        f"srun --quiet --cdi={KIND}=through --cdi-image={{planted}}/image.sqfs /probe", TARGET
    ),
    "a variable that is denied": Way(f"{KIND}=token", "the site does not allow the variable 'TOKEN=", modes=MODES),
    "a link of the user's": Way(SHARED, SOURCE, before=LINK, modes=MODES),
    "a link to a link": Way(SHARED, SOURCE, before=f"rmdir shared; ln -s {{site}}/{MARK} 1; ln -s 1 shared"),
    "a link to what is around": Way(SHARED, SOURCE, before="rmdir shared; ln -s {site} shared"),
    "a link made after the plan": Way(
        SHARED, SOURCE, before=f"srun --quiet --cdi={SHARED} --cdi-mode={{mode}} true\n{LINK}", modes=MODES
    ),
    "a link made between plan and use": Way(SHARED, "it has changed since", compiled=LINK),
    "a hook that nobody knows": Way(
        f"{KIND}=hooked",
        "this program is not known",
        env={"CDI_HPC_UNKNOWN_HOOKS": "warn", "CDI_HPC_UNSUPPORTED": "warn"},
    ),
    # Variables ------------------------------------------------------------------------------------------------------
    "who I am": Way(env={"USER": "root", "LOGNAME": "root", "SLURM_JOB_USER": "root", "SLURM_JOB_UID": "0"}),
    "spec directories": led_to(CDI_HPC_DIRS="{planted}/specs"),
    "a device that only the user's directories have": Way(
        "mine.example/tool=x", NO_SPEC, env={"CDI_HPC_DIRS": "{planted}/specs", "XDG_CONFIG_HOME": "{planted}/config"}
    ),
    "configuration by XDG_CONFIG_HOME": led_to(XDG_CONFIG_HOME="{planted}/config"),
    "configuration by HOME": led_to(HOME="{planted}/home"),
    "rules by XDG_CONFIG_HOME": Way(env={"XDG_CONFIG_HOME": "{planted}/rules"}),
    "less strict by variables": Way(env={"CDI_HPC_STRICT": "0", "CDI_HPC_ALL_MEANS": "every"}),
    "devices asked for by a variable": led_to(CDI_HPC_DEVICES="mine.example/tool=x"),
    "plans by XDG_RUNTIME_DIR": led_to(ELSEWHERE, XDG_RUNTIME_DIR="{planted}/run"),
    "plans by TMPDIR": led_to(ELSEWHERE, XDG_RUNTIME_DIR="", TMPDIR="{planted}/tmp"),
    "plans by our variable": led_to(ELSEWHERE, CDI_HPC_CACHE_DIRECTORY="{planted}/run/cdi-hpc"),
    "a plan by its path": led_to(ELSEWHERE, CDI_HPC_PLAN="{planted}/a.plan"),
    "a plan said to be compiled": led_to(CDI_HPC_COMPILED="0" * 64),
    "programs by PATH": led_to(PATH="{planted}/bin:/usr/bin:/bin"),
    "programs by our variables": led_to(
        CDI_HPC_NATIVE="{planted}/bin/cdi-hpc-run", CDI_HPC_PYTHON_FRONT="{planted}/bin/cdi-hpc"
    ),
    "modules by PYTHONPATH": led_to(PYTHONPATH="{planted}/python"),
    "modules by PYTHONUSERBASE": led_to(PYTHONUSERBASE="{planted}/home/.local"),
    "modules by PYTHONHOME": led_to(PYTHONHOME="{planted}/python"),
    "a program before Python's": led_to(PYTHONSTARTUP="{planted}/python/sitecustomize.py", PYTHONINSPECT="1"),
    "a library by LD_PRELOAD": led_to(LD_PRELOAD="{planted}/lib/forge.so"),
    "a library by LD_AUDIT": led_to(LD_AUDIT="{planted}/lib/forge.so"),
    "a library by LD_LIBRARY_PATH": led_to(LD_LIBRARY_PATH="{planted}/lib"),
    "what a shell begins with": led_to(BASH_ENV="{planted}/bin/cdi-hpc", ENV="{planted}/bin/cdi-hpc"),
    "what is to be taken back": led_to(CDI_HPC_HANDOFF="OPEN=1\nHOME=x", CDI_HPC_ENV_NAMES="OPEN=CDI_HPC_DEVICES"),
    # Files, and where the step stands -------------------------------------------------------------------------------
    "modules in the working directory": Way(OPEN, "", words=("--chdir={planted}/python",)),
    "programs in the working directory": Way(
        OPEN, "", words=("--chdir={planted}/bin",), env={"PATH": ".:/usr/bin:/bin"}
    ),
    "no room for descriptors": Way(words=("--propagate=ALL",), before="ulimit -n 16"),
    "rules in an image": in_turn(f"srun --quiet --cdi={VAULT} --cdi-image={{planted}}/image /probe"),
    "links in an image": in_turn(f"srun --quiet --cdi={SHARED} --cdi-image={{planted}}/image /probe", ""),
    "links in an image that is a file": in_turn(
        f"srun --quiet --cdi={SHARED} --cdi-image={{planted}}/image.sqfs /probe", ""
    ),
    "an image that is a link to the machine": Way(words=("--cdi-image={planted}/machine",), modes=("",)),
    # Plans that are kept --------------------------------------------------------------------------------------------
    "a plan changed where it is kept": kept(FORGE),
    "a bind changed where it is kept": kept(FORGE, SHARED),
    "a plan of another device under this one's name": kept(
        "plan=$(echo {cache}/*.plan); mv $plan {planted}/a.plan; rm -r {cache}\n"
        f"srun --quiet --cdi={SHARED} --cdi-mode={{mode}} true; mv {{cache}}/*.plan $plan"
    ),
    "a stage that is a link": kept(
        f"for stage in {{cache}}/*.stage; do rm -rf $stage; ln -s {{site}}/{MARK} $stage; done", SHARED
    ),
    "a plan that somebody compiles at this moment": Way(OPEN, "", before=COMPILED_ELSEWHERE),
    "a plan made without rules": Way(before=WITHOUT_RULES),
    "a plan changed between search and use": Way(
        OPEN, "it is not a plan that", before=kept("").before, found=FORGE, modes=MODES
    ),
    "a plan changed between compilation and use": Way(OPEN, "it is not a plan that", compiled=FORGE, modes=MODES),
    "plans in a directory that is a link": Way(
        OPEN,
        "it is a link",
        before=kept("rm -r {cache}; mkdir -m 700 {planted}/run2; ln -s {planted}/run2 {cache}").before,
    ),
    "a debugger at the compiler": Way(
        OPEN, "", before="python3 {planted}/attach.py {home}/executed {site} > /dev/null 2>&1 &"
    ),
    # Slurm's --------------------------------------------------------------------------------------------------------
    "GPUs that were not given, by variables": Way(GPU, NO_GPUS, env=ALL_GPUS),
    "other GPUs than were given, by variables": Way(GPU, NOT_ALLOCATED, words=("--gres=gpu:1",), env=ALL_GPUS),
    "no GPUs": Way(GPU, NO_GPUS, words=("--gres=none",), env=ALL_GPUS),
    "GPUs by --export": Way(GPU, NO_GPUS, words=("--export=ALL,SLURM_STEP_GPUS=3,SLURM_JOB_GPUS=3",)),
    "a batch job without GPUs": in_turn(
        f"SLURM_JOB_GPUS=3 SLURM_STEP_GPUS=3 sbatch --wait --output=said --cdi={GPU} {{probe}}; cat said", NO_GPUS
    ),
    "a batch job with another GPU": in_turn(
        f"SLURM_JOB_GPUS=3 SLURM_STEP_GPUS=3 sbatch --wait --output=said --gres=gpu:1 --cdi={GPU} {{probe}}; cat said",
        NOT_ALLOCATED,
    ),
    "a batch job's option": in_turn(
        f"printf '#!/bin/sh\n#SBATCH --cdi={VAULT}\n{{probe}}\n' > job; sbatch --wait --output=said job; cat said"
    ),
    "an option by the variable of sbatch": in_turn(
        f"SLURM_SPANK__SLURM_SPANK_OPTION_cdi_cdi={VAULT} srun --quiet {{probe}}"
    ),
    "a step in an allocation": in_turn(f"salloc --quiet --cdi={OPEN} srun --quiet --cdi={VAULT} {{probe}}"),
    "a step in an allocation, by variables": in_turn(
        f"salloc --quiet --cdi={OPEN} env SLURM_SPANK__SLURM_SPANK_OPTION_cdi_cdi={VAULT} srun --quiet {{probe}}"
    ),
    "GPUs of a step in an allocation": in_turn(
        f"salloc --quiet --gres=gpu:1 env SLURM_JOB_GPUS=3 SLURM_STEP_GPUS=3 srun --quiet --cdi={GPU} {{probe}}",
        NOT_ALLOCATED,
    ),
    "a step in a step": in_turn(
        f"srun --quiet --cdi={OPEN} srun --quiet --overlap --cdi={VAULT} --cdi-mode=mounts {{probe}}"
    ),
    "a step in a step, with mounts around": in_turn(
        f"srun --quiet --cdi={OPEN} --cdi-mode=mounts srun --quiet --overlap --cdi={VAULT} {{probe}}"
    ),
    "GPUs of a step in a step": in_turn(
        "srun --quiet --gres=gpu:1 --cdi=nvidia.com/gpu env SLURM_STEP_GPUS=3 SLURM_JOB_GPUS=3 "
        f"srun --quiet --overlap --gres=none --cdi={GPU} {{probe}}",
        NO_GPUS,
    ),
    "half of a heterogeneous step": in_turn(f"srun --quiet {{probe}} : --cdi={VAULT} {{probe}}"),
    "a root of the user's own": in_turn(
        f"unshare --map-root-user srun --quiet --cdi={VAULT} {{probe}}", "srun: error: "
    ),
    "a plugin of the user's own in srun": in_turn(
        "SLURM_CONF={planted}/slurm/slurm.conf srun --quiet --cdi={planted}/specs/0.json {probe}", NO_DEVICE
    ),
    "arguments of the user's own in srun": Way(OPEN, "", env={"SLURM_CONF": "{planted}/slurm/arguments.conf"}),
    "several lines by a plugin of the user's own": in_turn(
        f"SLURM_CONF={{planted}}/slurm/slurm.conf srun --quiet --cdi='{OPEN}\n{VAULT}' {{probe}}", NO_DEVICE
    ),
}
