#!/usr/bin/env bash
# Compiles the crates that a browser will need for wasm32-unknown-unknown.
# A rustup toolchain with that target is used if there is one; else Debian's packages, whose standard
# library for the target is built from source.
set -euo pipefail
cd "$(dirname "$0")/../rust"

crates=(-p aioiroh-bao -p aioiroh-core -p aioiroh-relay)
# Only that it compiles is asked here, so nothing is optimised.
quick=(--config 'profile.dev.opt-level=0' --config 'profile.dev.debug=false'
    --config 'profile.dev.package."*".opt-level=0')
target=wasm32-unknown-unknown
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${AIOIROH_CACHE:-$HOME/.cache/aioiroh}/target}"
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS='--cfg getrandom_backend="wasm_js"'
# ring's C code has no libc on this target, and needs a compiler that knows the target.
export CC_wasm32_unknown_unknown=clang AR_wasm32_unknown_unknown=llvm-ar

install() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "error: for this check install $* (Debian), or: rustup target add $target, and clang" >&2
        exit 1
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

if ! command -v clang >/dev/null || ! command -v llvm-ar >/dev/null; then
    install clang llvm
fi
if [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    exec cargo build --locked --target "$target" "${quick[@]}" "${crates[@]}"
fi

have_sources() {
    local version
    version=$(/usr/bin/rustc -V 2>/dev/null | sed -n 's/^rustc \([0-9.]*\).*/\1/p') || return 1
    [ -d "/usr/src/rustc-$version/library" ]
}
if ! have_sources || ! command -v wasm-ld >/dev/null; then
    install rustc-web cargo-web rust-web-src lld
fi
export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
exec /usr/bin/cargo build --locked --target "$target" -Zbuild-std=std,panic_abort "${quick[@]}" "${crates[@]}"
