// SPDX-License-Identifier: GPL-2.0
#include <linux/bvec.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include "helpers.h"

size_t vfs_helper_folio_size(const struct folio *folio)
{
	return folio_size(folio);
}

loff_t vfs_helper_folio_pos(const struct folio *folio)
{
	return folio_pos(folio);
}

void vfs_helper_folio_put(struct folio *folio)
{
	folio_put(folio);
}

void vfs_helper_folio_zero_range(struct folio *folio, size_t off, size_t len)
{
	folio_zero_range(folio, off, len);
}

void vfs_helper_memcpy_from_folio(char *to, struct folio *folio, size_t off,
				  size_t len)
{
	memcpy_from_folio(to, folio, off, len);
}

void vfs_helper_memcpy_to_folio(struct folio *folio, size_t off,
				const char *from, size_t len)
{
	memcpy_to_folio(folio, off, from, len);
}

struct folio *vfs_helper_filemap_get_folio(struct address_space *mapping,
					   pgoff_t index)
{
	return filemap_get_folio(mapping, index);
}

/* A single page, with the flags that the mapping wants. */
struct folio *vfs_helper_filemap_alloc_folio(struct address_space *mapping)
{
	return filemap_alloc_folio(mapping_gfp_mask(mapping), 0, NULL);
}

bool vfs_helper_folio_test_uptodate(const struct folio *folio)
{
	return folio_test_uptodate(folio);
}

int vfs_helper_folio_lock_killable(struct folio *folio)
{
	return folio_lock_killable(folio);
}

void vfs_helper_mapping_set_large_folios(struct address_space *mapping)
{
	mapping_set_large_folios(mapping);
}

void vfs_helper_bvec_set_folio(struct bio_vec *bv, struct folio *folio,
			       size_t len, size_t off)
{
	bvec_set_folio(bv, folio, len, off);
}

/* The way back from what bvec_set_folio() makes. */
struct folio *vfs_helper_bvec_folio(const struct bio_vec *bv, size_t *off)
{
	struct folio *folio = page_folio(bv->bv_page);

	*off = folio_page_idx(folio, bv->bv_page) * PAGE_SIZE + bv->bv_offset;
	return folio;
}

void vfs_helper_page_cache_sync_readahead(struct address_space *mapping,
					  struct file_ra_state *ra,
					  pgoff_t index, size_t nr)
{
	page_cache_sync_readahead(mapping, ra, NULL, index, nr);
}
