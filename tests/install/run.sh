#!/usr/bin/env bash
# The wheel as users get it: run.sh [PYTHON] [RESULTS.json]
#
# Builds it twice and compares the bytes. Installs it without extras, with `train` and with `all`,
# each in an environment of its own, and measures them. Runs the data stages and a reader without
# extras, and the demo from an empty folder.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${1:-python3} results=${2:-}
work=$(mktemp -d /tmp/mill-XXXXXX)
trap 'rm -rf "$work"' EXIT

PYTHON=$python "$root/docker/build-wheel.sh" "$root" "$work/one"
(umask 077; sleep 2; PYTHON=$python "$root/docker/build-wheel.sh" "$root" "$work/other")
wheel=$(echo "$work"/one/*.whl)
cmp "$wheel" "$work/other/$(basename "$wheel")"
echo "wheel: $(basename "$wheel"), the same bytes twice"

for extras in "" train all; do
    env=$work/${extras:-base}
    PYTHON=$python "$root/docker/install-python.sh" "$env" "$wheel" "$root/constraints.txt" "$extras"
    "$env/bin/python" -m pip check
    # Without pip and compiled files, which depend on how it was installed.
    site=$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    size=$(du -sm --exclude=__pycache__ --exclude=pip --exclude=setuptools "$site" | cut -f 1)
    count=$(find "$site" -maxdepth 1 -name '*.dist-info' | wc -l)
    echo "${extras:-base}: $size MB, $count distributions"
    sizes="${sizes:-}${sizes:+, }\"${extras:-base}\": {\"MB\": $size, \"distributions\": $count}"
done
version=$("$python" -c 'import platform; print(platform.python_version())')
if [ -n "$results" ]; then
    echo "{\"python\": \"$version\", $sizes}" >"$results"
fi

cd "$work" # the source is not here
export HOME=$work EMBEDMILL_CACHE=${EMBEDMILL_CACHE:-$HOME/.cache/embedmill}
if "$work/base/bin/python" -c 'import torch' 2>/dev/null; then
    echo "torch is in the base install" >&2
    exit 1
fi
content() { # STAGE OF A RUN
    "$work/base/bin/python" -c '
import json, sys
print(json.load(open(sys.argv[1]))["content"])' "runs/$1/manifest.json"
}
base=$work/base/bin/embedmill
"$base" --help >/dev/null
"$base" demo --show >demo.toml
"$base" run demo.toml --to shards --set 'run.name="stages"' --quiet
"$work/train/bin/embedmill" demo --set train.epochs=3 --set train.patience=0 --quiet || [ $? = 6 ]
for stage in events vocab shards; do
    cmp <(content "stages/$stage") <(content "movielens-100k/$stage")
done
run=runs/movielens-100k
"$base" verify $run
"$base" neighbors $run --item "Star Wars (1977)" -k 3
"$base" recommend $run --user 196 -k 3
"$base" export $run --format npy --dtype float16 --output vectors
echo "Python $version: all passed"
