// SPDX-License-Identifier: GPL-2.0
#include <linux/poll.h>
#include <linux/wait.h>
#include "helpers.h"

void vfs_helper_init_waitqueue_head(struct wait_queue_head *head)
{
	init_waitqueue_head(head);
}

void vfs_helper_poll_wait(struct file *file, struct wait_queue_head *head,
			  struct poll_table_struct *table)
{
	poll_wait(file, head, table);
}

void vfs_helper_wake_up_poll(struct wait_queue_head *head, __poll_t events)
{
	wake_up_poll(head, events);
}
