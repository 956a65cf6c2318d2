#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# sum-tests counts what passed, and takes no silence for success.
. "${0%/*}/lib.sh"

# sums WANTED-LAST-LINE WANTED-STATUS LOG-TEXT
sums() {
	printf '%b' "$3" >"$TMP/log"
	got_status=0
	"$SCRIPTS/sum-tests" "$TMP/log" >"$TMP/sum" || got_status=$?
	cat "$TMP/sum"
	equal "$(tail -n 1 "$TMP/sum")" "$1" && equal "$got_status" "$2"
}
end='# exit status 0\n'

plan 20
check "cargo results are added up" sums "7 passed, 0 failed, 1 skipped" 0 \
	"test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured\n$end"
check "a failed cargo test counts" sums "4 passed, 1 failed" 1 \
	"test a::b ... FAILED\ntest result: FAILED. 4 passed; 1 failed; 0 ignored\n# exit status 101\n"
check "cargo that does not compile is a failure" sums "0 passed, 1 failed" 1 \
	"error: could not compile\n# exit status 101\n"
check "KTAP results are counted" sums "2 passed, 0 failed, 1 skipped" 0 \
	"KTAP version 1\n1..3\nok 1 a\nok 2 b # SKIP no disk\nok 3 c\n$end"
check "a KTAP failure counts" sums "1 passed, 1 failed" 1 \
	"1..2\nok 1 a\nnot ok 2 b\n$end"
check "only subtests of a suite are counted" sums "2 passed, 0 failed" 0 \
	"1..1\n  1..2\n  ok 1 a\n  ok 2 b\nok 1 suite\n$end"
check "a failed subtest is counted once" sums "1 passed, 1 failed" 1 \
	"1..1\n  1..2\n  ok 1 a\n  not ok 2 b\nnot ok 1 suite\n$end"
check "a suite that fails with all its subtests passed counts" sums "1 passed, 1 failed" 1 \
	"1..1\n  1..1\n  ok 1 a\nnot ok 1 suite # TIMEOUT\n$end"
check "a suite that dies half way is a failure" sums "1 passed, 1 failed" 1 \
	"1..1\n  1..3\n  ok 1 a\nok 1 suite\n$end"
check "a suite without a plan is a failure" sums "1 passed, 1 failed" 1 \
	"1..1\n  ok 1 a\nok 1 suite\n$end"
check "suites that never ran are a failure" sums "1 passed, 1 failed" 1 \
	"1..2\nok 1 a\n$end"
check "a suite that is skipped whole counts once" sums "0 passed, 0 failed, 1 skipped" 0 \
	"1..1\n  1..0 # SKIP no module\nok 1 suite # SKIP\n$end"
check "a splat is a failure" sums "1 passed, 1 failed" 1 \
	"1..1\nok 1 a\n# exit status 201\n"
check "a log without an end is a failure" sums "1 passed, 1 failed" 1 "1..1\nok 1 a\n"
check "a log without results is a failure" sums "0 passed, 1 failed" 1 "$end"
check "a guest that died in a suite is a failure of each level" sums "1 passed, 3 failed" 1 \
	"1..2\n  1..2\n  ok 1 a\n# exit status 202\n"

printf '1..2\n  1..2\n  ok 1 a\n  not ok 2 b\nnot ok 1 suite # exit=1 \n  1..1\n  ok 1 a\nok 2 other\n# exit status 1\n' >"$TMP/log"
"$SCRIPTS/sum-tests" "$TMP/log" >"$TMP/sum" || :
check "a failure is named with the suite it is in" equal "$(head -n 1 "$TMP/sum")" "  failed: suite: b"

printf '1..3\n  1..2\n  # not this\n  ok 1 a\n  # got 1\n  # wanted 2\n  not ok 2 b\n  # kernel: a line\n  # 3 s\nnot ok 1 suite # exit=1 \n' >"$TMP/log"
printf '  1..1\n  ok 1 c\n  # waits\nnot ok 2 hung # TIMEOUT\nnot ok 3 silent\n# exit status 1\n' >>"$TMP/log"
"$SCRIPTS/sum-tests" "$TMP/log" >"$TMP/sum" || :
check "what it said before is below it" equal "$(sed -n '1,3p' "$TMP/sum")" \
	"$(printf '  failed: suite: b\n    # got 1\n    # wanted 2')"
check "or what was said last of all, if the suite is what failed" equal "$(sed -n '4,5p' "$TMP/sum")" \
	"$(printf '  failed: hung # TIMEOUT\n    # waits')"
check "nothing, if it said nothing" equal "$(sed -n '6,$p' "$TMP/sum")" \
	"$(printf '  failed: silent\n2 passed, 3 failed')"
finish
