#!/usr/bin/env bash
# Makes .venv with everything that building and testing needs, and says what is missing on this machine.
# Installs missing system packages itself only as root on a Debian-like system.
set -euo pipefail
cd "$(dirname "$0")/.."

can_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }
apt_ready=0
apt_install() {
    if [ $apt_ready = 0 ]; then apt-get update -qq; apt_ready=1; fi
    echo "installing $*" >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}
die() { echo "error: $*" >&2; exit 1; }

# A name on the PATH may be a stand-in that cannot run, so each candidate is tried.
find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14; do
        if "$candidate" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
        then echo "$candidate"; return; fi
    done
    return 1
}

cargo_is_new_enough() {
    local version
    version=$(cargo --version 2>/dev/null | sed -n 's/^cargo \([0-9]*\)\.\([0-9]*\)\..*/\1 \2/p')
    [ -n "$version" ] && set -- $version && [ "$1" -gt 1 -o "$2" -ge 88 ]
}

if ! command -v cc >/dev/null; then
    can_apt && apt_install build-essential
    command -v cc >/dev/null ||
        die "a C compiler is needed: install build-essential (Debian), gcc (Fedora) or Xcode's tools (macOS)"
fi

if ! cargo_is_new_enough; then
    # A toolchain that rustup has put in place is found even where the shell's profile was not read.
    [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ] && PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    if ! cargo_is_new_enough && command -v rustup >/dev/null; then
        rustup toolchain install stable --profile default >&2 || true
    fi
    cargo_is_new_enough ||
        die "Rust 1.88 or later is needed: install it with rustup (see rust-lang.org), or run 'rustup update'"
fi

# For the tests of tests/netlab, and mkfs.xfs for one of tests/store; they say so where it cannot be had.
if [ "$(uname -s)" = Linux ] && can_apt; then
    lab=()
    command -v ip >/dev/null || lab+=(iproute2)
    command -v nft >/dev/null || lab+=(nftables)
    command -v openssl >/dev/null || lab+=(openssl)
    command -v miniupnpd >/dev/null || lab+=(miniupnpd-nftables)
    command -v mkfs.xfs >/dev/null || lab+=(xfsprogs)
    [ ${#lab[@]} = 0 ] || apt_install "${lab[@]}"
fi

if ! python=$(find_python); then
    can_apt && apt_install python3 python3-venv
    python=$(find_python) || die "Python 3.11 or later with the venv module is needed (Debian: python3 python3-venv)"
fi

[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip
.venv/bin/python -m pip install --quiet -c constraints.txt --group dev click rich "$@"
touch .venv/.ready
