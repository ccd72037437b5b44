#!/usr/bin/env bash
# Whether something listens: healthy.sh HOST PORT
set -euo pipefail
timeout 2 bash -c "exec 3<>/dev/tcp/$1/$2" 2>/dev/null
