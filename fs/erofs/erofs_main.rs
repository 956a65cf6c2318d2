// SPDX-License-Identifier: GPL-2.0

//! EROFS whose images come from an fscache cache that is filled on demand.
//!
//! From the mount to the bytes: [`options`] are the mount options, [`blobs`] the objects in the
//! cache that an image consists of, [`volume`] the mounted image, [`inode`] its inodes, [`dir`]
//! lookup and readdir, [`data`] where the bytes of a file are, [`xattr`] its attributes. The on-disk format is a crate of its
//! own, `erofs_disk`, and so is the splitting of ranges, `netfs_split`.
//!
//! Everything that comes from an image is checked before it is used, and what is wrong with it is
//! said in one line of the log.

#![deny(unsafe_code)]

use kernel::{
    prelude::*,
    seq_file::SeqFile,
    sync::{aref::ARef, Arc},
};
use vfs::{
    fs::{self, Backing, FileSystem, Reconfigured, Statfs},
    inode::INode,
    super_block::{Filling, New, SuperBlock},
    workqueue::StartedQueue,
    xattr::{Names, Namespace, Value},
};

mod blobs;
mod buffers;
mod data;
mod dir;
mod inode;
mod options;
mod source;
mod sysfs;
mod volume;
mod xattr;

module! {
    type: ErofsModule,
    name: "erofs",
    authors: ["The erofs-demand authors"],
    description: "EROFS on demand: images that can be mounted before their data has arrived",
    license: "GPL",
    alias: ["fs-erofs"],
}

#[pin_data]
struct ErofsModule {
    #[pin]
    _fs: fs::Registration<Erofs>,
    _queue: StartedQueue,
}

impl kernel::InPlaceModule for ErofsModule {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(|| {
            let shared = Shared {
                registry: Arc::pin_init(blobs::Registry::new(), GFP_KERNEL)?,
                sysfs: sysfs::Sysfs::new()?,
            };
            Ok(try_pin_init!(Self {
                _queue: source::start_queue()?,
                _fs <- fs::Registration::new(shared),
            }? Error))
        })
    }
}

/// What all mounts share.
pub(crate) struct Shared {
    registry: Arc<blobs::Registry>,
    sysfs: sysfs::Sysfs,
}

/// The file system type.
pub(crate) struct Erofs;

#[vtable]
impl FileSystem for Erofs {
    const NAME: &'static CStr = c"erofs";
    const MAGIC: u32 = erofs_disk::MAGIC;
    type Context = Shared;
    type Options = options::Options;
    type Data = volume::Volume;
    type Key = options::Key;
    type INodeData = inode::Node;

    fn parse_option(options: &mut options::Options, name: &CStr, value: Option<&CStr>) -> Result {
        options.parse(name, value)
    }

    fn backing(shared: &Shared, options: &mut options::Options) -> Result<Backing<options::Key>> {
        options.check_sharing()?;
        match options.uuid() {
            Some(_) if options.fsoffset() != 0 => {
                pr_err!("fsoffset= is about a device or file, and does not go with uuid=\n");
                Err(EINVAL)
            }
            Some(_) => Ok(Backing::Own(Some(options.open_blob(&shared.registry)?))),
            None if options.tag().is_some() => {
                pr_err!("tag= is about a cache, and needs uuid=, the name of a blob in it\n");
                Err(EINVAL)
            }
            None => Ok(Backing::Source),
        }
    }

    fn reconfigure(sb: &SuperBlock<Self>, options: options::Options) -> Result<Reconfigured> {
        sb.data().reconfigure(options)
    }

    fn fill_super<'a>(
        sb: New<'a, Self>,
        options: options::Options,
    ) -> Result<(Filling<'a, Self>, ARef<INode<Self>>)> {
        volume::mount(sb, options)
    }

    fn unmount(sb: &SuperBlock<Self>) {
        sb.data().abort_reads();
    }

    fn statfs(sb: &SuperBlock<Self>) -> Statfs {
        sb.data().statfs()
    }

    fn get_xattr(
        inode: &INode<Self>,
        namespace: Namespace,
        name: &[u8],
        value: Value<'_>,
    ) -> Result<usize> {
        xattr::get(inode, namespace, name, value)
    }

    fn list_xattrs(inode: &INode<Self>, names: &mut Names<'_>) -> Result {
        xattr::list(inode, names)
    }

    fn handle(inode: &INode<Self>) -> u64 {
        inode.data().nid()
    }

    fn find_by_handle(sb: &SuperBlock<Self>, nid: u64) -> Result<ARef<INode<Self>>> {
        inode::get(sb, nid)
    }

    fn parent(dir: &INode<Self>) -> Result<ARef<INode<Self>>> {
        dir::parent(dir)
    }

    fn label(sb: &SuperBlock<Self>) -> &[u8] {
        sb.data().label()
    }

    fn show_options(sb: &SuperBlock<Self>, seq: &SeqFile) {
        let volume = sb.data();
        volume.options().show(seq, volume.switches());
    }
}
