# Finds a toolchain for wasm32-unknown-unknown. Sourced by `setup` and `guests`.
#
# Sets `wasm32` to what was found, in words, or leaves it empty; and exports what cargo needs to use it.
# There are two kinds: a Rust that has the target's standard library (rustup's, or any other), and
# Debian's `rustc-web`, which has none but brings the sources to build one. That is done once, by
# `setup`, and kept in the user's cache folder.

wasm32=

# The kind that needs nothing: whatever `cargo` and `rustc` are in the path.
wasm32_installed() {
    local sysroot
    sysroot=$(rustc --print sysroot 2>/dev/null) || return 1
    compgen -G "$sysroot/lib/rustlib/wasm32-unknown-unknown/lib/libstd-*.rlib" >/dev/null || return 1
    wasm32="$(rustc --version), which has the target"
    export WASM32_CARGO=cargo
}

# Where the standard library for Debian's compiler is, or is to be built.
wasm32_debian_sysroot() {
    local version
    version=$(/usr/bin/rustc --version | cut -d ' ' -f 2) || return 1
    echo "${XDG_CACHE_HOME:-$HOME/.cache}/hookyard/wasm32-$version"
}

# `lld` comes with rustup's Rust, and as a package.
wasm32_linker() {
    local bundled
    bundled=$(rustc --print sysroot 2>/dev/null)/lib/rustlib/$(uname -m)-unknown-linux-gnu/bin/rust-lld
    if [ -x "$bundled" ]; then
        echo "$bundled"
    elif [ -e /usr/bin/rust-lld ]; then # may be a link to a package that is not there
        echo /usr/bin/rust-lld
    else
        return 1
    fi
}

wasm32_debian() {
    [ -x /usr/bin/cargo ] && [ -d /usr/lib/rustlib/src/rust/library ] || return 1
    local sysroot
    sysroot=$(wasm32_debian_sysroot) || return 1
    [ -e "$sysroot/complete" ] || return 1
    wasm32="Debian's $(/usr/bin/rustc --version | cut -d ' ' -f 1-2) with the target built from source"
    CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$(wasm32_linker) || return 1
    export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER
    export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="--sysroot=$sysroot"
    export WASM32_CARGO=/usr/bin/cargo RUSTC=/usr/bin/rustc PATH="/usr/bin:$PATH"
}

wasm32_installed || wasm32_debian || wasm32=
