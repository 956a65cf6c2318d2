#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Mount options, remounts and /sys/fs/erofs, beside the kernel's own erofs.ko: what it
# takes is taken, what it refuses is refused, and /proc/mounts shows the same.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

need_stock_module

# Each is tried with an image in a file and one on a block device.
OPTIONS="ro acl noacl user_xattr nouser_xattr noacl,nouser_xattr acl=1 noacl=
directio nodirectio directio=yes cache_strategy=disabled cache_strategy=readahead
cache_strategy=readaround cache_strategy=all cache_strategy= cache_strategy
dax=never dax=always dax dax=maybe
domain_id=here domain_id inode_share domain_id=here,inode_share
domain_id=here,inode_share,dax
fsoffset=0 fsoffset=512 fsoffset=4096 fsoffset=0x1000 fsoffset=010000 fsoffset=-1 fsoffset=
fsoffset=99999999999999999999 fsoffset
device device= device=nowhere fsid=one nothing=at,all nothing"
# The kernel's own goes on to heed access control lists after noacl, which is tried below.
REMOUNTS="ro rw nouser_xattr acl,user_xattr directio dax=never cache_strategy=disabled
cache_strategy=all nothing domain_id=here"

# shellcheck disable=SC2086 # lists
set -- $OPTIONS
tried=$(($# * 2))
# shellcheck disable=SC2086 # lists
set -- $REMOUNTS
tried=$((tried + $# * 2))
plan $((tried + 20))

# One image, and behind a block of nothing the same once more.
mkdir "$TMP/tree"
echo text >"$TMP/tree/file"
setfattr -n user.name -v value "$TMP/tree/file"
setfacl -m u:1000:r "$TMP/tree/file"
make_image one.img "$TMP/tree"
head -c 4096 /dev/zero | cat - "$SOURCE/one.img" >"$SOURCE/moved.img"
cp "$SOURCE/one.img" "$SOURCE/both.img"
truncate -s 4096 "$SOURCE/both.img"
cat "$SOURCE/one.img" >>"$SOURCE/both.img"
LOOP=$(losetup -f --show -r "$SOURCE/both.img")

# source_of KIND
source_of() {
	case $1 in
	file) echo "$SOURCE/both.img" ;;
	block) echo "$LOOP" ;;
	esac
}
# What /proc/mounts shows of $MNT.
shown() { awk -v dir="$MNT" '$2 == dir { print $4 }' /proc/mounts; }

# answer KIND OPTIONS: of mount(2), and what is shown then.
answer() {
	"$PROGRAMS/trymount" erofs "$MNT" "$2" "$(source_of "$1")"
	if [ -n "$(shown)" ]; then
		shown
		getfattr -h --absolute-names -d -m - "$MNT/file" | tail -n +2
		umount "$MNT"
	fi
}
# remount_answer KIND OPTIONS
remount_answer() {
	"$PROGRAMS/trymount" erofs "$MNT" ro "$(source_of "$1")" || return
	"$PROGRAMS/trymount" --remount erofs "$MNT" "$2"
	shown
	getfattr -h --absolute-names -d -m - "$MNT/file" | tail -n +2
	umount "$MNT"
}
# for_each_answer COMMAND: with the kind, "mount" or "remount", and the options behind it.
for_each_answer() {
	for kind in file block; do
		for options in $OPTIONS; do "$1" "$kind" mount "$options"; done
		for options in $REMOUNTS; do "$1" "$kind" remount "$options"; done
	done
}
take_answer() {
	case $2 in
	mount) answer "$1" "$3" ;;
	remount) remount_answer "$1" "$3" ;;
	esac
}
stock_answer() { take_answer "$@" >"$TMP/stock/$*" 2>&1; }
same_answer() {
	take_answer "$@" >"$TMP/ours" 2>&1
	diff "$TMP/stock/$*" "$TMP/ours"
}
# A kernel without DAX does not know the option, which tells nothing about ours.
has_dax() { [ "$(head -n 1 "$TMP/stock/file mount dax=never")" != EINVAL ]; }
compare() {
	case $3 in
	*dax*) has_dax || { skip "$1, $2 with $3: as the kernel's own" "the kernel has no DAX"; return; } ;;
	esac
	check "$1, $2 with $3: as the kernel's own" same_answer "$@"
}

mkdir "$TMP/stock"
check "the kernel's own module can be loaded" load_stock_module
for_each_answer stock_answer
check "that one takes some and refuses some" eval \
	'grep -q -x 0 "$TMP"/stock/* && grep -q -x EINVAL "$TMP"/stock/*'
check "the kernel's own module goes" unload_erofs

load_modules
for_each_answer compare

# --- what remount(2) does --------------------------------------------------------------

names() { getfattr --absolute-names -m - "$MNT/file" | tail -n +2 | tr '\n' ' '; }
mount -t erofs -o ro "$SOURCE/one.img" "$MNT"
check "attributes and access control lists are listed" eval \
	'names | grep user.name && names | grep system.posix_acl_access'
check "after remounting without attributes of users they are not" eval \
	'mount -o remount,nouser_xattr "$MNT" && names | fails grep user.name'
check "after remounting without access control lists those are not" eval \
	'mount -o remount,noacl "$MNT" && names | fails grep posix_acl'
check "a remount cannot name another image" eval \
	'equal "$("$PROGRAMS/trymount" --remount erofs "$MNT" uuid=other)" EINVAL &&
	 kernel_log_has "uuid= cannot be changed by a remount"'
check "nor another place in the file" \
	equal "$("$PROGRAMS/trymount" --remount erofs "$MNT" fsoffset=4096)" EINVAL

umount "$MNT"
check "an image cannot begin behind the end of its file" eval \
	'equal "$("$PROGRAMS/trymount" erofs "$MNT" fsoffset=18446744073709547520 "$SOURCE/one.img")" EINVAL'

# --- /sys/fs/erofs ------------------------------------------------------------------------

mount -t erofs -o ro "$SOURCE/one.img" "$MNT"
NAME=$(mountpoint -d "$MNT")
SYSFS=/sys/fs/erofs/$NAME
check "features that can be read are in /sys/fs/erofs/features" \
	equal "$(cat /sys/fs/erofs/features/48bit)" supported
check "a volume has a folder there" equal "$(cat "$SYSFS/dir_ra_bytes")" 16384
set_readahead() { echo "$1" >"$SYSFS/dir_ra_bytes"; }
check "how much of a directory is read ahead can be set" eval \
	'set_readahead 0x8000 && equal "$(cat "$SYSFS/dir_ra_bytes")" 32768'
check "to numbers only" eval 'fails set_readahead much 2>/dev/null'
umount "$MNT"
check "the folder goes with the volume" fails test -e "$SYSFS"

# A large directory whose image arrives while it is listed.
mkdir "$TMP/names"
(cd "$TMP/names" && seq 8000 | xargs touch)
make_image names.img "$TMP/names"
# list BYTES: requests for listing it when so many are asked for at once.
list() {
	rm -rf "$CACHE/cache"
	: >"$TRACE"
	prepare names.img >/dev/null && start_daemon && mount_image names.img || return 1
	echo "$1" >"/sys/fs/erofs/$(mountpoint -d "$MNT")/dir_ra_bytes"
	ls "$MNT" >"$TMP/listed" && umount "$MNT" && stop_daemon
	requests >"$TMP/requests-$1"
}
check "a large directory can be listed while it arrives" eval \
	'list 0 && list 1048576 && equal "$(wc -l <"$TMP/listed")" 8000'
note "requests: $(cat "$TMP/requests-0"), with 1 MiB at once $(cat "$TMP/requests-1048576")"
check "reading it ahead takes fewer requests" \
	test "$(cat "$TMP/requests-1048576")" -lt "$(cat "$TMP/requests-0")"

# --- an open file as the source --------------------------------------------------------------

check "an image in an open file can be mounted" eval \
	'equal "$("$PROGRAMS/mount_fd" erofs "$SOURCE/one.img" "$MNT" noacl)" 0 &&
	 equal "$(cat "$MNT/file")" text'
check "and is shown with its path" \
	equal "$(awk -v dir="$MNT" '$2 == dir { print $1 }' /proc/mounts)" "$SOURCE/one.img"
umount "$MNT"
check "a file that is not open for reading cannot" \
	equal "$("$PROGRAMS/mount_fd" erofs "$SOURCE/one.img" "$MNT" path)" "create EINVAL"
check "nor a directory" eval \
	'"$PROGRAMS/mount_fd" erofs "$TMP" "$MNT" | grep -E "^create (EINVAL|ENOTBLK)$"'
losetup -d "$LOOP"
finish
