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
