// SPDX-License-Identifier: GPL-2.0
//! Which items are printed.

use clap::ValueEnum;

/// A kind of items.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// statfs of the tree's root, but for the identity
    Statfs,
    /// Identity of the file system: f_fsid, UUID, label
    Fsid,
    /// Mode, links, owner, size, blocks, inode number, device number
    Stat,
    /// Times
    Times,
    /// Attributes of statx, and flags as FS_IOC_GETFLAGS gives them
    Attributes,
    /// Direct I/O: alignments, and what a read gets
    Dio,
    /// Targets of symbolic links
    Link,
    /// Extended attributes: the list as it comes, and values sorted by name
    Xattrs,
    /// What users without privileges may do
    Access,
    /// SHA-256 of the content; of a file above 16 MiB: of places all over it
    Content,
    /// Where there are data and holes; SHA-256 of the data of a file above 16 MiB
    Map,
    /// Extents, but for where they are
    Fiemap,
    /// Where extents are
    Physical,
    /// Entries of directories as they come, with type, inode number and cookie
    Readdir,
    /// What follows in a directory after seeking to a cookie, or to anything else
    Seekdir,
    /// File handles, and whether they can be opened
    Handles,
    /// Calls that are refused, or that not every file system has
    Errors,
}

/// A set of groups.
#[derive(Clone, Copy)]
pub(crate) struct Groups(u32);

impl Groups {
    pub(crate) fn only(groups: &[Group]) -> Self {
        Self(groups.iter().fold(0, |set, group| set | bit(*group)))
    }

    pub(crate) fn without(groups: &[Group]) -> Self {
        Self(!Self::only(groups).0)
    }

    pub(crate) fn has(self, group: Group) -> bool {
        self.0 & bit(group) != 0
    }
}

fn bit(group: Group) -> u32 {
    1 << group as u32
}
