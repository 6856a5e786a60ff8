#!/usr/bin/env bash
# Fetches Prometheus and promtool from Debian's packages into the user's cache folder, once, for the tests of the rules
# and dashboards. Prints the folder, which has usr/bin/prometheus in it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/debian.sh"
debian_program prometheus "19 MB" "usr/bin/prometheus usr/bin/promtool" prometheus
