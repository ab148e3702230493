#!/usr/bin/env bash
# aarch64.sh: the C core for 64-bit ARM by GCC, and its tests and digests under QEMU, with every set of instructions: the two
# processors differ in dot products of bytes. Some ten minutes. Debian: apt install make g++-aarch64-linux-gnu qemu-user
#   csrc/cross/aarch64.sh [arguments of make, such as CFLAGS="-O3 -Werror"]
#   csrc/cross/aarch64.sh digests [arguments of make]     the promised digests alone, with the best instructions
target=aarch64 platform=manylinux_2_28_aarch64 tools=aarch64-linux-gnu-
emulator="qemu-aarch64 -L /usr/aarch64-linux-gnu"
compiler=${CC:-${tools}gcc}
source "$(dirname "$0")/common.sh"
need "${tools}gcc" gcc-aarch64-linux-gnu
need qemu-aarch64 qemu-user
get_blas
links="-L$blas/lib -lscipy_openblas -Wl,-rpath,$blas/lib"

export QEMU_CPU=neoverse-n1 # has dot products; `max` would have what OpenBLAS computes in shorter formats for
if [ "${1:-}" = digests ]; then
    make_for BLAS_LIBS="$links" DIGESTS=--brief "$@"
    exit
fi
need "${tools}g++" g++-aarch64-linux-gnu
make_for BLAS_LIBS="$links" SKIP=test_threads check "$@" # many threads take QEMU as long as all others together
SPARSEHOPFIELD_SIMD=base make_for BLAS_LIBS="$links" DIGESTS=--brief digests "$@"
QEMU_CPU=cortex-a57 make_for BLAS_LIBS="$links" DIGESTS=--brief digests "$@" # takes NEON
echo "aarch64: all passed"
