// SPDX-License-Identifier: GPL-2.0
/*
 * Shims for what C offers only as inline functions or macros. Each does what
 * its name says after "vfs_helper_" and nothing else.
 */
#include "helpers.h"

#include "blkdev.c"
#include "cred.c"
#include "fs.c"
#include "lockdep.c"
#include "pagemap.c"
#include "poll.c"
#include "ratelimit.c"
#include "signal.c"
#include "sysfs.c"
#include "workqueue.c"
