// SPDX-License-Identifier: GPL-2.0
#include <linux/fs.h>
#include <linux/fs_struct.h>
#include <linux/kdev_t.h>
#include <linux/lockdep.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/namei.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uio.h>
#include "helpers.h"

struct inode *vfs_helper_alloc_inode_sb(struct super_block *sb,
					struct kmem_cache *cache)
{
	return alloc_inode_sb(sb, cache, GFP_KERNEL);
}

struct kmem_cache *vfs_helper_inode_cache_create(const char *name,
						 unsigned int size,
						 unsigned int align,
						 void (*ctor)(void *))
{
	return kmem_cache_create(name, size, align,
				 SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT, ctor);
}

/*
 * Tell lockdep that the inode's page cache is read while that of another inode
 * of the same file system is locked for reading.
 */
void vfs_helper_inode_nest_below(struct inode *inode)
{
	static struct lock_class_key invalidate_lock_key;

	lockdep_set_class_and_name(&inode->i_data.invalidate_lock,
				   &invalidate_lock_key,
				   "mapping.invalidate_lock/internal");
}

bool vfs_helper_inode_is_new(struct inode *inode)
{
	return inode_state_read_once(inode) & I_NEW;
}

void vfs_helper_inode_set_times(struct inode *inode, s64 sec, u32 nsec)
{
	inode_set_mtime(inode, sec, nsec);
	inode_set_ctime(inode, sec, nsec);
	inode_set_atime(inode, sec, nsec);
}

void vfs_helper_i_size_write(struct inode *inode, loff_t size)
{
	i_size_write(inode, size);
}

loff_t vfs_helper_i_size_read(const struct inode *inode)
{
	return i_size_read(inode);
}

void vfs_helper_i_uid_write(struct inode *inode, uid_t uid)
{
	i_uid_write(inode, uid);
}

void vfs_helper_i_gid_write(struct inode *inode, gid_t gid)
{
	i_gid_write(inode, gid);
}

bool vfs_helper_dir_emit(struct dir_context *ctx, const char *name, int len,
			 u64 ino, unsigned int type)
{
	return dir_emit(ctx, name, len, ino, type);
}

bool vfs_helper_dir_emit_dots(struct file *file, struct dir_context *ctx)
{
	return dir_emit_dots(file, ctx);
}

bool vfs_helper_is_idmapped_mnt(const struct vfsmount *mnt)
{
	return is_idmapped_mnt(mnt);
}

void vfs_helper_init_kiocb(struct kiocb *iocb, struct file *file, loff_t pos,
			   int flags)
{
	init_sync_kiocb(iocb, file);
	iocb->ki_pos = pos;
	iocb->ki_flags |= flags;
}

struct mnt_idmap *vfs_helper_nop_mnt_idmap(void)
{
	return &nop_mnt_idmap;
}

u64 vfs_helper_huge_encode_dev(dev_t dev)
{
	return huge_encode_dev(dev);
}

bool vfs_helper_inode_trylock_shared(struct inode *inode)
{
	return inode_trylock_shared(inode);
}

void vfs_helper_inode_lock_shared(struct inode *inode)
{
	inode_lock_shared(inode);
}

void vfs_helper_inode_unlock_shared(struct inode *inode)
{
	inode_unlock_shared(inode);
}

void vfs_helper_inode_lock(struct inode *inode)
{
	inode_lock(inode);
}

void vfs_helper_inode_unlock(struct inode *inode)
{
	inode_unlock(inode);
}

/* False for a task that has given up its working directory, as it exits. */
bool vfs_helper_get_pwd(struct path *pwd)
{
	if (!current->fs)
		return false;
	get_fs_pwd(current->fs, pwd);
	return true;
}

void vfs_helper_end_creating(struct dentry *child)
{
	end_creating(child);
}

void vfs_helper_end_removing(struct dentry *child)
{
	end_removing(child);
}

void vfs_helper_seq_show_option(struct seq_file *m, const char *name,
				const char *value)
{
	seq_show_option(m, name, value);
}

size_t vfs_helper_iov_iter_count(const struct iov_iter *iter)
{
	return iov_iter_count(iter);
}

void vfs_helper_iov_iter_truncate(struct iov_iter *iter, u64 count)
{
	iov_iter_truncate(iter, count);
}

bool vfs_helper_try_module_get(struct module *module)
{
	return try_module_get(module);
}

void vfs_helper_module_put(struct module *module)
{
	module_put(module);
}

struct dentry *vfs_helper_dget(struct dentry *dentry)
{
	return dget(dentry);
}

void vfs_helper_super_set_uuid(struct super_block *sb, const u8 *uuid,
			       unsigned int len)
{
	super_set_uuid(sb, uuid, len);
}

void vfs_helper_super_set_sysfs_name_id(struct super_block *sb)
{
	super_set_sysfs_name_id(sb);
}
