#!/usr/bin/env bash
# aarch64.sh: the C core for 64-bit ARM by GCC, and its tests under QEMU, with every set of instructions: the two
# processors differ in dot products of bytes. Debian: apt install make g++-aarch64-linux-gnu qemu-user
#   csrc/cross/aarch64.sh [arguments of make, such as CFLAGS="-O3 -Werror"]
target=aarch64 platform=manylinux_2_28_aarch64 tools=aarch64-linux-gnu-
emulator="qemu-aarch64 -L /usr/aarch64-linux-gnu"
compiler=${CC:-${tools}gcc}
source "$(dirname "$0")/common.sh"
need "${tools}gcc" gcc-aarch64-linux-gnu
need "${tools}g++" g++-aarch64-linux-gnu
need qemu-aarch64 qemu-user
get_blas
links="-L$blas/lib -lscipy_openblas -Wl,-rpath,$blas/lib"

QEMU_CPU=neoverse-n1 make_for BLAS_LIBS="$links" check "$@"
for simd in base neon; do # `check` took the highest
    QEMU_CPU=neoverse-n1 SPARSEHOPFIELD_SIMD=$simd make_for BLAS_LIBS="$links" digests "$@"
done
QEMU_CPU=cortex-a57 make_for BLAS_LIBS="$links" digests "$@"
echo "aarch64: all passed"
