# shellcheck shell=bash
# The image of packaging/Dockerfile, put together by hand, since there is no Docker here: what
# .ci/static and .ci/kubernetes run. To be sourced.

triple=x86_64-unknown-linux-musl

# Says so and ends where this system cannot build the static binary.
require_target() {
    [ "$(uname -m)" = x86_64 ] || { echo "$1: only x86-64 is checked"; exit 0; }
    if ! rustup target list --installed | grep -qx "$triple" && ! rustup target add "$triple"; then
        echo "NOT CHECKED: the target $triple cannot be had here"
        exit 0
    fi
}

# The last one of this name: that of the image, not of the stage that builds.
instruction() { sed -n "s/^$1 //p" packaging/Dockerfile | tail -1; }

# Fills the directory $1 with the image's root: the binary, as the Dockerfile's own command builds it.
make_image() {
    local image=$1 build
    build=$(grep -v '^#' packaging/Dockerfile | grep -o 'cargo install .*')
    build=${build//\/src/$PWD}
    # shellcheck disable=SC2086 # words, on purpose
    CARGO_TARGET_DIR=target ${build//\/out/$image} --quiet --target "$triple"
    mv "$image/bin/prefork-echo" "$image/prefork-echo"
    rm -r "${image:?}"/bin "$image"/.crates*
    chmod 0755 "$image"
}
