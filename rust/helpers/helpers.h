/* SPDX-License-Identifier: GPL-2.0 */
/*
 * C shims for inline functions and macros, one group per C header. bindgen
 * reads this file, so a prototype here is all that Rust needs.
 */
#ifndef EROFS_DEMAND_HELPERS_H
#define EROFS_DEMAND_HELPERS_H

#include <linux/fs.h>
#include <linux/fscache-cache.h>
#include <linux/poll.h>
#include <linux/ratelimit_types.h>
#include <linux/seq_file.h>
#include <linux/workqueue.h>

/* linux/blkdev.h */
unsigned int vfs_helper_bdev_memory_alignment(struct block_device *bdev);
unsigned int vfs_helper_bdev_block_size(struct block_device *bdev);

/* linux/cred.h */
const struct cred *vfs_helper_override_creds(const struct cred *cred);
void vfs_helper_revert_creds(const struct cred *old);

/* linux/fs.h */
struct inode *vfs_helper_alloc_inode_sb(struct super_block *sb,
					struct kmem_cache *cache);
struct kmem_cache *vfs_helper_inode_cache_create(const char *name,
						 unsigned int size,
						 unsigned int align,
						 void (*ctor)(void *));
void vfs_helper_inode_nest_below(struct inode *inode);
bool vfs_helper_inode_is_new(struct inode *inode);
void vfs_helper_inode_set_times(struct inode *inode, s64 sec, u32 nsec);
void vfs_helper_i_size_write(struct inode *inode, loff_t size);
loff_t vfs_helper_i_size_read(const struct inode *inode);
void vfs_helper_i_uid_write(struct inode *inode, uid_t uid);
void vfs_helper_i_gid_write(struct inode *inode, gid_t gid);
bool vfs_helper_dir_emit(struct dir_context *ctx, const char *name, int len,
			 u64 ino, unsigned int type);
bool vfs_helper_dir_emit_dots(struct file *file, struct dir_context *ctx);
bool vfs_helper_is_idmapped_mnt(const struct vfsmount *mnt);
void vfs_helper_init_kiocb(struct kiocb *iocb, struct file *file, loff_t pos,
			   int flags);
struct mnt_idmap *vfs_helper_nop_mnt_idmap(void);
u64 vfs_helper_huge_encode_dev(dev_t dev);
bool vfs_helper_inode_trylock_shared(struct inode *inode);
void vfs_helper_inode_lock_shared(struct inode *inode);
void vfs_helper_inode_unlock_shared(struct inode *inode);
void vfs_helper_inode_lock(struct inode *inode);
void vfs_helper_inode_unlock(struct inode *inode);

void vfs_helper_super_set_uuid(struct super_block *sb, const u8 *uuid,
			       unsigned int len);
void vfs_helper_super_set_sysfs_name_id(struct super_block *sb);

/* linux/fs_struct.h */
bool vfs_helper_get_pwd(struct path *pwd);

/* linux/namei.h */
void vfs_helper_end_creating(struct dentry *child);
void vfs_helper_end_removing(struct dentry *child);

/* linux/pagemap.h, linux/highmem.h */
size_t vfs_helper_folio_size(const struct folio *folio);
loff_t vfs_helper_folio_pos(const struct folio *folio);
void vfs_helper_folio_put(struct folio *folio);
void vfs_helper_folio_zero_range(struct folio *folio, size_t off, size_t len);
void vfs_helper_memcpy_from_folio(char *to, struct folio *folio, size_t off,
				  size_t len);
void vfs_helper_memcpy_to_folio(struct folio *folio, size_t off,
				const char *from, size_t len);
struct folio *vfs_helper_filemap_get_folio(struct address_space *mapping,
					   pgoff_t index);
struct folio *vfs_helper_filemap_alloc_folio(struct address_space *mapping);
bool vfs_helper_folio_test_uptodate(const struct folio *folio);
int vfs_helper_folio_lock_killable(struct folio *folio);
void vfs_helper_mapping_set_large_folios(struct address_space *mapping);
void vfs_helper_bvec_set_folio(struct bio_vec *bv, struct folio *folio,
			       size_t len, size_t off);
struct folio *vfs_helper_bvec_folio(const struct bio_vec *bv, size_t *off);
void vfs_helper_page_cache_sync_readahead(struct address_space *mapping,
					  struct file_ra_state *ra,
					  pgoff_t index, size_t nr);

/* linux/fscache.h, linux/fscache-cache.h */
int vfs_helper_fscache_cookie_state(struct fscache_cookie *cookie);
const void *vfs_helper_fscache_get_key(struct fscache_cookie *cookie);
void vfs_helper_fscache_count_object(struct fscache_cache *cache);
void vfs_helper_fscache_uncount_object(struct fscache_cache *cache);
void vfs_helper_fscache_wait_for_objects(struct fscache_cache *cache);
void vfs_helper_fscache_volume_pin(struct fscache_volume *volume);
bool vfs_helper_fscache_cache_is_live(const struct fscache_cache *cache);
void vfs_helper_fscache_end_operation(struct netfs_cache_resources *cres);

/* linux/lockdep.h */
void vfs_helper_lockdep_off(void);
void vfs_helper_lockdep_on(void);

/* linux/poll.h, linux/wait.h */
void vfs_helper_init_waitqueue_head(struct wait_queue_head *head);
void vfs_helper_poll_wait(struct file *file, struct wait_queue_head *head,
			  struct poll_table_struct *table);
void vfs_helper_wake_up_poll(struct wait_queue_head *head, __poll_t events);

/* linux/ratelimit.h */
void vfs_helper_ratelimit_state_init(struct ratelimit_state *state,
				     unsigned int interval_ms, int burst);

/* linux/sched/signal.h */
bool vfs_helper_fatal_signal_pending(void);

/* linux/sysfs.h */
void vfs_helper_sysfs_attr_init(struct attribute *attr);

/* linux/seq_file.h */
void vfs_helper_seq_show_option(struct seq_file *m, const char *name,
				const char *value);

/* linux/uio.h */
struct dentry *vfs_helper_dget(struct dentry *dentry);
size_t vfs_helper_iov_iter_count(const struct iov_iter *iter);
void vfs_helper_iov_iter_truncate(struct iov_iter *iter, u64 count);

/* linux/workqueue.h */
void vfs_helper_init_delayed_work(struct delayed_work *work, work_func_t func);
void vfs_helper_hurry_delayed_work(struct workqueue_struct *queue,
				   struct delayed_work *work,
				   unsigned long delay);

/* linux/module.h */
bool vfs_helper_try_module_get(struct module *module);
void vfs_helper_module_put(struct module *module);

#endif
