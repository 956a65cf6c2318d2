#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# scripts/run-tests ends with what the detectors of the debug kernel found, and the
# sum of all tests.
. "${0%/*}/lib.sh"

# The script with a virtual machine of our making.
mkdir -p "$TMP/scripts" "$TMP/build/logs"
for f in lib.sh run-tests splat splats sum-tests; do cp "$SCRIPTS/$f" "$TMP/scripts/"; done
# machine STATUS KTAP KERNEL-LOG
machine() {
	printf '%b' "$2" >"$TMP/ktap"
	rm -f "$TMP/kernel_log"
	[ -z "$3" ] || printf '%b' "$3" >"$TMP/kernel_log"
	cat >"$TMP/scripts/vm" <<-END
		#!/bin/sh
		# --name NAME ...
		echo "\$@" >"$TMP/asked-\$2"
		cat "$TMP/ktap"
		[ ! -e "$TMP/kernel_log" ] || cp "$TMP/kernel_log" "$TMP/build/logs/vm-\$2.log"
		exit $1
	END
	chmod +x "$TMP/scripts/vm"
}

# ends STATUS FINDINGS SUM
ends() {
	got=0
	BUILD=$TMP/build "$TMP/scripts/run-tests" debug >"$TMP/out" 2>&1 || got=$?
	cat "$TMP/out"
	equal "$(tail -n 2 "$TMP/out")" "$2
$3" && equal "$got" "$1"
}

clean='1..1\n  1..1\n  ok 1 a\nok 1 suite\n# leaks: 0\n'
leaky='1..1\n  1..1\n  ok 1 a\nnot ok 1 suite # leaked memory\n# leaks: 3\n'
booted='[ 1.0] reboot: Power down\n'
splat='[ 1.0] BUG: KASAN: slab-use-after-free in f\n[ 1.0] Call Trace:\n'

plan 11
machine 0 "$clean" "$booted"
check "nothing found" ends 0 'splats: 0, leaks: 0' '1 passed, 0 failed'
machine 201 "$clean" "$splat$booted"
check "a splat" ends 1 'splats: 1, leaks: 0' '1 passed, 1 failed'
machine 0 "$leaky" "$booted"
check "leaks" ends 1 'splats: 0, leaks: 3' '1 passed, 1 failed'
machine 202 '1..1\n' "$booted"
check "a guest that died did not look for leaks" ends 1 'splats: 0, leaks: unknown' '0 passed, 2 failed'
machine 204 '' ''
check "one that never was did not look for anything" \
	ends 1 'splats: unknown, leaks: unknown' '0 passed, 1 failed'

# Several machines.
machine 0 "$clean" "$booted"
ends 0 'splats: 0, leaks: 0' '1 passed, 0 failed' >/dev/null
check "a machine by itself shares nothing" fails grep TAKEN "$TMP/asked-debug"
J=3
export J
check "what three find is added up" ends 0 'splats: 0, leaks: 0' '3 passed, 0 failed'
check "they share the suites" eval 'grep TAKEN=/build/out/taken "$TMP/asked-debug-3" &&
	[ -d "$TMP/build/out/taken" ]'
machine 201 "$leaky" "$splat$booted"
check "so are splats and leaks" ends 1 'splats: 3, leaks: 9' '3 passed, 6 failed'
machine 202 '1..1\n' "$booted"
check "unknown and unknown is unknown" ends 1 'splats: 0, leaks: unknown' '0 passed, 6 failed'
J=1
check "a log of an earlier run does not count" eval 'ends 1 "splats: 0, leaks: unknown" "0 passed, 2 failed" &&
	fails ls "$TMP/build/logs/test-debug-2.log"'
finish
