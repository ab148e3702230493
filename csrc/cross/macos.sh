#!/usr/bin/env bash
# macos.sh: compiles and links the C core for macOS on ARM, by the Clang and the system's headers in PyPI's `ziglang`.
# Nothing is run: that takes a Mac.
#   csrc/cross/macos.sh [arguments of make, such as CFLAGS="-O3 -Werror"]
target=macos platform=macosx_11_0_arm64 tools= emulator=false
source "$(dirname "$0")/common.sh"
get_blas
[ -d "$room/zig" ] || "${PYTHON:-python3}" -m pip install -q --target "$room/zig" ziglang
compiler="$room/zig/ziglang/zig cc -target aarch64-macos"

# zig names a processor where others name an architecture; every Mac with one of these has dot products.
make_for AR="$room/zig/ziglang/zig ar" BLAS_LIBS="$blas/lib/libscipy_openblas.dylib" dotprod="-DSH_NEON -mcpu=apple_m1" \
    all "$@"
echo "macOS: compiled and linked"
