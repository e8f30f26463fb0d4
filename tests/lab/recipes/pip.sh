# shellcheck shell=bash
# Sourced by the recipes that take Python packages from where this machine's pip takes them.
# shellcheck source=SCRIPTDIR/tree.sh
tree=$LAB/tools

# The tree's Python, run in the real root by way of the tree's own loader: so pip has this machine's network,
# certificates and configuration, and takes wheels for the Python that will use them.
outside() {
    local loader
    loader=$(echo "$tree"/usr/lib/*-linux-gnu/ld-linux-*.so.*)
    PYTHONHOME=$tree/usr "$loader" --library-path "${loader%/*}" "$tree/usr/bin/python3" "$@"
}

# fetch_wheels DIRECTORY WHAT...: nothing is built, and nothing but pip's own arguments is said.
fetch_wheels() {
    local directory=$1 pip
    shift
    pip=$(echo "$tree"/usr/share/python-wheels/pip-*.whl)
    outside "$pip/pip" download --quiet --only-binary :all: --dest "$directory" "$@"
}
