# SPDX-License-Identifier: GPL-2.0
# Sourced by the tests of the scripts.
# shellcheck shell=sh
set -eu
SCRIPTS=$(cd "$(dirname "$0")/.." && pwd)
TMP=$(mktemp -d)
trap 'rm -rf "$TMP"' EXIT
# shellcheck source=tools/testing/selftests/filesystems/erofs_demand/ktap.sh
. "$SCRIPTS/../tools/testing/selftests/filesystems/erofs_demand/ktap.sh"
