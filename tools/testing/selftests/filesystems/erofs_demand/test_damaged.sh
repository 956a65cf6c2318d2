#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A damaged part of an image is an error where it is used, with a line in the log
# that says what is wrong, and what is around it can still be read.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

load_modules
modprobe loop 2>/dev/null || [ -e /dev/loop-control ] || skip_all "no loop devices"
plan 30

FILE=$TMP/image
WALK_TIME=$((20 * SLOW))

# The root directory has "." and "..", then these. It is a compact inode with its
# entries behind it, and so are the files with their content.
NAMES="acl chunks five four many one"

# Sizes of structures of the format, in bytes (fs/erofs/disk).
INODE=32 ENTRY=12
# The unit that inodes are numbered in.
SLOT=32

# number OFFSET SIZE: an unsigned number of the image.
number() { od -An -v -t "u$2" -j "$1" -N "$2" "$FILE" | tr -d ' '; }

# put OFFSET BYTES, as printf(1) writes them.
put() {
	# shellcheck disable=SC2059 # escapes are wanted
	printf "$2" | dd of="$FILE" bs=1 seek="$1" conv=notrunc status=none
}

# empty_from OFFSET: nothing but zeros from there on.
empty_from() {
	head -c $(($(stat -c %s "$FILE") - $1)) /dev/zero |
		dd of="$FILE" bs=1M oflag=seek_bytes seek="$1" conv=notrunc status=none
}

make_good_image() {
	mkdir "$TMP/tree"
	for name in $NAMES; do echo "$name" >"$TMP/tree/$name"; done
	chmod 644 "$TMP/tree"/*
	rm "$TMP/tree/many"
	mkdir "$TMP/tree/many"
	# More than a block of names.
	seq -f "$TMP/tree/many/%0100.0f" 60 | xargs touch
	setfattr -n user.name -v value "$TMP/tree/one" "$TMP/tree/acl"
	# No checksum: all that is changed is in the block of the super block.
	make_image good.img "$TMP/tree" -E nosbcrc,force-inode-compact
	FILE=$SOURCE/good.img
	block=$((1 << $(number $((1024 + 12)) 1)))
	root=$(number $((1024 + 14)) 2)
	meta=$(($(number $((1024 + 40)) 4) * block))
	root=$((meta + root * SLOT))
	FILE=$TMP/image
}

# entry INDEX: where it is in the root directory. inode NAME: where that is.
entry() { echo $((root + INODE + $1 * ENTRY)); }
inode() {
	index=2
	for name in $NAMES; do
		[ "$name" != "$1" ] || break
		index=$((index + 1))
	done
	echo $((meta + $(number "$(entry $index)" 8) * SLOT))
}

damage() {
	cp "$SOURCE/good.img" "$FILE"
	log_mark=$(kernel_log | wc -l)
}
mounted() { mount -t erofs -o ro "$FILE" "$MNT"; }

# logged EXTENDED-REGEX: since the last damage.
logged() {
	kernel_log | tail -n "+$((log_mark + 1))" >"$TMP/log"
	grep -E -q -- "$1" "$TMP/log" || { cat "$TMP/log"; return 1; }
}

# names DIRECTORY: what readdir says, in its order, and what comes behind.
names() { timeout "$WALK_TIME" ls -U -a "$1" 2>&1 | head -c 100000 | tr '\n' ' '; }
# says WHAT COMMAND [ARG]...: it fails, and says why with these words.
says() {
	said=$1
	shift
	fails "$@" >"$TMP/said" 2>&1 || { echo "it worked"; return 1; }
	grep -q -- "$said" "$TMP/said" || { cat "$TMP/said"; return 1; }
}
# Who is nobody must get to the files.
chmod 711 "$WORK"
as_nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }

CORRUPT='Structure needs cleaning'
make_good_image

# --- directories ------------------------------------------------------------------

damage
check "the image can be mounted" mounted
check "and has its names" equal "$(names "$MNT")" ". .. $NAMES "
umount "$MNT"

# The entry of "five" begins within its own array; it is the fifth.
damage
put $(($(entry 4) + 8)) '\0\0'
mounted
# The name before it has no end, either.
check "entries before a damaged one are listed, then comes the error" \
	equal "$(names "$MNT")" ". .. acl ls: reading directory '$MNT': $CORRUPT "
check "and the log says why" logged 'directory .*nameoff'
umount "$MNT"

# The first block of this one is elsewhere, the second one behind the inode.
damage
put $(($(inode many) + INODE + 8)) '\0\0'
# Where the names of the first block begin tells how many there are; two are "." and "..".
first_block=$(($(number $(($(inode many) + 16)) 4) * block))
many=$(($(number $((first_block + 8)) 2) / ENTRY - 2))
mounted
lists_first_block() {
	names "$MNT/many" >"$TMP/names"
	grep -q "$CORRUPT" "$TMP/names" && [ "$many" -gt 0 ] &&
		equal "$(tr " " "\n" <"$TMP/names" | grep -c "^0*[1-9]")" "$many"
}
check "the block before a damaged one is listed, then comes the error" lists_first_block
umount "$MNT"

# --- access control lists -----------------------------------------------------------

# Attributes that are a header and nothing else.
damage
put $(($(inode acl) + 2)) '\1\0'
mounted
check "a list that nobody knows how to read is no permission" \
	says 'Operation not supported' as_nobody cat "$MNT/acl"
check "and the log says why" logged 'not supported: i_xattr_icount'
check "other files are not concerned" as_nobody cat "$MNT/one"
umount "$MNT"

# More shared attributes than there is room for.
damage
put $(($(inode acl) + INODE + 4)) '\377'
mounted
check "a list that is lost in damage is no permission" says "$CORRUPT" as_nobody cat "$MNT/acl"
check "and the log says why" logged 'h_shared_count'
umount "$MNT"

# --- beyond the end -------------------------------------------------------------------

# beyond_the_end WHAT COMMAND [ARG]...
beyond_the_end() {
	what=$1
	shift
	check "$what beyond the end of the image: an error" says "$CORRUPT" "$@"
	check "and the log says where" logged 'beyond the end of the image'
	umount "$MNT"
}

damage
put "$(entry 7)" '\377\377\377\17\0\0\0\0'
mounted
beyond_the_end "an inode" stat "$MNT/one"

# As many attributes as can be, of which the last ones are nowhere: they are empty
# up to there.
damage
put $(($(inode one) + 2)) '\377\377'
empty_from $(($(inode one) + INODE))
mounted
beyond_the_end "attributes" getfattr -d "$MNT/one"

# A block map of four million chunks.
damage
at=$(inode chunks)
put "$at" '\10\0'
put $((at + 8)) '\0\0\0\377'
put $((at + 16)) '\0\0\0\0'
mounted
beyond_the_end "a block map" tail -c 1 "$MNT/chunks"

# A block of the directory.
damage
put $(($(inode many) + 16)) '\0\0\1\0'
mounted
check "a directory beyond the end of the image: an error" says "$CORRUPT" ls "$MNT/many"
check "and the log says where" logged 'beyond the end of device'
umount "$MNT"

# --- inodes of the image itself ----------------------------------------------------------

# The one that packs what is common to many files. The kernel's own erofs.ko calls a function
# that a socket does not have.
make_packed_image() {
	make_image packed.img "$TMP/tree" -E nosbcrc,force-inode-compact --xattr-prefix=user.na
	FILE=$SOURCE/packed.img
	nid=$(number $((1024 + 96)) 8)
	at=$((meta + nid * SLOT))
	[ "$nid" != 0 ] && [ "$(number $((at + 4)) 2)" = $((0100644)) ] && cp "$FILE" "$TMP/image"
	FILE=$TMP/image
	log_mark=$(kernel_log | wc -l)
}
make_packed_image
check "an image with a packed inode can be mounted" eval 'mounted && cmp "$TMP/tree/one" "$MNT/one"'
umount "$MNT"
put $((at + 4)) '\244\301'
check "not if that is a socket" says "$CORRUPT" mounted
check "and the log says so" logged 'packed inode [0-9]*: not a regular file'

# --- noise -----------------------------------------------------------------------------

# Lines are limited, but those of one image take no room from those of another.
damage
put "$(entry 7)" '\377\377\377\17\0\0\0\0'
mounted
python3 - "$MNT/one" <<-'END'
	import os, sys
	for n in range(1000):
	    try:
	        os.stat(sys.argv[1])
	    except OSError:
	        pass
END
lines() { kernel_log | tail -n "+$((log_mark + 1))" | grep -c 'beyond the end of the image'; }
check "what is damaged is not said each time" test "$(lines)" -lt 1000
cp "$FILE" "$TMP/quiet"
QUIET=$WORK/quiet
mkdir "$QUIET"
log_mark=$(kernel_log | wc -l)
quiet_mounted() { mount -t erofs -o ro "$TMP/quiet" "$QUIET"; }
check "another image is mounted meanwhile" quiet_mounted
fails stat "$QUIET/one" 2>/dev/null
check "what is wrong with it is said" logged 'quiet.*beyond the end of the image'
umount "$QUIET"
umount "$MNT"

# --- without end -----------------------------------------------------------------------

# A file of 16 TiB, of which each block is block 0: to look for its end takes 4 G looks
# into a map of 16 GiB.
# make_endless SIZE: that of the file, as printf(1) writes 64 bits.
make_endless() {
	make_image good.img "$TMP/tree" -E nosbcrc,force-inode-extended
	INODE=64
	FILE=$SOURCE/good.img
	root=$(number $((1024 + 14)) 2)
	meta=$(($(number $((1024 + 40)) 4) * block))
	root=$((meta + root * SLOT))
	at=$(inode one)
	FILE=$TMP/image
	damage
	put "$at" '\11\0\0\0'
	put $((at + 8)) "$1\\0\\0\\0\\0"
	empty_from $((at + INODE))
	truncate -s 20G "$FILE"
}
looks_for_long() { [ "$(cut -d ' ' -f 15 "/proc/$SEEKER/stat" || echo 0)" -ge 100 ]; }
gone() { ! kill -0 "$SEEKER" 2>/dev/null; }
make_endless '\0\0\0\0\0\20\0\0'
check "an image with a file that does not end can be mounted" mounted

# seek_hole: begins to look for the end.
seek_hole() {
	python3 -c 'import os, sys
os.lseek(os.open(sys.argv[1], os.O_RDONLY), 0, os.SEEK_HOLE)' "$MNT/one" &
	SEEKER=$!
}
seek_hole
check "who looks for its end looks for long" wait_for 30 looks_for_long
kill -KILL $SEEKER
check "and can be killed" wait_for 5 gone
umount "$MNT"

# 64 GiB, with a map of 64 MiB, all of which is in memory once each of its pages was used.
make_endless '\0\0\0\0\20\0\0\0'
mounted
use_the_map() {
	python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
for offset in range(0, 64 << 30, 4 << 20):
    assert os.pread(fd, 1, offset)' "$MNT/one"
}
check "a large map can be in memory" use_the_map
seek_hole
check "who looks for the end there looks for long" wait_for 30 looks_for_long
kill -KILL $SEEKER
check "and can be killed, too" wait_for 5 gone
umount "$MNT"
finish
