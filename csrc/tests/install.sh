#!/bin/sh
# Installs the library to a folder of the build's, then builds and runs the examples as a user would: with nothing but
# pkg-config, against the shared library and, with that out of the way, the static one. Last, that uninstall leaves nothing.
# `make check-install` calls this with the compilers and flags of the build.
set -eu

stage=$(mkdir -p "$BUILD/stage" && cd "$BUILD/stage" && pwd)
rm -rf "$stage"
prefix=/opt/sparsehopfield
here=$stage$prefix
"$MAKE" -s install PREFIX="$prefix" DESTDIR="$stage"
export PKG_CONFIG_PATH="$here/lib/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}"
config() { "$PKG_CONFIG" --define-variable=prefix="$here" "$@" sparsehopfield; }

version=$(sed -n 's/^.define SH_VERSION_STRING "\(.*\)"/\1/p' include/sparsehopfield.h)
[ "$(config --modversion)" = "$version" ] || { echo "pkg-config knows another version than $version"; exit 1; }
if config --libs | grep -q openblas; then echo "programs need not name OpenBLAS"; exit 1; fi

# Builds and runs every example, with the flags that pkg-config gives for `$1` (nothing, or --static).
try() {
    for example in examples/*.c; do
        program=$stage/$(basename "$example" .c)
        # shellcheck disable=SC2086,SC2046 # several words each
        $CC -std=c11 -Wall -Wextra -Werror $CFLAGS "$example" -o "$program" $(config --cflags --libs $1) $LDFLAGS
        LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" $RUN "$program" >"$stage/out" || {
            cat "$stage/out"
            echo "$example failed, linked with: $(config --libs $1)"
            exit 1
        }
    done
    [ -n "$(command -v "${CXX##* }")" ] || return 0
    # shellcheck disable=SC2086,SC2046
    $CXX -std=c++11 -Wall -Wextra -Werror $CFLAGS tests/headers.cpp -o "$stage/headers" $(config --cflags --libs $1) $LDFLAGS
    LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" $RUN "$stage/headers" >/dev/null
}
needs() { readelf -d "$stage/retrieve" | grep -q 'NEEDED.*libsparsehopfield'; }

try ""
if command -v readelf >/dev/null && [ -e "$here/lib/libsparsehopfield.so" ]; then
    readelf -d "$stage/retrieve" | grep -q 'NEEDED.*\[libsparsehopfield\.so\.0\]' || { echo "another soname"; exit 1; }
fi
mkdir "$stage/aside" && mv "$here"/lib/libsparsehopfield.so* "$here"/lib/libsparsehopfield*.dylib "$stage/aside" 2>/dev/null || true
try --static
if command -v readelf >/dev/null && needs; then echo "the static programs need the shared library"; exit 1; fi
mv "$stage"/aside/* "$here/lib"

"$MAKE" -s uninstall PREFIX="$prefix" DESTDIR="$stage"
left=$(find "$here" ! -type d)
[ -z "$left" ] || { echo "uninstall left: $left"; exit 1; }
rm -rf "$stage"
echo "install: examples run with the shared and the static library $version; uninstall leaves nothing"
