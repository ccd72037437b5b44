#!/usr/bin/env bash
# The wheel as users get it: run.sh [PYTHON] [RESULTS.json]
#
# Builds it twice and compares the bytes. Installs it without extras, with `train` and with `all`,
# each in an environment of its own, and measures them. Runs the data stages and a reader without
# extras, and the demo from an empty folder. INSTALLS="base" leaves the others out.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${1:-python3} results=${2:-} installs=${INSTALLS:-base train all}
work=$(mktemp -d /tmp/mill-XXXXXX)
trap 'rm -rf "$work"' EXIT
export PYTHON=$python

"$root/docker/build-wheel.sh" "$root" "$work/one"
(umask 077; sleep 2; "$root/docker/build-wheel.sh" "$root" "$work/other")
wheel=$(echo "$work"/one/*.whl)
cmp "$wheel" "$work/other/$(basename "$wheel")"
echo "wheel: $(basename "$wheel"), the same bytes twice"

sizes=
for name in $installs; do
    "$root/docker/install-python.sh" "$work/$name" "$wheel" "$root/constraints.txt" "${name/base/}"
    "$work/$name/bin/python" -m pip check
    # Without pip, and without compiled files, as they differ by how it was installed.
    site=$("$work/$name/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    size=$(du -sm --exclude=__pycache__ --exclude=pip --exclude=setuptools "$site" | cut -f 1)
    count=$(find "$site" -maxdepth 1 -name '*.dist-info' | wc -l)
    echo "$name: $size MB, $count distributions"
    sizes="$sizes, \"$name\": {\"megabytes\": $size, \"distributions\": $count}"
done
version=$("$python" -c 'import platform; print(platform.python_version())')
if [ -n "$results" ]; then
    echo "{\"python\": \"$version\"$sizes}" >"$results"
fi

content() { # STAGE OF A RUN
    "$work/base/bin/python" -c '
import json, sys
print(json.load(open(sys.argv[1]))["content"])' "runs/$1/manifest.json"
}
mkdir "$work/empty"
cd "$work/empty" # the source is not here
export EMBEDMILL_CACHE=${EMBEDMILL_CACHE:-$HOME/.cache/embedmill} HOME=$work
base=$work/base/bin/embedmill
for module in torch ray py4j; do
    if "$work/base/bin/python" -c "import $module" 2>/dev/null; then
        echo "$module is in the base install" >&2
        exit 1
    fi
done
"$base" --help >/dev/null
"$base" demo --show >demo.toml
grep -q '^\[run\]' demo.toml
"$base" demo --to shards --set run.name=stages --quiet
content stages/shards
if [ -d "$work/train" ]; then
    run=runs/movielens-100k
    "$work/train/bin/embedmill" demo --set train.epochs=3 --set train.patience=0 \
        --set 'evaluate.gates={}' --quiet
    for stage in events vocab shards; do
        cmp <(content "stages/$stage") <(content "movielens-100k/$stage")
    done
    "$base" verify $run
    "$base" neighbors $run --item "Star Wars (1977)" -k 3
    "$base" recommend $run --user 196 -k 3
    "$base" export $run --format npy --dtype float16 --output vectors
fi
echo "Python $version: all passed"
