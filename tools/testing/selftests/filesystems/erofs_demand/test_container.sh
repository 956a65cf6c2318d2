#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A Debian tree that arrives on demand is the root directory of programs in namespaces of their
# own: read-only by itself, and as the lower layer of overlays that they write to.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

WHOLE=${WHOLE:-/build/whole}
TREE=${TREE:-/build/tree}
[ -s "$WHOLE/listing" ] || skip_all "no image of a whole tree in $WHOLE"
[ -d "$TREE/usr/lib" ] || skip_all "no Debian tree in $TREE"
load_modules
grep -q -w overlay /proc/filesystems || modprobe overlay 2>/dev/null || skip_all "no overlayfs"
plan 21

# Links, so that the daemon's source is where the image was made.
ln -s "$WHOLE/debian.img" "$WHOLE/debian.blob" "$SOURCE/"

# The old root directory lies on the new one, and is taken away from there.
ENTER='
	mount --bind "$0" "$0"
	cd "$0"
	mount -t proc proc proc
	mount --rbind /dev dev
	mount -t tmpfs tmp tmp
	pivot_root . .
	umount -l .
	exec env -i PATH=/usr/sbin:/usr/bin HOME=/tmp LANG=C.UTF-8 "$@"'
# inside ROOT COMMAND [ARG]...
inside() { unshare --mount --pid --fork --kill-child --uts --net sh -euc "$ENTER" "$@" </dev/null; }

# layer NAME: an overlay of its own over the tree, on $TMP/NAME.
layer() {
	mkdir -p "$TMP/$1" "$TMP/upper-$1" "$TMP/work-$1"
	mount -t overlay -o "lowerdir=$MNT,upperdir=$TMP/upper-$1,workdir=$TMP/work-$1" overlay "$TMP/$1"
}

# What of the image is in the cache, told by the files there.
present_bytes() { "$DEMANDD" status --root "$CACHE" | awk '$4 == "total" { print $2 }'; }
root_type() { inside "$1" awk '$2 == "/" { print $3 }' /proc/mounts; }
sha256() { inside "$1" sha256sum "$2"; }

PYTHON='import json, os, sys, zlib
print(json.dumps({"pid": os.getpid(), "crc": zlib.crc32(open(sys.executable, "rb").read())}))'
crc() { python3 -c 'import sys, zlib; print(zlib.crc32(open(sys.argv[1], "rb").read()))' "$1"; }

prepare debian.img debian.blob >/dev/null
start_daemon
check "the tree can be mounted before it has arrived" mount_image debian.img device=debian.blob

# --- read-only ---------------------------------------------------------------------------

check "it can be a root directory" equal "$(root_type "$MNT")" erofs
check "from which nothing outside can be seen" \
	inside "$MNT" sh -c '! test -e /src && ! test -e /build && ! grep -q -w ext4 /proc/mounts'
check "its release is that of the tree" \
	equal "$(inside "$MNT" cat /etc/debian_version)" "$(cat "$TREE/etc/debian_version")"
check "Python runs, with its libraries, as the first process" \
	equal "$(inside "$MNT" python3 -c "$PYTHON")" \
	"{\"pid\": 1, \"crc\": $(crc "$TREE/usr/bin/python3")}"
check "Perl runs" equal "$(inside "$MNT" perl -MList::Util=sum -e 'print sum(1..100)')" 5050
check "Git runs, and writes to a file system beside it" inside "$MNT" sh -ec '
	cd /tmp && git init -q && echo text >file && git add file
	git -c user.name=a -c user.email=a@b commit -q -m "a file"
	test "$(git log --format=%s)" = "a file"'
check "a user cannot read what is root's" \
	fails inside "$MNT" setpriv --reuid nobody --regid nogroup --clear-groups cat /etc/shadow
check "but a program with the rights of its owner can, for that user" equal \
	"$(inside "$MNT" setpriv --reuid nobody --regid nogroup --clear-groups passwd --status nobody | cut -c 1-8)" \
	"nobody L"
check "nothing can be written to it" eval \
	'inside "$MNT" touch /etc/new 2>&1 | grep "Read-only file system"'

# --- overlays ------------------------------------------------------------------------------

check "it can be the lower layer of two overlays" eval 'layer one && layer two'
check "one is a root directory" equal "$(root_type "$TMP/one")" overlay
check "packages are what dpkg knows of them" \
	equal "$(inside "$TMP/one" dpkg --verify coreutils dash libc-bin perl-base)" ''
check "a user can be added there" inside "$TMP/one" useradd --create-home somebody
check "and can log in there" equal "$(inside "$TMP/one" su -s /bin/sh -c 'id -un; pwd' - somebody)" \
	"somebody
/home/somebody"
check "a package can be made and installed there" inside "$TMP/one" sh -ec '
	mkdir -p /tmp/package/DEBIAN /tmp/package/usr/bin
	printf "%s\n" "Package: said" "Version: 1" "Architecture: all" "Maintainer: a <a@b>" \
		"Description: says it" >/tmp/package/DEBIAN/control
	printf "#!/bin/sh\necho it\n" >/tmp/package/usr/bin/said
	chmod 755 /tmp/package/usr/bin/said
	dpkg-deb --build /tmp/package /tmp/said.deb >/dev/null
	dpkg --force-unsafe-io --install /tmp/said.deb >/dev/null'
check "it is there for the next one that enters" equal "$(inside "$TMP/one" said)" it
check "the other overlay does not have it" inside "$TMP/two" sh -c '! command -v said && ! id somebody 2>/dev/null'
check "nor has the tree" fails test -e "$MNT/usr/bin/said"

# --- together ---------------------------------------------------------------------------------

together() {
	pids=''
	for n in 1 2 3 4 5 6; do
		case $n in [123]) root=$TMP/one ;; *) root=$TMP/two ;; esac
		sha256 "$root" /usr/bin/perl >"$TMP/sum-$n" &
		pids="$pids $!"
	done
	for pid in $pids; do wait "$pid" || return 1; done
	# shellcheck disable=SC2046 # a list
	equal "$(sort -u "$TMP"/sum-* | cut -d ' ' -f 1)" "$(sha256sum <"$TREE/usr/bin/perl" | cut -d ' ' -f 1)"
}
drop_caches
check "six of them read the same file together" together
note "$(requests) requests, $(fetched_bytes) bytes fetched"
check "no byte was fetched twice" equal "$(fetched_bytes)" "$(present_bytes)"
umount "$TMP/one" "$TMP/two"
umount "$MNT"
finish
