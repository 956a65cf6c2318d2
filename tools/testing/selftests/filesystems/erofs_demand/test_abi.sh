#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The device keeps to its header, as a C program sees it.
. "${0%/*}/lib.sh"

load_modules
"$PROGRAMS/abi" "$CACHE"
