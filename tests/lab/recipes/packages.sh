# shellcheck shell=bash
# Sourced by the recipes of the trees in which packages are built and installed.
# shellcheck source=SCRIPTDIR/tree.sh
. "${0%/*}/tree.sh"

# furnish_builder: what dpkg-buildpackage and rpmbuild call, and what debian/control has in Build-Depends.
furnish_builder() {
    install_packages "$OUT" build-essential debhelper dh-python rpm file libslurm-dev \
        python3 python3-yaml python3-jsonschema python3-pyelftools python3-click python3-rich
    add_user
}

# add_user: the tests' user, and what tests/lab/enter wants to find.
add_user() {
    mkdir -p "$OUT/src" "$OUT/lab" "$OUT/run/user" "$OUT/home/cdilab"
    echo "cdilab:x:$OWNER_UID:$OWNER_GID:test user:/home/cdilab:/bin/bash" >>"$OUT/etc/passwd"
    echo "cdilab:x:$OWNER_GID:" >>"$OUT/etc/group"
}
