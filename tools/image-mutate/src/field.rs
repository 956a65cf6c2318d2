// SPDX-License-Identifier: GPL-2.0
//! The fields of the structures of the format: name, place and size of each.
//!
//! Names are those of `fs/erofs/erofs_fs.h` of Linux 7.3, behind that of the structure.

/// A field of a structure: its name, byte offset and size.
pub type Part = (&'static str, usize, usize);

/// The super block with its first extension slot.
pub const SUPER: &[Part] = &[
    ("super.magic", 0, 4),
    ("super.checksum", 4, 4),
    ("super.feature_compat", 8, 4),
    ("super.blkszbits", 12, 1),
    ("super.sb_extslots", 13, 1),
    ("super.rb", 14, 2),
    ("super.inos", 16, 8),
    ("super.epoch", 24, 8),
    ("super.fixed_nsec", 32, 4),
    ("super.blocks_lo", 36, 4),
    ("super.meta_blkaddr", 40, 4),
    ("super.xattr_blkaddr", 44, 4),
    ("super.uuid", 48, 16),
    ("super.volume_name", 64, 16),
    ("super.feature_incompat", 80, 4),
    ("super.u1", 84, 2),
    ("super.extra_devices", 86, 2),
    ("super.devt_slotoff", 88, 2),
    ("super.dirblkbits", 90, 1),
    ("super.xattr_prefix_count", 91, 1),
    ("super.xattr_prefix_start", 92, 4),
    ("super.packed_nid", 96, 8),
    ("super.xattr_filter_reserved", 104, 1),
    ("super.ishare_xattr_prefix_id", 105, 1),
    ("super.reserved", 106, 2),
    ("super.build_time", 108, 4),
    ("super.rootnid_8b", 112, 8),
    ("super.reserved2", 120, 8),
    ("super.metabox_nid", 128, 8),
    ("super.reserved3", 136, 8),
];

/// A slot of the device table.
pub const DEVICE: &[Part] = &[
    ("device.tag", 0, 64),
    ("device.blocks_lo", 64, 4),
    ("device.uniaddr_lo", 68, 4),
    ("device.blocks_hi", 72, 2),
    ("device.uniaddr_hi", 74, 2),
    ("device.reserved", 76, 52),
];

/// A compact inode.
pub const COMPACT: &[Part] = &[
    ("compact.i_format", 0, 2),
    ("compact.i_xattr_icount", 2, 2),
    ("compact.i_mode", 4, 2),
    ("compact.i_nb", 6, 2),
    ("compact.i_size", 8, 4),
    ("compact.i_mtime", 12, 4),
    ("compact.i_u", 16, 4),
    ("compact.i_ino", 20, 4),
    ("compact.i_uid", 24, 2),
    ("compact.i_gid", 26, 2),
    ("compact.i_reserved", 28, 4),
];

/// An extended inode.
pub const EXTENDED: &[Part] = &[
    ("extended.i_format", 0, 2),
    ("extended.i_xattr_icount", 2, 2),
    ("extended.i_mode", 4, 2),
    ("extended.i_nb", 6, 2),
    ("extended.i_size", 8, 8),
    ("extended.i_u", 16, 4),
    ("extended.i_ino", 20, 4),
    ("extended.i_uid", 24, 4),
    ("extended.i_gid", 28, 4),
    ("extended.i_mtime", 32, 8),
    ("extended.i_mtime_nsec", 40, 4),
    ("extended.i_nlink", 44, 4),
    ("extended.i_reserved2", 48, 16),
];

/// The field `i_u` of a chunk-based inode.
pub const CHUNK_FORMAT: &[Part] = &[("chunk.format", 16, 2), ("chunk.reserved", 18, 2)];

/// An entry of a block map.
pub const BLOCK: &[Part] = &[("block_map.block", 0, 4)];

/// A chunk index.
pub const INDEX: &[Part] = &[
    ("chunk_index.startblk_hi", 0, 2),
    ("chunk_index.device_id", 2, 2),
    ("chunk_index.startblk_lo", 4, 4),
];

/// A directory entry without its name.
pub const DIRENT: &[Part] = &[
    ("dirent.nid", 0, 8),
    ("dirent.nameoff", 8, 2),
    ("dirent.file_type", 10, 1),
    ("dirent.reserved", 11, 1),
];

/// The name of a directory entry.
pub const NAME: &str = "dirent.name";

/// The header of an inode's attributes, and the id of a shared one.
pub const XATTR_HEADER: &[Part] = &[
    ("xattr.h_name_filter", 0, 4),
    ("xattr.h_shared_count", 4, 1),
    ("xattr.h_reserved2", 5, 7),
];
/// See [`XATTR_HEADER`].
pub const XATTR_ID: &[Part] = &[("xattr.h_shared_xattrs", 0, 4)];

/// An attribute of an inode without name and value, and a shared one.
pub const XATTR: &[Part] = &[
    ("xattr.e_name_len", 0, 1),
    ("xattr.e_name_index", 1, 1),
    ("xattr.e_value_size", 2, 2),
];
/// See [`XATTR`].
pub const SHARED: &[Part] = &[
    ("shared.e_name_len", 0, 1),
    ("shared.e_name_index", 1, 1),
    ("shared.e_value_size", 2, 2),
];

/// Name and value of an attribute, and of a shared one.
pub const XATTR_BYTES: [&str; 2] = ["xattr.e_name", "xattr.e_value"];
/// See [`XATTR_BYTES`].
pub const SHARED_BYTES: [&str; 2] = ["shared.e_name", "shared.e_value"];

/// A long prefix of attribute names without its text.
pub const PREFIX: &[Part] = &[("prefix.size", 0, 2), ("prefix.base_index", 2, 1)];

/// The text of a long prefix.
pub const INFIX: &str = "prefix.infix";

/// All names of fields.
pub fn names() -> impl Iterator<Item = &'static str> {
    [
        SUPER,
        DEVICE,
        COMPACT,
        EXTENDED,
        CHUNK_FORMAT,
        BLOCK,
        INDEX,
        DIRENT,
        XATTR_HEADER,
        XATTR_ID,
        XATTR,
        SHARED,
        PREFIX,
    ]
    .into_iter()
    .flatten()
    .map(|part| part.0)
    .chain([NAME, INFIX])
    .chain(XATTR_BYTES)
    .chain(SHARED_BYTES)
}
