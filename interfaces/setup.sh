#!/usr/bin/env bash
# Makes the virtual environment that `make` uses. Usage: setup.sh VENV
# With a ROS 2 sourced the environment sees the system's packages; without one ROS 2 comes from
# PyPI and the message packages in this folder are built into it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
venv=$1

missing() { # what is missing, the Debian package that has it
    if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
        echo "$1 is missing: installing $2"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$2"; } > /dev/null && return
    fi
    echo "$1 is missing; install it first, for example: sudo apt install $2" >&2
    exit 1
}

newest=13 # ROS 2 Kilted's wheels are made for CPython 3.10 to 3.13
[ -n "${ROS_DISTRO:-}" ] && newest=99
fits() { command -v "$1" > /dev/null && "$1" -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $newest))"; }
python=
for candidate in ${PYTHON:-python3 python3.12 python3.13 python3.11}; do
    if fits "$candidate"; then python=$candidate && break; fi
done
[ -n "$python" ] || missing "Python 3.11 to 3.13" python3.12
"$python" -c 'import ensurepip, venv' 2> /dev/null || missing "Python's venv module" python3-venv
header=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h

step() { printf '\n[%s] %s\n' "$(date +%T)" "$1"; }
if [ -n "${ROS_DISTRO:-}" ]; then
    step "making $venv on top of ROS 2 $ROS_DISTRO"
    "$python" -m venv --system-site-packages "$venv"
    for package in event_camera_msgs cv_bridge; do
        "$venv/bin/python" -c "import $package" 2> /dev/null ||
            missing "the ROS package $package" "ros-$ROS_DISTRO-${package//_/-}"
    done
else
    command -v g++ > /dev/null || missing "a C++ compiler" g++
    [ -e "$header" ] || missing "Python's headers" "python3-dev"
    step "making $venv"
    "$python" -m venv "$venv"
fi
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

# What a ROS distribution compiled against its own numpy keeps that numpy.
constraints=$venv/constraints.txt
cp "$here/constraints.txt" "$constraints"
if [ -n "${ROS_DISTRO:-}" ]; then
    numpy=$("$python" -c 'import numpy; print(numpy.__version__)')
    sed -i "s/^numpy==.*/numpy==$numpy/" "$constraints"
fi
step "installing torch and the tools (a few minutes on a slow line)"
pip install --quiet -c "$constraints" 'setuptools' wheel
# Pip has no word for "this requirement without its own": spikingjelly asks for torchvision and
# torchaudio, which its neurons do not use and which break beside a torch they do not match.
"$venv/bin/python" "$here/requirements.py" "$root/setup.py" > "$venv/requirements.txt"
wheels=()
[ -n "${ROS_DISTRO:-}" ] || wheels=(-r "$here/ros-wheels.txt")
pip install --progress-bar "$([ -t 1 ] && echo on || echo off)" -c "$constraints" \
    -r "$venv/requirements.txt" "${wheels[@]}" |
    { grep -E '^(Downloading|Installing)' || true; } | cut -c1-100
pip install --quiet --no-deps -c "$constraints" spikingjelly
step "installing spike_depth_ros"
pip install --quiet --no-deps --no-build-isolation --editable "$root"
if [ -z "${ROS_DISTRO:-}" ]; then
    step "building the event messages"
    bash "$here/build.sh" "$venv"
fi
step "ready: $venv/bin/spike_depth --help"
