#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The sample file system (samples/rust/rust_filesystem.rs) is what its source says: names,
# types and contents, however they are read.
. "${0%/*}/lib.sh"

TYPE=rust_filesystem
DIGEST=${DIGEST:-/build/target/release/mount-digest}

case $(modinfo -n $TYPE 2>/dev/null) in
*/updates/*) ;;
*) skip_all "$TYPE is not installed" ;;
esac
[ -x "$DIGEST" ] || skip_all "no $DIGEST"
plan 24

# Counts from 0 to 250 again and again.
python3 -c 'import sys
sys.stdout.buffer.write(bytes(n % 251 for n in range(100000)))' >"$TMP/pattern"
cat >"$TMP/entries" <<-END
	. #0 type=directory ino=1 cookie=1 .
	. #1 type=directory ino=1 cookie=2 ..
	. #2 type=file ino=2 cookie=3 hello
	. #3 type=file ino=3 cookie=4 pattern
	. #4 type=directory ino=4 cookie=5 sub
	sub #0 type=directory ino=4 cookie=1 .
	sub #1 type=directory ino=1 cookie=2 ..
	sub #2 type=link ino=5 cookie=3 link
END

# same_ranges OFFSET+LENGTH...: read with a read(2) each.
same_ranges() {
	"$PROGRAMS/readrange" --random "$MNT/pattern" "$@" >"$TMP/got" &&
		"$PROGRAMS/readrange" "$TMP/pattern" "$@" | cmp - "$TMP/got"
}
same_mapped() {
	python3 -c 'import mmap, sys
with open(sys.argv[1], "rb") as file:
    sys.stdout.buffer.write(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)[:])' "$MNT/pattern" |
		cmp - "$TMP/pattern"
}
digest() { "$DIGEST" "$MNT" >"$TMP/digest"; }
# told GROUP: what the digest says of it, with blanks between.
told() { awk -F '\t' -v group="$1" '$2 == group { print $1, $3, $4 }' "$TMP/digest" | sed 's/ $//'; }
same_entries() { told entry | diff - "$TMP/entries"; }
# everywhere GROUP TEXT: it is said of something, and all that is said has the text.
everywhere() { told "$1" | grep -q . && told "$1" | fails grep -v -w -e "$2"; }
shown() { awk -v dir="$MNT" '$2 == dir { print $1, $3, $4 }' /proc/mounts; }
remount() { "$PROGRAMS/trymount" --remount "$TYPE" "$MNT" "$1"; }

check "to mount it loads its module" equal "$("$PROGRAMS/trymount" $TYPE "$MNT" '')" 0
check "the type needs no device" grep -q -x "nodev	$TYPE" /proc/filesystems
check "the module needs no other" equal "$(modinfo -F depends $TYPE)" ''
check "it is shown read-only and without options" equal "$(shown)" "none $TYPE ro,relatime"
check "everything that can be seen can be told" digest
check "directories have their entries, in order, and with types" same_entries
check "and can be listed from any entry on" equal "$(told seek)" ". cookies=5 same=5
sub cookies=3 same=3"
check "a name that is not there is not found" fails test -e "$MNT/absent"
check "a file has its content" equal "$(cat "$MNT/hello")" "Hello from Rust"
check "its mode, size, owner, inode number and type" \
	equal "$(stat -c '%a %s %u:%g %i %F' "$MNT/hello")" "444 16 0:0 2 regular file"
check "a link leads to it" eval \
	'equal "$(readlink "$MNT/sub/link")" ../hello && cmp "$MNT/sub/link" "$MNT/hello"'
check "a file of many pages has its content" cmp "$MNT/pattern" "$TMP/pattern"
drop_caches
check "also from behind, across pages, and over its end" \
	same_ranges 99990+100 70000+5000 4090+20 12288+4096 0+1
drop_caches
check "and mapped" same_mapped
check "what is behind its end reads as nothing" \
	equal "$("$PROGRAMS/readrange" "$MNT/pattern" 100000+10 | wc -c)" 0
check "statfs(2) tells type, inodes and longest name" \
	equal "$(stat -f -c '%t %c %d %l %s' "$MNT")" "72757374 5 0 255 4096"
check "nothing can be written" everywhere refused remove=EROFS
check "nor be told where it is on a device" everywhere extent EOPNOTSUPP
check "an option is not known" eval 'equal "$(remount text=other)" EINVAL &&
	equal "$("$PROGRAMS/trymount" $TYPE "$TMP" text=other)" EINVAL'
check "a remount changes nothing" eval \
	'mount -o remount,rw "$MNT" && equal "$(shown)" "none $TYPE ro,relatime"'
mkdir "$TMP/second"
check "a second mount is a volume of its own" eval \
	'mount -t $TYPE none "$TMP/second" && cmp "$TMP/second/pattern" "$TMP/pattern" &&
	 fails equal "$(stat -c %d "$TMP/second")" "$(stat -c %d "$MNT")" && umount "$TMP/second"'
check "the module stays while it is mounted" fails rmmod $TYPE
umount "$MNT"
check "it unloads then" eval 'wait_for 10 module_unused $TYPE && rmmod $TYPE'
check "and its type goes" fails grep -q $TYPE /proc/filesystems
finish
