#!/usr/bin/env bash
# A night's run by cron:   0 3 * * *  /opt/embedmill/cron.sh /etc/embedmill/plays.toml
# It runs for yesterday, tries again up to three times where that may help, and keeps the last lines.
set -u
config=$1 day=${2:-$(date -u -d yesterday +%F)} pause=${EMBEDMILL_PAUSE:-600}
for try in 1 2 3 4; do
  "${EMBEDMILL:-embedmill}" run "$config" --var "ds=$day" --json
  code=$?
  case $code in
    7|8|130|137|143) [ "$try" = 4 ] || sleep "$pause" ;;
    *) break ;;
  esac
done
exit $code
