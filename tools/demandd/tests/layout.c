// SPDX-License-Identifier: GPL-2.0
/* The layout of the wire format, as a C compiler sees it. */
#include <linux/cachefiles_demand.h>
#include <stddef.h>

#define AT(field, offset) \
	_Static_assert(offsetof(struct cachefiles_demand_req, field) == (offset), #field)

AT(id, 0);
AT(off, 8);
AT(len, 16);
AT(path, 24);
_Static_assert(sizeof(struct cachefiles_demand_req) == 280, "size");
_Static_assert(sizeof(((struct cachefiles_demand_req *)0)->path) == CACHEFILES_DEMAND_PATH_LEN, "path");
_Static_assert(sizeof(CACHEFILES_DEMAND_DEVICE) > 1, "device");
