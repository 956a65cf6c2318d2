# SPDX-License-Identifier: GPL-2.0
# Sourced by the tests: KTAP output (Documentation/dev-tools/ktap.rst).
#
#   plan 3
#   check "the image can be mounted" mount_image ...
#   ok "DESCRIPTION" | not_ok "DESCRIPTION" | skip "DESCRIPTION" "REASON"
#   finish
# shellcheck shell=sh

ktap_count=0
ktap_failed=0

plan() { printf 'KTAP version 1\n1..%d\n' "$1"; }
note() { printf '# %s\n' "$*"; }

ok() {
	ktap_count=$((ktap_count + 1))
	printf 'ok %d %s\n' "$ktap_count" "$1"
}

not_ok() {
	ktap_count=$((ktap_count + 1))
	ktap_failed=$((ktap_failed + 1))
	printf 'not ok %d %s\n' "$ktap_count" "$1"
}

skip() { ok "$1 # SKIP $2"; }

# check DESCRIPTION COMMAND [ARG]...: COMMAND's status is the result, what it
# says becomes diagnostic lines. It runs in this shell, so it may set variables.
check() {
	ktap_title=$1
	shift
	if "$@" >"$TMP/check" 2>&1; then
		ktap_result=ok
	else
		ktap_result=not_ok
	fi
	sed 's/^/# /' "$TMP/check"
	$ktap_result "$ktap_title"
}

# fails COMMAND [ARG]...: true if COMMAND is not.
fails() { ! "$@"; }

# equal GOT WANTED
equal() {
	[ "$1" = "$2" ] || { echo "got '$1', wanted '$2'"; return 1; }
}

# Nothing to test here: say why and end.
skip_all() {
	printf 'KTAP version 1\n1..0 # SKIP %s\n' "$1"
	exit 4
}

finish() {
	[ "$ktap_failed" = 0 ]
	exit
}
