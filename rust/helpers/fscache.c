// SPDX-License-Identifier: GPL-2.0
#include <linux/fscache-cache.h>
#include "helpers.h"

int vfs_helper_fscache_cookie_state(struct fscache_cookie *cookie)
{
	return fscache_cookie_state(cookie);
}

const void *vfs_helper_fscache_get_key(struct fscache_cookie *cookie)
{
	return fscache_get_key(cookie);
}

void vfs_helper_fscache_count_object(struct fscache_cache *cache)
{
	fscache_count_object(cache);
}

void vfs_helper_fscache_uncount_object(struct fscache_cache *cache)
{
	fscache_uncount_object(cache);
}

void vfs_helper_fscache_wait_for_objects(struct fscache_cache *cache)
{
	fscache_wait_for_objects(cache);
}

/* Keep the volume's access count off zero until fscache_withdraw_volume(). */
void vfs_helper_fscache_volume_pin(struct fscache_volume *volume)
{
	atomic_inc(&volume->n_accesses);
}

bool vfs_helper_fscache_cache_is_live(const struct fscache_cache *cache)
{
	return smp_load_acquire(&cache->state) == FSCACHE_CACHE_IS_ACTIVE;
}

void vfs_helper_fscache_end_operation(struct netfs_cache_resources *cres)
{
	fscache_end_operation(cres);
}
