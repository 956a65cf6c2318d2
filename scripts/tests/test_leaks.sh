#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# scripts/leaks counts what kmemleak reports, and says whose it is.
. "${0%/*}/lib.sh"

# Addresses of modules that have gone are bare; others have names.
cat >"$TMP/report" <<'END'
unreferenced object 0xff1100000a1b2c00 (size 96):
  comm "demandd", pid 412, jiffies 4294951234
  hex dump (first 32 bytes):
    00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff  .."3DUfw........
  backtrace (crc 1a2b3c4d):
    __kmalloc_cache_noprof+0x2a0/0x3a0
    0xffffffffc0201234
    0xffffffffa0000000
    vfs_write+0x1b0/0x5e0
unreferenced object (percpu) 0x607f1a2b3c00 (size 8):
  comm "modprobe", pid 300, jiffies 4294950000
  backtrace (crc 0):
    do_init_module+0x60/0x230
END
cat >"$TMP/symbols" <<'END'
ffffffffc0202000 t last	[erofs]
ffffffffc0201000 t first	[erofs]
ffffffffc0201200 t middle	[erofs]
END
: >"$TMP/nothing"

# says STATUS LAST-LINE ARGUMENT...
says() {
	wanted=$1 last=$2
	shift 2
	got=0
	"$SCRIPTS/leaks" "$@" >"$TMP/out" 2>"$TMP/err" || got=$?
	cat "$TMP/out" "$TMP/err"
	equal "$got" "$wanted" && equal "$(tail -n 1 "$TMP/out")" "$last"
}
says_line() { grep -qx -- "$1" "$TMP/out"; }

plan 8
check "an empty report is no leak" says 0 'leaks: 0' "$TMP/nothing"
check "leaks are counted, of every kind" says 1 'leaks: 2' "$TMP/report"
check "the report is shown as it is" equal "$(sed '$d' "$TMP/out")" "$(cat "$TMP/report")"
check "symbols change no count" says 1 'leaks: 2' "$TMP/report" "$TMP/symbols"
check "a bare address gets the name before it" says_line '    0xffffffffc0201234 in middle \[erofs\]'
check "one before all names gets none" says_line '    0xffffffffa0000000'
check "what has a name keeps it" says_line '    vfs_write+0x1b0/0x5e0'
check "a report that is not there is not clean" says 2 '' "$TMP/no-such-report"
finish
