// SPDX-License-Identifier: GPL-2.0
#include <linux/lockdep.h>
#include "helpers.h"

void vfs_helper_lockdep_off(void)
{
	lockdep_off();
}

void vfs_helper_lockdep_on(void)
{
	lockdep_on();
}
