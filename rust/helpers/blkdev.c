// SPDX-License-Identifier: GPL-2.0
#include <linux/blkdev.h>
#include "helpers.h"

/* In bytes; the kernel has it as a mask. */
unsigned int vfs_helper_bdev_memory_alignment(struct block_device *bdev)
{
	return bdev_dma_alignment(bdev) + 1;
}

unsigned int vfs_helper_bdev_block_size(struct block_device *bdev)
{
	return bdev_logical_block_size(bdev);
}
