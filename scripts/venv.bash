# shellcheck shell=bash
# Sourced by the scripts beside it, at the top of the checkout, with die and step defined.

has() { command -v "$1" >/dev/null; }

# make_venv EXTRAS: a virtual environment in .venv with this checkout installed in it, "" or "[test]". Quick when there.
make_venv() {
    local extras=$1 stamp=".venv/installed$1"
    has python3 || die "no python3 (install Python 3.9 or newer)"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' ||
        die "python3 is older than 3.9 (put a newer one on your PATH)"
    cmp --quiet pyproject.toml "$stamp" && return
    python3 -c 'import ensurepip' 2>/dev/null ||
        die "python3 can't make virtual environments (on Debian and Ubuntu: apt-get install python3-venv)"
    step "installing into .venv, by pip: a quarter of a minute"
    [ -x .venv/bin/pip ] || python3 -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check --editable ".$extras" ||
        die "pip could not install this checkout (it needs a network, or an index that PIP_INDEX_URL names)"
    cp pyproject.toml "$stamp"
}
