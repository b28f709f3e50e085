#!/usr/bin/env bash
# Builds the message packages beside this file into a virtual environment whose ROS 2 came from
# PyPI wheels. Usage: build.sh VENV
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venv=$(cd "$1" && pwd)
python=$venv/bin/python
include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
numpy=$("$python" -c 'import numpy; print(numpy.get_include())')

# The wheels' CMake exports name the folders of the machine that built them; a second run of this
# finds none.
{ grep -rlE '/opt/python' "$venv/share" --include='*.cmake' || true; } | while read -r file; do
    sed -i -E \
        -e "s#/opt/python/cp3[0-9]+-cp3[0-9]+/lib/python3\.[0-9]+/site-packages/numpy/_?core/include#$numpy#g" \
        -e "s#/opt/python/cp3[0-9]+-cp3[0-9]+/include/python3\.[0-9]+#$include#g" "$file"
done

export PATH=$venv/bin:$PATH AMENT_PREFIX_PATH=$venv CMAKE_PREFIX_PATH=$venv
export LD_LIBRARY_PATH=$venv/lib
unset PYTHONPATH
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
for package in "$here"/*/package.xml; do
    source=$(dirname "$package")
    name=$(basename "$source")
    echo "building $name"
    cmake -S "$source" -B "$build/$name" -G Ninja -DCMAKE_BUILD_TYPE=Release \
        -DCMAKE_INSTALL_PREFIX="$venv" -DPython3_EXECUTABLE="$python" -DBUILD_TESTING=OFF \
        -Wno-dev > "$build/$name.log" 2>&1 &&
        cmake --build "$build/$name" >> "$build/$name.log" 2>&1 &&
        cmake --install "$build/$name" >> "$build/$name.log" 2>&1 ||
        { tail -n 40 "$build/$name.log"; echo "could not build $name"; exit 1; }
done
