# shellcheck shell=bash
# Sourced by every recipe, which runs as root in a mount namespace of its own with these variables:
#   OUT     empty directory to fill           LAB     the lab, with the stages this one is made from
#   SOURCE  the project's checkout            MIRROR  Debian site
#   OWNER_UID, OWNER_GID  the tests' user
set -euo pipefail
umask 022
: "${OUT:?} ${LAB:?} ${SOURCE:?} ${MIRROR:?} ${OWNER_UID:?} ${OWNER_GID:?}"

# copy_tree FROM: fill OUT with a real copy, which may then be changed.
copy_tree() { cp --archive --reflink=auto "$1/." "$OUT"; }

# link_tree FROM: fill OUT with hard links: quick and small. Files may be added, removed or replaced in it, but
# never written in place nor given another owner.
link_tree() { cp --archive --link "$1/." "$OUT"; }

# in_tree TREE COMMAND...: run a command with TREE as its root. A chroot suffices to build; the mounts go with it.
in_tree() {
    # shellcheck disable=SC2016  # expanded by the inner shell
    unshare --mount --propagation private sh -euc '
        tree=$1; shift
        mount --rbind /dev "$tree/dev"
        mount --rbind /proc "$tree/proc"
        exec chroot "$tree" "$@"' sh "$@"
}

# install_packages TREE PACKAGE...: with this machine's own settings for the network (proxy, certificates, names).
install_packages() {
    local tree=$1 settings="$1/etc/apt/apt.conf.d/90outside" file
    shift
    apt-config dump | grep -Ei '^Acquire::(https?::|ftp::|Retries)' >"$settings" || true
    for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt; do
        if [ -e "$file" ]; then
            install -D --mode=644 "$file" "$tree$file"
        fi
    done
    # Documentation is never read here; fsync is pointless in a tree that is renamed when finished.
    printf 'path-exclude=%s\n' '/usr/share/doc/*' '/usr/share/man/*' '/usr/share/locale/*' >"$tree/etc/dpkg/dpkg.cfg.d/lab"
    # A mirror may lag behind the date that sid's index is valid until; its signature is checked all the same.
    in_tree "$tree" apt-get --quiet --option Acquire::Check-Valid-Until=false update
    in_tree "$tree" env DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes --no-install-recommends \
        --option Dpkg::Options::=--force-unsafe-io install "$@"
    in_tree "$tree" apt-get clean
    rm "$settings"
}

# bootstrap SUITE: a minimal Debian in OUT.
bootstrap() {
    debootstrap --variant=minbase "$1" "$OUT" "$MIRROR"
    rm -rf "$OUT"/var/cache/apt/archives/*.deb "$OUT"/debootstrap
}

# What a host needs to run the tests with its own Python, and to build what they build.
# shellcheck disable=SC2034  # for the recipes
debian_python=(
    python3 python-is-python3 python3-yaml python3-jsonschema python3-pyelftools python3-click python3-rich python3-pyudev
    python3-pytest python3-hypothesis
    gcc libc6-dev make strace procps file squashfs-tools squashfuse fuse3
)
# shellcheck disable=SC2034
slurm=(slurmctld slurmd slurm-client munge libslurm-dev)

# furnish_debian_host: as furnish_host, where Debian's own packages are what the project requires.
furnish_debian_host() {
    furnish_host /usr/bin/python3
    printf '#!/usr/bin/python3\nimport sys\nsys.path.insert(0, "/src")\nfrom cdi_hpc.cli import main\nmain()\n' >"$OUT/usr/local/bin/cdi-hpc"
    chmod 755 "$OUT/usr/local/bin/cdi-hpc"
}

# replace FILE: new content from stdin. The old file may be shared with other trees and must not be written to.
replace() { cat >"$OUT/$1.new" && mv "$OUT/$1.new" "$OUT/$1"; }

# furnish_host PYTHON: make OUT a machine for tests: the fake driver, the paths that the specs of tests/views name, the
# tests' user. PYTHON (in OUT) has PyYAML.
furnish_host() {
    local file path
    cp --archive --remove-destination "$LAB/driver/." "$OUT"
    mkdir -p "$OUT/src" "$OUT/lab" "$OUT/run/user" "$OUT/home/cdilab" "$OUT/etc/cdi"
    cp "$SOURCE/tests/views/nvidia-dgxa100-570/nvidia.yaml" "$OUT/etc/cdi/nvidia.yaml"

    { cat "$OUT/etc/passwd"; echo "cdilab:x:$OWNER_UID:$OWNER_GID:test user:/home/cdilab:/bin/bash"; } | replace etc/passwd
    { cat "$OUT/etc/group"; echo "cdilab:x:$OWNER_GID:"; } | replace etc/group
    echo cdi-lab | replace etc/hostname
    echo 'nameserver 127.0.0.1' | replace etc/resolv.conf
    echo '127.0.0.1 localhost cdi-lab' | replace etc/hosts

    # What the links of the hostile image point at, if they are followed. The tests' user may write here, so nothing but
    # the program under test keeps it as it is.
    mkdir -p "$OUT"/srv/canary/{dev,lib,conf.d,vulkan,OpenCL}
    for file in dev/null-of-canary lib/libcuda.so.1 conf.d/canary.conf vulkan/icd OpenCL/vendor ld.so.cache nvidia-smi passwd; do
        echo "canary $file" >"$OUT/srv/canary/$file"
    done
    chown -R "$OWNER_UID:$OWNER_GID" "$OUT/srv/canary"

    mkdir "$OUT/etc/cdi-hpc-lab"
    [ ! -d "$OUT/opt/venv" ] || mount --bind "$LAB/venv" "$OUT/opt/venv"
    mount --bind "$SOURCE" "$OUT/src"
    # shellcheck disable=SC2016  # expanded inside
    in_tree "$OUT" sh -euc '"$0" /src/tests/lab/hostpaths.py /etc/cdi-hpc-lab/devices /src/tests/views/*/*.yaml' "$1"
    umount "$OUT/src"
    [ ! -d "$OUT/opt/venv" ] || umount "$OUT/opt/venv"
    in_tree "$OUT" ldconfig
    # Places for the nodes: enter mounts a tmpfs here.
    while read -r path _; do mkdir -p "$OUT/${path%%/dev/*}/dev"; done <"$OUT/etc/cdi-hpc-lab/devices"
}
