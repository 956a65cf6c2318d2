#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# scripts/guest/kunit makes subtests of what KUnit leaves in debugfs.
. "${0%/*}/lib.sh"

# results SUITE RESULT: as the kernel writes them; the second of two tests ends with
# RESULT.
results() {
	mkdir -p "$TMP/modules/$1"
	cat >"$TMP/modules/$1/results" <<-END
		KTAP version 1
		1..1
		    KTAP version 1
		    # Subtest: $1
		    1..2
		    ok 1 one
		    # two: EXPECTATION FAILED at fs/erofs/inode.rs:1
		    $2 2 two
		# $1: pass:2 fail:0 skip:0 total:2
		# Totals: pass:2 fail:0 skip:0 total:2
		$2 1 $1
	END
}

# A modprobe that brings the suites in $TMP/modules, beside one that was there.
mkdir -p "$TMP/bin" "$TMP/kunit/of_the_kernel" "$TMP/modules"
cat >"$TMP/bin/modprobe" <<END
#!/bin/sh
cp -r "$TMP"/modules/. "$TMP/kunit/"
END
chmod +x "$TMP/bin/modprobe"

# collects STATUS SUM: the status, and what sum-tests says of it
collects() {
	got=0
	PATH=$TMP/bin:$PATH KUNIT=$TMP/kunit "$SCRIPTS/guest/kunit" >"$TMP/ktap" 2>&1 || got=$?
	{
		printf '1..1\n'
		sed 's/^/  /' "$TMP/ktap"
		if [ "$got" = 0 ]; then echo "ok 1 kunit"; else echo "not ok 1 kunit"; fi
		echo "# exit status 0"
	} >"$TMP/log"
	cat "$TMP/log"
	"$SCRIPTS/sum-tests" "$TMP/log" >"$TMP/sum" || :
	equal "$got" "$1" && equal "$(tail -n 1 "$TMP/sum")" "$2"
}

# Without the modules there are no results of theirs.
unload() { rm -r "$TMP/kunit/first" "$TMP/kunit/second"; }

plan 4
check "modules without KUnit tests fail" collects 1 '0 passed, 1 failed'
results first ok
results second ok
check "tests of two suites are counted" collects 0 '4 passed, 0 failed'
unload
results first 'not ok'
check "a failure in one of them is a failure" collects 1 '3 passed, 1 failed'
unload
results first ok
sed -i '/ 2 two$/d' "$TMP/modules/second/results"
check "so is a test that did not run" collects 0 '3 passed, 1 failed'
finish
