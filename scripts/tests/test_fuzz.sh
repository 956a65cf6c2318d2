#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# scripts/fuzz tells what each target did, and fails when there is a finding or
# an engine that does not run.
. "${0%/*}/lib.sh"

# The script with two targets and an engine of our making.
mkdir -p "$TMP/scripts" "$TMP/build/logs" "$TMP/tools/fuzz/fuzz_targets"
cp "$SCRIPTS/lib.sh" "$SCRIPTS/fuzz" "$TMP/scripts/"
touch "$TMP/tools/fuzz/fuzz_targets/good.rs" "$TMP/tools/fuzz/fuzz_targets/other.rs"
# engine OTHER: what the engine of the target "other" does.
engine() {
	cat >"$TMP/scripts/enter" <<-END
		#!/bin/sh
		case "\$*" in
		*fuzz-good*) ;;
		*fuzz-other*) $1 ;;
		*) exit 0 ;;
		esac
		echo "#99	DONE   cov: 7 ft: 9 corp: 2/3b lim: 4 exec/s: 1 rss: 30Mb"
		echo "stat::number_of_executed_units: 99"
	END
	chmod +x "$TMP/scripts/enter"
}

# ends STATUS LINES [ARGUMENT]...
ends() {
	status=$1 lines=$2
	shift 2
	got=0
	BUILD=$TMP/build "$TMP/scripts/fuzz" --seconds 10 "$@" >"$TMP/out" 2>"$TMP/err" || got=$?
	cat "$TMP/out" "$TMP/err"
	equal "$(sed 1d "$TMP/out")" "$lines" && equal "$got" "$status"
}

plan 5
engine :
check "a target says what it did" ends 0 'good: 99 inputs, 7 edges, 0 findings
other: 99 inputs, 7 edges, 0 findings'
check "one target can be named" ends 0 'other: 99 inputs, 7 edges, 0 findings' other
check "a target that is not there is an error" ends 1 '' nonesuch

engine "touch '$TMP/build/fuzz/findings/other-crash-1'; echo \"thread 'x' panicked at a.rs:1:\"; exit 77"
check "a finding fails the run" ends 1 "good: 99 inputs, 7 edges, 0 findings
other: no inputs, 0 edges, 1 findings
thread 'x' panicked at a.rs:1:"

engine 'echo no such program; exit 127'
check "an engine that does not run fails it, too" ends 1 'good: 99 inputs, 7 edges, 0 findings
other: no inputs, 0 edges, 0 findings
no such program'
finish
