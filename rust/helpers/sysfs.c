// SPDX-License-Identifier: GPL-2.0
#include <linux/sysfs.h>
#include "helpers.h"

/* All files get the same lock class. */
void vfs_helper_sysfs_attr_init(struct attribute *attr)
{
	sysfs_attr_init(attr);
}
