#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# 64 readers of 200 blobs from a web server: what the daemon takes of memory and of descriptors has limits, which follow
# from its options ("Memory and descriptors" in the user guide) and not from how many blobs or readers there are.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"
. "${0%/*}/web.sh"

BLOBS=200 READERS=64 OPEN=64 WORKERS=8
SIZE=131072
# Descriptors that do not depend on options.
FIXED=24
HERE=${0%/*}

need_network
load_modules
plan 10

# One image, again and again with other bytes in its file, where the pattern was. All are blobs of one manifest, so that
# one command prepares them.
make_blobs() {
	mkdir "$TMP/one" "$TMP/tree" || return
	python3 -c 'import sys; sys.stdout.write("pattern " * (int(sys.argv[1]) // 8))' "$SIZE" >"$TMP/one/file" || return
	mkfs.erofs --quiet -b 4096 -T 0 --mkfs-time -E noinline_data "$TMP/one.img" "$TMP/one" || return
	python3 - "$TMP" "$SOURCE" "$BLOBS" "$SIZE" <<-'END' || return
		import os, random, sys
		tmp, source, blobs, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
		with open(f"{tmp}/one.img", "rb") as file:
		    image = file.read()
		at = image.index(b"pattern " * (size // 8))
		for n in range(1, blobs + 1):
		    data = random.Random(n).randbytes(size)
		    os.mkdir(f"{tmp}/tree/{n}")
		    with open(f"{tmp}/tree/{n}/file", "wb") as file:
		        file.write(data)
		    with open(f"{source}/blob-{n}", "wb") as file:
		        file.write(image[:at] + data + image[at + size :])
	END
	# shellcheck disable=SC2046 # names
	DIGEST=$("$DEMANDD" image manifest "$SOURCE" --name all $(seq -f 'blob-%.0f' "$BLOBS"))
}

# In one process: two hundred would take their time.
mount_all() {
	python3 - "$MNT" "$BLOBS" "$TAG" "$WORKERS" <<-'END' || return
		import concurrent.futures, ctypes, os, sys
		mounts, blobs, tag, workers = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
		libc = ctypes.CDLL(None, use_errno=True)

		def mount(n):
		    os.mkdir(f"{mounts}/{n}")
		    options = f"uuid=blob-{n},tag={tag}".encode()
		    if libc.mount(b"none", f"{mounts}/{n}".encode(), b"erofs", ctypes.c_ulong(1), options):
		        raise OSError(ctypes.get_errno(), f"mount of blob {n}")

		with concurrent.futures.ThreadPoolExecutor(workers) as pool:
		    list(pool.map(mount, range(1, blobs + 1)))
	END
	equal "$(grep -c " $MNT/" /proc/mounts)" "$BLOBS"
}
unmount_all() {
	python3 - "$MNT" <<-'END' || return
		import ctypes, os, sys
		libc = ctypes.CDLL(None, use_errno=True)
		for name in os.listdir(sys.argv[1]):
		    if libc.umount2(f"{sys.argv[1]}/{name}".encode(), 0):
		        raise OSError(ctypes.get_errno(), f"umount of {name}")
	END
	fails grep " $MNT/" /proc/mounts
}

descriptors() { find "/proc/$DAEMON/fd" -mindepth 1 | wc -l; }
# In KiB.
peak() { sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$DAEMON/status"; }
# The files that are mapped, of which all may be in memory: the program and its libraries.
mapped_files() {
	awk '$6 ~ /^\// { print $6 }' "/proc/$DAEMON/maps" | sort -u |
		xargs stat -L -c %s | awk '{ n += $1 } END { printf "%d\n", n / 1024 }'
}

read_all() {
	python3 "$HERE/readers.py" --threads "$READERS" --watch "$DAEMON" "$TMP/tree" "$MNT" >"$TMP/read" 2>&1
	read_status=$?
	cat "$TMP/read"
	return "$read_status"
}
# at_most WHAT VALUE LIMIT
at_most() {
	echo "$2 $1, at most $3 are promised"
	[ "$2" -le "$3" ]
}

check "$BLOBS blobs can be made" make_blobs
make_network
start_server 8001 "$SOURCE"
SOURCE=http://$FAR:8001
"$DEMANDD" prepare --root "$CACHE" --proxy none --source "$SOURCE" --image "all@$DIGEST" >"$TMP/prepared"
check "they are prepared" equal "$(wc -l <"$TMP/prepared")" "$BLOBS"
start_daemon --proxy none --workers "$WORKERS" --limit-open $OPEN
note "when it is ready: $(descriptors) descriptors, $(peak) KiB at most"
find "/proc/$DAEMON/fd" -mindepth 1 -printf '%l\n' | sort | uniq -c | sed 's/^/# /'
check "before anything is read, few descriptors are open" at_most descriptors "$(descriptors)" "$FIXED"
check "all are mounted" mount_all
check "$READERS readers get right bytes of all of them" read_all
check "each blob was asked for" equal "$(cut -f 2 "$TRACE" | sort -u | wc -l)" "$BLOBS"
most=$(sed -n 's/ descriptors at most, counted .*//p' "$TMP/read")
check "amid that, descriptors keep to their limit" at_most descriptors "$most" $((FIXED + OPEN + 4 * WORKERS))
check "more than half as many as may be open were open: the limit was tried" [ "$most" -gt $((OPEN / 2)) ]
# Each blob has a list of 32 bytes a chunk, here of 3 chunks.
check "so does memory" at_most KiB "$(peak)" $((4096 + $(mapped_files) + 512 * WORKERS + 16 * OPEN))
note "the program and its libraries have $(mapped_files) KiB"
check "all are unmounted" unmount_all
finish
