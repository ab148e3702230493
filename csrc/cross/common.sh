# common.sh: builds the C core and its tests for another target, and runs them under an emulator. For a script that sets
#
#   target     name of the target, and of its folder in csrc/build
#   platform   what PyPI calls the target: its wheel of OpenBLAS is taken, of the version that pyproject.toml has
#   compiler   the cross compiler; $tools before the names of its g++, ar and nm
#   emulator   stands before a program of the target, with its arguments
#
# and then calls get_blas, which sets $blas, the folder with `include` and `lib`; and make_for with make's arguments.
# PYTHON (default: python3) needs pip.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
room=$PWD/build/$target
mkdir -p "$room"

need() { # a program, and what to install for it
    command -v "$1" >/dev/null || { echo "$1 is not there; Debian: apt install $2" >&2; exit 1; }
}

get_blas() {
    local version python=${PYTHON:-python3}
    version=$(sed -n 's/.*"scipy-openblas32==\([^"]*\)".*/\1/p' ../pyproject.toml)
    blas=$room/openblas-$version/scipy_openblas32
    if [ ! -d "$blas" ]; then
        "$python" -m pip download -q --only-binary=:all: --no-deps --platform "$platform" -d "$room" \
            "scipy-openblas32==$version"
        "$python" -m zipfile -e "$room/scipy_openblas32-$version"-*.whl "$room/openblas-$version.part"
        mv "$room/openblas-$version.part" "$room/openblas-$version"
    fi
}

make_for() { # arguments for make, "check" for one
    make BUILD="build/$target" CC="$compiler" CXX="${tools}g++" AR="${tools}ar" NM="${tools}nm" RUN="$emulator" \
        BLAS_CFLAGS="-I$blas/include -DSH_BLAS_PREFIX=scipy_" "$@"
}
