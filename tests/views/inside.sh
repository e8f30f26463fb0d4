# shellcheck shell=sh
# Says what a process in a container sees of the paths and names given as arguments; see README.md for the lines.
# Runs under any POSIX shell with the tools of coreutils or busybox: it is the image's shell.
#   E:NAME an environment variable, O:NAME a library to dlopen, anything else a path
#
# A mount at the place where an image's links lead is reported with RESOLVE_LINKS=yes only: the reference views were
# taken without.

tell_variable() {
    eval "value=\${$1-__unset__}"
    # shellcheck disable=SC2154  # set by eval
    printf 'E %s=%s\n' "$1" "$value"
}

tell_kind() {
    if [ -L "$1" ]; then
        printf 'L %s -> %s\n' "$1" "$(readlink "$1")"
    elif [ -c "$1" ] || [ -b "$1" ]; then
        printf 'D %s %s\n' "$1" "$(stat -c '%F %t:%T' "$1")"
    elif [ -d "$1" ]; then
        printf 'd %s\n' "$1"
    elif [ -f "$1" ]; then
        printf 'F %s\n' "$1"
    elif [ -S "$1" ]; then
        printf 'S %s\n' "$1"
    elif [ -e "$1" ]; then
        printf '? %s\n' "$1"
    else
        printf -- '- %s\n' "$1"
    fi
}

tell_content() {
    if [ -f "$1" ] && command -v sha256sum >/dev/null; then
        printf 'H %s %s\n' "$1" "$(sha256sum <"$1" | cut -c1-16)"
    fi
}

# Options of the last, so uppermost, mount at exactly this path: fields 5 and 6 of proc_pid_mountinfo(5).
mount_options() {
    # grep looks first: a shell reads a file of /proc one byte a system call.
    grep -F " $1 " /proc/self/mountinfo | {
        uppermost=
        # shellcheck disable=SC2034  # the fields before the ones of interest need names
        while read -r id parent device root place options rest; do
            [ "$place" != "$1" ] || uppermost=$options
        done
        printf '%s' "$uppermost"
    }
}

tell_mount() {
    options=$(mount_options "$1")
    if [ -z "$options" ] && [ "${RESOLVE_LINKS:-}" = yes ]; then
        options=$(mount_options "$(readlink -f "$1")")
    fi
    if [ -n "$options" ]; then
        printf 'M %s' "$1"
        for flag in ro nosuid nodev noexec; do
            case ,$options, in *,$flag,*) printf ' %s' "$flag" ;; esac
        done
        printf '\n'
    fi
}

for asked in "$@"; do
    case $asked in
        E:*) tell_variable "${asked#E:}" ;;
        O:*) [ ! -x /opt/dlprobe ] || /opt/dlprobe "${asked#O:}" ;;
        *)
            tell_kind "$asked"
            tell_content "$asked"
            tell_mount "$asked"
            ;;
    esac
done
if [ -r /etc/ld.so.cache ] && command -v base64 >/dev/null; then
    printf 'B %s\n' "$(base64 </etc/ld.so.cache | tr -d '\n')"
fi
