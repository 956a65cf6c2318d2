#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Layers of an overlay that arrive on demand: programs run from them, files are copied up
# whole, and what layers say with attributes, device nodes and file handles is heeded.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

load_modules
grep -q -w overlay /proc/filesystems || modprobe overlay 2>/dev/null || skip_all "no overlayfs"
plan 32

BASE=$TMP/base TOP=$TMP/top MERGED=$TMP/merged UPPER=$TMP/upper
CAPABILITY=0x0100000200200000000000000000000000000000
SIZE=300001

# The lower layer, and one over it that hides a file and what was in a directory.
make_layers() {
	mkdir -p "$BASE/bin" "$BASE/hidden" "$BASE/kept" "$TOP/hidden" "$TOP/kept"
	cp "$(command -v busybox)" "$BASE/bin/"
	for name in read append mode capable gone linked; do
		head -c $SIZE /dev/urandom >"$BASE/$name"
	done
	ln "$BASE/linked" "$BASE/other-name"
	chmod 640 "$BASE/append"
	chown 1000:100 "$BASE/append"
	touch -d @1234567890.123456789 "$BASE/mode"
	setfattr -n user.name -v value "$BASE/append"
	setfattr -n security.capability -v $CAPABILITY "$BASE/capable"
	setfacl -m u:1001:r "$BASE/append"
	echo base >"$BASE/hidden/file"
	echo base >"$BASE/kept/file"
	mknod "$TOP/gone" c 0 0
	setfattr -n trusted.overlay.opaque -v y "$TOP/hidden"
	echo top >"$TOP/hidden/new"
	echo top >"$TOP/kept/new"
	make_image base.img "$BASE" && make_image top.img "$TOP"
}
mount_overlay() {
	mkdir -p "$UPPER" "$TMP/work"
	mount -t overlay -o "lowerdir=$1,upperdir=$UPPER,workdir=$TMP/work,${2:-index=off}" overlay "$MERGED"
}
attribute() { getfattr --absolute-names --only-values -n "$1" "$2" 2>/dev/null; }
# Who may what, without the name of the file.
rights() { stat -c '%a %u:%g' "$1"; getfacl -n -c "$1" 2>/dev/null; }
# fetches COMMAND [ARG]...: it is true, and has data fetched.
fetches() {
	before=$(fetched_bytes)
	"$@" && [ "$(fetched_bytes)" -gt "$before" ]
}
unchanged() { cmp "$MNT/$1" "$BASE/$1"; }
in_upper() { test -f "$UPPER/$1"; }
# end COUNT FILE: its last bytes, with blanks for newlines.
end() { tail -c "$1" "$MERGED/$2" | tr '\n' ' '; }
append() { echo more >>"$MERGED/$1" && { cat "$BASE/$1"; echo more; } | cmp - "$MERGED/$1"; }

make_layers
prepare >/dev/null
start_daemon
mkdir "$MERGED" "$TMP/mnt-top"

# --- one lower layer -------------------------------------------------------------------

check "a layer can be mounted before it has arrived" mount_image base.img
check "and be the lower one of an overlay" mount_overlay "$MNT"
check "a program runs from it, and is fetched for that" eval \
	'fetches "$MERGED/bin/busybox" echo text >"$TMP/said" && equal "$(cat "$TMP/said")" text'
check "a file of it is read right, and is fetched for that" fetches cmp "$MERGED/read" "$BASE/read"
check "attributes of users are seen" equal "$(attribute user.name "$MERGED/append")" value
check "and access control lists, owner and mode" \
	equal "$(rights "$MERGED/append")" "$(rights "$BASE/append")"
check "and capabilities" eval \
	'attribute security.capability "$MERGED/capable" >"$TMP/got" &&
	 attribute security.capability "$BASE/capable" | cmp - "$TMP/got" && test -s "$TMP/got"'
check "nothing was copied up for that" equal "$(find "$UPPER" -mindepth 1 | wc -l)" 0

check "a file that is appended to is fetched, and is whole" fetches append append
check "it is in the upper layer" in_upper append
check "with owner, mode and access control list" \
	equal "$(rights "$UPPER/append")" "$(rights "$BASE/append")"
check "and with its attribute" equal "$(attribute user.name "$UPPER/append")" value
check "the lower one is as it was" unchanged append
check "a mode can be changed" eval \
	'chmod 600 "$MERGED/mode" && equal "$(stat -c %a "$MERGED/mode")" 600'
check "what it is of keeps time and content" eval \
	'cmp "$MERGED/mode" "$BASE/mode" && equal "$(stat -c %.Y "$MERGED/mode")" 1234567890.123456789'
check "the lower one has its mode" equal "$(stat -c %a "$MNT/mode")" 644
check "an attribute can be set, and keeps the others" eval \
	'setfattr -n user.second -v 2 "$MERGED/append" &&
	 equal "$(attribute user.name "$MERGED/append"):$(attribute user.second "$MERGED/append")" value:2'
check "a file can be removed" eval 'rm "$MERGED/gone" && fails test -e "$MERGED/gone"'
check "and is there below" unchanged gone
umount "$MERGED"
check "all of that is there after the next mount" eval \
	'mount_overlay "$MNT" && fails test -e "$MERGED/gone" &&
	 equal "$(end 5 append)" "more " && equal "$(stat -c %a "$MERGED/mode")" 600'
umount "$MERGED"

# --- file handles of the lower layer -------------------------------------------------------

rm -rf "$UPPER" "$TMP/work"
check "an overlay that needs file handles of its layers gets them" eval \
	'mount_overlay "$MNT" index=on,nfs_export=on &&
	 awk -v dir="$MERGED" "\$2 == dir { print \$4 }" /proc/mounts | grep -w nfs_export=on &&
	 fails kernel_log_has "overlayfs.*(fall|disabl)"'
check "a file with two names is copied up" append linked
check "and is the same file under the other one" cmp "$MERGED/other-name" "$MERGED/linked"
umount "$MERGED"
drop_caches
check "also after the next mount" eval \
	'mount_overlay "$MNT" index=on,nfs_export=on && echo again >>"$MERGED/other-name" &&
	 cmp "$MERGED/other-name" "$MERGED/linked" && equal "$(end 11 linked)" "more again "'
umount "$MERGED"

# --- two lower layers ------------------------------------------------------------------------

rm -rf "$UPPER" "$TMP/work"
check "a second layer can be mounted" mount_image top.img '' "$TMP/mnt-top"
check "and lie over the first one" mount_overlay "$TMP/mnt-top:$MNT"
check "a file that it says to be gone is gone" eval \
	'fails test -e "$MERGED/gone" && test -c "$TMP/mnt-top/gone"'
check "a directory that it says to be its own has only its files" \
	equal "$(ls "$MERGED/hidden")" new
check "another one has those of both" equal "$(cat "$MERGED/kept/file" "$MERGED/kept/new")" "base
top"
check "what it leaves alone is there" cmp "$MERGED/read" "$BASE/read"
umount "$MERGED"
check "an overlay without an upper layer is read-only" eval \
	'mount -t overlay -o "lowerdir=$TMP/mnt-top:$MNT" overlay "$MERGED" &&
	 cmp "$MERGED/read" "$BASE/read" && fails touch "$MERGED/new" 2>&1'
umount "$MERGED"
umount "$TMP/mnt-top"
check "layers can be unmounted then" umount "$MNT"
finish
