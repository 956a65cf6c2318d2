// SPDX-License-Identifier: GPL-2.0
#include <linux/jiffies.h>
#include <linux/ratelimit.h>
#include "helpers.h"

/* What is left out is not counted in the log. */
void vfs_helper_ratelimit_state_init(struct ratelimit_state *state,
				     unsigned int interval_ms, int burst)
{
	ratelimit_state_init(state, msecs_to_jiffies(interval_ms), burst);
	ratelimit_set_flags(state, RATELIMIT_MSG_ON_RELEASE);
}
