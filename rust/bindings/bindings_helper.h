/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Headers whose declarations kernel::bindings lacks or holds as opaque types.
 * Kbuild runs bindgen over this file; see the allowlist there.
 */
#include <linux/blkdev.h>
#include <linux/debugfs.h>
#include <linux/exportfs.h>
#include <linux/fadvise.h>
#include <linux/filelock.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/fscache-cache.h>
#include <linux/iomap.h>
#include <linux/magic.h>
#include <linux/namei.h>
#include <linux/poll.h>
#include <linux/netfs.h>
#include <linux/pseudo_fs.h>
#include <linux/seq_file.h>
#include <linux/statfs.h>
#include <linux/posix_acl_xattr.h>
#include <linux/xattr.h>
#include <trace/events/fscache.h>
#include "../helpers/helpers.h"
#include "../../include/uapi/linux/cachefiles_demand.h"
#include "../trace/events.h"

/* Constants that kernel::bindings lacks, or that bindgen cannot see behind C's casts. */
const unsigned int VFS_CONST_SB_RDONLY = SB_RDONLY;
const unsigned int VFS_CONST_SB_NOATIME = SB_NOATIME;
const unsigned int VFS_CONST_SB_POSIXACL = SB_POSIXACL;
const unsigned int VFS_CONST_SB_ACTIVE = SB_ACTIVE;
const blk_mode_t VFS_CONST_BLK_OPEN_READ = BLK_OPEN_READ;
const unsigned int VFS_CONST_ACL_TYPE_ACCESS = ACL_TYPE_ACCESS;
const unsigned int VFS_CONST_ACL_TYPE_DEFAULT = ACL_TYPE_DEFAULT;
const unsigned long VFS_CONST_EXT4_SUPER_MAGIC = EXT4_SUPER_MAGIC;
const unsigned long VFS_CONST_XFS_SUPER_MAGIC = XFS_SUPER_MAGIC;
const unsigned long VFS_CONST_BTRFS_SUPER_MAGIC = BTRFS_SUPER_MAGIC;
const u32 VFS_CONST_STATX_BLOCKS = STATX_BLOCKS;
const int VFS_CONST_IOCB_DIRECT = IOCB_DIRECT;
const int VFS_CONST_IOCB_DONTCACHE = IOCB_DONTCACHE;
const fmode_t VFS_CONST_FMODE_READ = FMODE_READ;
const fmode_t VFS_CONST_FMODE_CAN_ODIRECT = FMODE_CAN_ODIRECT;
const int VFS_CONST_POSIX_FADV_DONTNEED = POSIX_FADV_DONTNEED;
const int VFS_CONST_POSIX_FADV_RANDOM = POSIX_FADV_RANDOM;
const unsigned int VFS_CONST_FS_IOC_GETFSLABEL = FS_IOC_GETFSLABEL;
const unsigned int VFS_CONST_LOOKUP_FOLLOW = LOOKUP_FOLLOW;
const unsigned int VFS_CONST_LOOKUP_DIRECTORY = LOOKUP_DIRECTORY;
const unsigned int VFS_CONST_LOOKUP_NO_SYMLINKS = LOOKUP_NO_SYMLINKS;
const __poll_t VFS_CONST_EPOLLIN = EPOLLIN | EPOLLRDNORM;
const __poll_t VFS_CONST_EPOLLOUT = EPOLLOUT | EPOLLWRNORM;
