#!/usr/bin/env bash
# Makes the virtual environment that `make` uses.
# Usage: setup.sh VENV [DISTRO [EXTRAS]]
#   DISTRO  kilted or jazzy: the ROS 2 that comes from PyPI where none is sourced
#   EXTRAS  extras of setup.py, in quotes; '-' for none; all by default
# With a ROS 2 sourced the environment uses the system's packages. Without one ROS 2 comes from
# PyPI and the message packages in this folder are built into the environment.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
venv=$1
distro=${2:-kilted}
read -ra extras <<< "${3:-}"
sourced=${AMENT_PREFIX_PATH:+${ROS_DISTRO:-}} # ROS_DISTRO alone may be set in a container
export PIP_DISABLE_PIP_VERSION_CHECK=1

missing() { # what is missing, the Debian package that has it
    if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
        echo "$1 is missing: installing $2"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$2"; } > /dev/null && return
    fi
    echo "$1 is missing; install it first, for example: sudo apt install $2" >&2
    exit 1
}

case $distro in # the newest CPython that the wheels are made for
    kilted) newest=13 ;;
    jazzy) newest=12 ;;
    *) echo "ROS_DISTRO is $distro, expected kilted or jazzy" >&2 && exit 1 ;;
esac
[ -n "$sourced" ] && newest=99
fits() { command -v "$1" > /dev/null && "$1" -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $newest))" 2> /dev/null; }
# an environment of the other distribution lends what is not ROS, if it is of the same Python
lender=$root/.venv/bin/python
[ "$venv" != .venv ] && [ -x "$lender" ] || lender=
python=
for candidate in ${PYTHON:-$lender python3 python3.12 python3.13 python3.11}; do
    if fits "$candidate"; then python=$candidate && break; fi
done
[ -n "$python" ] || missing "Python 3.11 to 3.$newest" python3.12
[ -n "$lender" ] && [ "$python" != "$lender" ] && lender=
"$python" -c 'import ensurepip, venv' 2> /dev/null || missing "Python's venv module" python3-venv
header=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h

step() { printf '\n[%s] %s\n' "$(date +%T)" "$1"; }
if [ -n "$sourced" ]; then
    step "making $venv on top of ROS 2 $sourced"
    "$python" -m venv --system-site-packages "$venv"
    for package in event_camera_msgs cv_bridge; do
        "$venv/bin/python" -c "import $package" 2> /dev/null ||
            missing "the ROS package $package" "ros-$sourced-${package//_/-}"
    done
else
    command -v g++ > /dev/null || missing "a C++ compiler" g++
    [ -e "$header" ] || missing "Python's headers" "python3-dev"
    step "making $venv with ROS 2 $distro from PyPI"
    "$python" -m venv "$venv"
fi
pip() { "$venv/bin/python" -m pip "$@"; }
version() { "$venv/bin/python" -c "import importlib.metadata as m; print(m.version('$1'))" 2> /dev/null || true; }
install() { # prints a line for each download and for the result
    pip install --progress-bar "$([ -t 1 ] && echo on || echo off)" -c "$constraints" "$@" |
        { grep -E '^(Downloading|Installing)' || true; } | cut -c1-100
}

constraints=$venv/constraints.txt
cp "$here/constraints.txt" "$constraints"
pin() { sed -i "s/^$1==.*/$1==$2/" "$constraints"; }
# a ROS distribution keeps the numpy that it was compiled with
[ -n "$sourced" ] && pin numpy "$(version numpy)"
if [ -z "$sourced" ]; then # first, so that no other ROS 2 seems to satisfy a requirement
    step "installing ROS 2 $distro (30 MB)"
    install setuptools wheel -r "$here/ros-$distro.txt"
    step "building the event messages"
    bash "$here/build.sh" "$venv"
    if [ -n "$lender" ]; then
        step "sharing what is not ROS with $(dirname "$(dirname "$lender")")"
        "$lender" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
            "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/lender.pth"
    fi
else
    install setuptools wheel
fi

torch=$(version torch) # the user's own stays
if [ -n "$torch" ]; then
    pin torch "$torch"
    step "keeping torch $torch"
elif [ "$(uname -m)" = x86_64 ] && [ -z "${PIP_INDEX_URL:-}${PIP_EXTRA_INDEX_URL:-}" ]; then
    step "torch from PyPI comes with CUDA: 6 GB. Without a GPU stop here (Ctrl-C) and use the CPU build:"
    echo "    PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make setup"
fi
step "installing torch and the tools (a few minutes on a slow line)"
# pip cannot leave out the requirements of one requirement: spikingjelly asks for torchvision and
# torchaudio, which its neurons do not use and which break beside a torch that they do not match
"$venv/bin/python" "$here/requirements.py" "$root/setup.py" "${extras[@]}" > "$venv/requirements.txt"
# by the colcon of this environment the nodes get its Python; cv_bridge comes with a sourced ROS 2
echo "$([ -n "$sourced" ] && echo colcon-common-extensions || echo cv-bridge==1.13.0.post0)" >> "$venv/requirements.txt"
install -r "$venv/requirements.txt"
pip install --quiet --no-deps -c "$constraints" spikingjelly
step "installing spike_depth_ros"
pip install --quiet --no-deps --no-build-isolation --editable "$root"
if [ "${extras[*]}" != - ]; then # for demo, clips and tests
    step "compiling the simulator (a minute)"
    scratch=$(mktemp -d)
    "$venv/bin/spike_depth" synth "$scratch" --layout bag --sensor 64x48 --seconds 0.1 > /dev/null
    rm -r "$scratch"
fi
step "compiling kernels and choosing the network of this machine (a minute)"
"$venv/bin/spike_depth" warm-up
step "ready: $venv/bin/spike_depth --help"
