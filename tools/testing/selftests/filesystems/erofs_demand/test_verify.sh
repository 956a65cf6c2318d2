#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# `demandd verify` finds what is wrong in the cache, and makes it absent, but never under a mount.
. "${0%/*}/lib.sh"

command -v python3 >/dev/null || skip_all "there is no python3"
load_modules
plan 17

verify() { "$DEMANDD" verify --root "$CACHE" "$@" >"$TMP/told" 2>&1 || { cat "$TMP/told"; return 1; }; }
# told EXTENDED-REGEX COMMAND...: COMMAND fails, and tells this.
told() {
	told_what=$1
	shift
	! "$@" || { echo "it is content"; return 1; }
	grep -Eq -- "$told_what" "$TMP/told"
}
# A bit of the blob is wrong on the disk.
damage() {
	python3 - "$BLOB" <<-'END'
		import os, sys
		with open(sys.argv[1], "r+b") as blob:
		    blob.seek(70000)
		    byte = blob.read(1)[0]
		    blob.seek(70000)
		    blob.write(bytes([byte ^ 4]))
		    blob.flush()
		    os.fsync(blob.fileno())
	END
}
present() { "$DEMANDD" status --root "$CACHE" --json | python3 -c '
import json, sys
print(next(blob["present"] for blob in json.load(sys.stdin)["blobs"] if blob["name"] == "app.blob"))'; }

# Has a lease of the cache file until $TMP/enough is there.
hold_lease() {
	python3 - "$BLOB" "$TMP" <<-'END'
		import fcntl, os, signal, sys, time
		signal.signal(signal.SIGIO, signal.SIG_IGN)
		blob, tmp = sys.argv[1:]
		fd = os.open(blob, os.O_RDWR)
		while True:
		    try:
		        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
		        break
		    except BlockingIOError:
		        time.sleep(0.1)
		open(tmp + "/held", "w").close()
		while not os.path.exists(tmp + "/enough"):
		    time.sleep(0.05)
	END
}
waits_for_the_lease() {
	hold_lease &
	holder=$!
	wait_for 40 [ -e "$TMP/held" ] || return
	mount_image app.img &
	mounter=$!
	# Long enough for a mount that does not wait.
	sleep $((2 * SLOW))
	kill -0 "$mounter" 2>/dev/null || { echo "the mount did not wait"; return 1; }
	: >"$TMP/enough"
	wait "$holder" "$mounter"
}

mkdir "$TMP/tree"
head -c 300000 /dev/urandom >"$TMP/tree/file"
DIGEST=$("$DEMANDD" image build "$TMP/tree" --name app --into "$SOURCE")
prepare_image() {
	"$DEMANDD" prepare --root "$CACHE" --source "$SOURCE" --image "app@$DIGEST" >/dev/null
	BLOB=$(find "$CACHE/cache" -name Dapp.blob)
}
prepare_image
start_daemon
mount_image app.img
check "what was fetched is there" cmp "$MNT/file" "$TMP/tree/file"
check "all of it is right, beside a daemon and a mount" verify
before=$(present)
damage
check "what is wrong is found" told 'app.blob: 1 wrong chunks of 65536 bytes: 1$' verify
check "it is not made absent while it is mounted" told 'app.blob: it is in use' verify --repair app.blob
check "nothing has changed" [ "$(present)" = "$before" ]
umount "$MNT"
check "once it is not mounted, it is, though the daemon serves" verify --repair
check "one chunk is absent now" [ "$(present)" = $((before - 65536)) ]
check "what is left is right" verify
asked=$(requests app.blob)
mount_image app.img
drop_caches
check "a reader gets the right bytes" cmp "$MNT/file" "$TMP/tree/file"
check "they came from the source" [ "$(requests app.blob)" -gt "$asked" ]
check "all is there again" [ "$(present)" = "$before" ]
umount "$MNT"
check "whoever mounts a file that is being repaired waits" waits_for_the_lease
check "and reads what is right" cmp "$MNT/file" "$TMP/tree/file"
umount "$MNT"
stop_daemon

# Leases, and holes where something was, are up to the file system below.
repaired() {
	prepare_image && start_daemon && mount_image app.img && cmp "$MNT/file" "$TMP/tree/file" && umount "$MNT" || return
	damage
	told 'app.blob: 1 wrong chunks' verify && verify --repair && verify
}
read_again() {
	asked=$(requests app.blob)
	mount_image app.img && drop_caches && cmp "$MNT/file" "$TMP/tree/file" && umount "$MNT" || return
	[ "$(requests app.blob)" -gt "$asked" ]
}
for type in xfs btrfs; do
	wait_for 10 fails cache_bound
	disk=$WORK/disk-$type ROOT=$WORK/on-$type
	CACHE=$ROOT/cache TAG=$type
	mkdir "$ROOT"
	truncate -s 1G "$disk"
	modprobe -q -a loop $type || :
	"mkfs.$type" -q "$disk"
	mount -o loop "$disk" "$ROOT"
	mkdir "$CACHE"
	check "$type: what is wrong is made absent, beside a daemon" repaired
	check "$type: a reader gets the right bytes, from the source" read_again
	stop_daemon
	wait_for 10 umount "$ROOT"
done
finish
