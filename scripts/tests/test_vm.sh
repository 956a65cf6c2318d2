#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# scripts/vm tells what became of the guest.
. "${0%/*}/lib.sh"

# ends STATUS [OPTION]... -- COMMAND...
ends() {
	wanted=$1
	shift
	got=0
	"$SCRIPTS/vm" --name "selftest-$$" "$@" >"$TMP/out" 2>"$TMP/err" || got=$?
	cat "$TMP/out" "$TMP/err"
	equal "$got" "$wanted"
}

plan 9
check "the status of the command is the status of vm" ends 7 -- \
	sh -c 'echo "it'\''s out"; echo err >/dev/stderr; echo kept >/build/out/vm-selftest; exit 7'
check "output arrives as it was written" equal "$(cat "$TMP/out")" "it's out
err"
check "a panic is a splat" ends 201 -- sh -c 'echo c >/proc/sysrq-trigger'
check "a guest that goes away is reported" ends 202 -- busybox poweroff -f
check "a guest that hangs is ended" ends 203 --timeout 10 -- sleep 1000
check "a kernel that is not there is not booted" ends 204 --kernel 1.2.3-none -- true
check "selftests that fail are a failure of their run" ends 1 -- \
	env LIMIT=0.01 /src/scripts/guest/selftests smoke
check "those that another guest has are not run" ends 0 -- \
	env LIMIT=0.01 TAKEN=/tmp/taken sh -c 'mkdir -p /tmp/taken/test_smoke.sh; exec /src/scripts/guest/selftests smoke'
check "a wrong option is not taken for a guest" ends 204 --nonsense
rm -rf "${BUILD:-$SCRIPTS/../build}/vm/selftest-$$" "${BUILD:-$SCRIPTS/../build}/logs/vm-selftest-$$.log"
finish
