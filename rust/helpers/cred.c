// SPDX-License-Identifier: GPL-2.0
#include <linux/cred.h>
#include "helpers.h"

const struct cred *vfs_helper_override_creds(const struct cred *cred)
{
	return override_creds(cred);
}

void vfs_helper_revert_creds(const struct cred *old)
{
	revert_creds(old);
}
