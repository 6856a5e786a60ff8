#!/usr/bin/env bash
# stage.sh NAME COMMAND…: runs the command between two lines that say when it began and how long it took.
set -uo pipefail
name=$1
shift
begin=$(date +%s)
printf '\n[%s] %s: %s\n' "$(date +%H:%M:%S)" "$name" "$*"
"$@"
code=$?
printf '[%s] %s: %s after %d s\n' "$(date +%H:%M:%S)" "$name" "$([ $code = 0 ] && echo done || echo "FAILED with exit code $code")" $(($(date +%s) - begin))
exit $code
