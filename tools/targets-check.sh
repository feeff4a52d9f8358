#!/usr/bin/env bash
# Compiles for systems that no test here runs on: the crates that a browser will need for WebAssembly, and,
# without generating code, the whole native module for macOS.
# A rustup toolchain with the target is used if there is one; else Debian's packages, whose standard
# library for the target is built from source.
set -euo pipefail
cd "$(dirname "$0")/../rust"

browser=wasm32-unknown-unknown
apple=aarch64-apple-darwin
# Only that it compiles is asked here, so nothing is optimised.
quick=(--locked --config 'profile.dev.opt-level=0' --config 'profile.dev.debug=false'
    --config 'profile.dev.package."*".opt-level=0')
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${AIOIROH_CACHE:-$HOME/.cache/aioiroh}/target}"
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS='--cfg getrandom_backend="wasm_js"'
# ring's C code has no libc in a browser, and needs a compiler that knows the target.
export CC_wasm32_unknown_unknown=clang AR_wasm32_unknown_unknown=llvm-ar
# Nothing is linked for macOS, so its C code, which would need Apple's headers, is left out.
export CC_aarch64_apple_darwin=true AR_aarch64_apple_darwin=true
# The module is checked for the stable ABI, without an interpreter of that system.
export PYO3_NO_PYTHON=1

install() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "error: for this check install $* (Debian), or: rustup target add $browser $apple, and clang" >&2
        exit 1
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

have_target() {
    [ -d "$(rustc --print sysroot)/lib/rustlib/$1" ]
}

have_sources() {
    local version
    version=$(/usr/bin/rustc -V 2>/dev/null | sed -n 's/^rustc \([0-9.]*\).*/\1/p') || return 1
    [ -d "/usr/src/rustc-$version/library" ]
}

# COMMAND TARGET ARGUMENTS…
compile() {
    if have_target "$2"; then
        cargo "$1" --target "$2" "${quick[@]}" "${@:3}"
        return
    fi
    if ! have_sources || ! command -v wasm-ld >/dev/null; then
        install rustc-web cargo-web rust-web-src lld
    fi
    RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 /usr/bin/cargo "$1" --target "$2" \
        -Zbuild-std=std,panic_abort "${quick[@]}" "${@:3}"
}

if ! command -v clang >/dev/null || ! command -v llvm-ar >/dev/null; then
    install clang llvm
fi
compile build "$browser" -p aioiroh-bao -p aioiroh-core -p aioiroh-relay
compile check "$apple" -p aioiroh-py --features abi3
