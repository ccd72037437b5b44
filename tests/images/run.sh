#!/usr/bin/env bash
# Builds the images with Podman, and runs tests/images/check_images.py: run.sh PREFIX PYTHON [OPTION ...]
#
# PREFIX is the environment of embedmill; options go to check_images.py. As root, with Debian's
# podman, runc, netavark, aardvark-dns, catatonit and fuse-overlayfs; where no registry of images is
# reached, mmdebstrap makes a stand-in for the base image.
set -euo pipefail
cd "$(dirname "$0")/../.."
prefix=${1:?the environment of embedmill} python=${2:-python3.11} env=.venv-images
shift 2
for program in podman runc catatonit; do
    command -v "$program" >/dev/null || { echo "$program is not installed" >&2; exit 1; }
done
. tests/support/environment.sh
make_environment "$python" $env podman-compose==1.6.0
base=docker.io/library/python:3.11-slim-bookworm
podman image exists $base || podman pull --quiet $base 2>/dev/null || tests/images/make-base.sh $base
PYTHONPATH=$PWD "$prefix/bin/python" tests/images/check_images.py \
    "$PWD/$env/bin/podman-compose" "$(realpath --no-symlinks "$prefix")/bin/embedmill" "$@"
