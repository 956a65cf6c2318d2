#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The modules load into the stock kernel, offer what they should, and unload.
. "${0%/*}/lib.sh"

load_modules
plan 5

check "erofs is a file system" grep -qw erofs /proc/filesystems
check "the device is there" test -c "$DEVICE"
check "only root may open the device" equal "$(stat -c %a "$DEVICE")" 600
check "erofs unloads" rmmod erofs
check "cachefiles_demand unloads" rmmod cachefiles_demand
finish
