#!/usr/bin/env bash
# windows.sh: the C core for 64-bit Windows, by mingw-w64's GCC, and its tests under Wine, with every set of instructions
# that this machine has. Debian: apt install make gcc-mingw-w64-x86-64 g++-mingw-w64-x86-64 wine
#   csrc/cross/windows.sh [arguments of make, such as CFLAGS="-O3 -Werror"]
target=windows platform=win_amd64 tools=x86_64-w64-mingw32- emulator=wine
compiler=${CC:-${tools}gcc}
source "$(dirname "$0")/common.sh"
need "${tools}gcc" gcc-mingw-w64-x86-64
need "${tools}g++" g++-mingw-w64-x86-64
need wine wine
get_blas

export WINEPREFIX="$room/wine" WINEPATH="Z:$blas/lib" WINEDEBUG=${WINEDEBUG:--all} DISPLAY=
trap 'wineserver -k || true' EXIT
wineboot --init >/dev/null 2>&1

make_for BLAS_LIBS="$blas/lib/libscipy_openblas.dll" check "$@"
for simd in base avx2 avx512; do # `check` took the highest
    SPARSEHOPFIELD_SIMD=$simd make_for BLAS_LIBS="$blas/lib/libscipy_openblas.dll" digests "$@"
done

# The library needs no DLLs but those of Windows and the BLAS.
others=$("${tools}objdump" -p "$room"/libsparsehopfield*.dll | sed -n 's/.*DLL Name: //p' |
    grep -viE '^(kernel32|msvcrt|libscipy_openblas|api-ms-win-crt-.*)\.dll$' || true)
[ -z "$others" ] || { echo "the DLL needs $others" >&2; exit 1; }
echo "Windows: all passed"
