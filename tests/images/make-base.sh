#!/usr/bin/env bash
# A stand-in for python:3.11-slim-bookworm from Debian's packages: make-base.sh IMAGE
#
# For machines that reach no registry of images. Needs mmdebstrap and Podman, as root. As in the
# original there is no perl, no compiler, no documentation.
set -euo pipefail
image=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mmdebstrap --quiet --variant=minbase \
    --include=python3.11,python3-venv,python3-pip,ca-certificates,usr-is-merged bookworm "$work/base.tar"
podman import --quiet "$work/base.tar" localhost/debian-python >/dev/null
cat >"$work/Dockerfile" <<'DOCKERFILE'
FROM localhost/debian-python
RUN for name in python3 python; do ln -sf /usr/bin/python3.11 "/usr/local/bin/$name"; done \
    && ln -sf /usr/bin/pip3 /usr/local/bin/pip && rm -f /usr/lib/python3.11/EXTERNALLY-MANAGED \
    && apt-get purge -y -qq --auto-remove perl libperl5.36 perl-modules-5.36 usrmerge \
    && rm -rf /usr/share/doc /usr/share/man /usr/share/info /usr/share/locale \
        /var/lib/apt/lists/* /var/cache/apt /var/cache/debconf
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
DOCKERFILE
podman build --quiet --format docker --isolation=chroot --network=host --pull=never --squash-all \
    --tag "$image" "$work"
