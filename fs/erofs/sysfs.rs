// SPDX-License-Identifier: GPL-2.0

//! /sys/fs/erofs: what the module can read, and a folder for each mounted volume.

use kernel::{
    prelude::*,
    sync::{atomic::Atomic, Arc},
};
use vfs::sysfs::Folder;

/// Features of images that the module can read, as /sys/fs/erofs/features has them.
const FEATURES: [&CStr; 6] = [
    c"48bit",
    c"chunked_file",
    c"device_table",
    c"metabox",
    c"sb_chksum",
    c"xattr_prefixes",
];

/// /sys/fs/erofs.
pub(crate) struct Sysfs {
    // Goes before the folder that it is in.
    _features: Folder,
    folder: Folder,
}

impl Sysfs {
    pub(crate) fn new() -> Result<Self> {
        let folder = Folder::in_fs(c"erofs")?;
        let mut features = folder.folder(c"features")?;
        for feature in FEATURES {
            features.add_text(feature, c"supported")?;
        }
        Ok(Self {
            _features: features,
            folder,
        })
    }

    /// The folder of a volume. `dir_ra_bytes` is how many bytes of a directory are asked for at once
    /// by those who list it.
    pub(crate) fn volume(&self, name: &CStr, dir_ra_bytes: Arc<Atomic<u32>>) -> Result<Folder> {
        let mut folder = self.folder.folder(name)?;
        folder.add_number(c"dir_ra_bytes", dir_ra_bytes)?;
        Ok(folder)
    }
}
