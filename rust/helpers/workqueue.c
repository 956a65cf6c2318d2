// SPDX-License-Identifier: GPL-2.0
#include <linux/workqueue.h>
#include "helpers.h"

void vfs_helper_init_delayed_work(struct delayed_work *work, work_func_t func)
{
	INIT_DELAYED_WORK(work, func);
}

/*
 * Make @work run after @delay jiffies at the latest, where mod_delayed_work()
 * would also put off what runs sooner.
 *
 * The lock orders callers, so that a later delay never replaces a sooner one.
 * Whoever else arms the timer does so with queue_delayed_work(), which leaves
 * a timer that runs alone. Work whose timer has run out may be about to end, so
 * it is armed anew.
 */
void vfs_helper_hurry_delayed_work(struct workqueue_struct *queue,
				   struct delayed_work *work,
				   unsigned long delay)
{
	static DEFINE_SPINLOCK(lock);
	unsigned long flags;

	spin_lock_irqsave(&lock, flags);
	/* What the caller wants the work to see comes before the look. */
	smp_mb();
	if (!timer_pending(&work->timer) ||
	    time_after(READ_ONCE(work->timer.expires), jiffies + delay))
		mod_delayed_work(queue, work, delay);
	spin_unlock_irqrestore(&lock, flags);
}
