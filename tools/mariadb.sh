#!/usr/bin/env bash
# Fetches MariaDB's server from Debian's packages into the user's cache folder, once, for the tests of the run history.
# Prints the folder, which has usr/sbin/mariadbd in it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/debian.sh"
debian_program mariadb "8 MB" usr/sbin/mariadbd mariadb-server-core libaio1 liburing2 libnuma1
