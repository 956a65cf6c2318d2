// SPDX-License-Identifier: GPL-2.0

//! Where the bytes of a device are: in the cache, on a block device, or in an image file.

use crate::{blobs::Blob, options::Switches};
use kernel::{
    prelude::*,
    sync::atomic::{ordering, Atomic},
};
use vfs::{
    iomap::{FolioRead, Location},
    kfile::KFile,
    workqueue::{StartedQueue, StaticQueue},
};

/// What a device of an image is.
pub(crate) enum Source {
    /// A blob of the cache.
    Cache(Blob),
    /// A block device or an image file.
    File(ImageFile),
}

/// A block device or an image file.
pub(crate) struct ImageFile {
    file: KFile,
    /// Where the image begins, in bytes.
    offset: u64,
    /// Whether it is read past its page cache.
    direct: Atomic<bool>,
}

impl ImageFile {
    pub(crate) fn new(file: KFile, offset: u64, switches: Switches) -> Self {
        let image = Self {
            file,
            offset,
            direct: Atomic::new(false),
        };
        let direct = image.wants_direct(switches);
        image.direct.store(direct, ordering::Relaxed);
        image
    }

    fn is_device(&self) -> bool {
        self.file.block_device().is_some()
    }

    /// Whether it is to be read past its page cache. A device always is.
    fn wants_direct(&self, switches: Switches) -> bool {
        self.is_device() || switches.has(Switches::DIRECT_IO)
    }
}

static QUEUE: StaticQueue = StaticQueue::new();

/// Starts the queue that failed reads are completed on. The module keeps what is returned and drops
/// it after the last mount.
pub(crate) fn start_queue() -> Result<StartedQueue> {
    QUEUE.start(c"erofs")
}

impl Source {
    /// Size in bytes.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Cache(blob) => blob.size(),
            Self::File(image) => image.file.size().saturating_sub(image.offset),
        }
    }

    /// Those switches that have a meaning here.
    pub(crate) fn known(&self, mut switches: Switches) -> Switches {
        match self {
            Self::Cache(_) => switches.of_cache(),
            Self::File(image) => {
                if image.is_device() {
                    switches.set(Switches::DIRECT_IO, false);
                }
                switches
            }
        }
    }

    /// Where its bytes are.
    pub(crate) fn location(&self) -> Location<'_> {
        match self {
            Self::Cache(_) => Location {
                device: None,
                start: 0,
            },
            Self::File(image) => Location {
                device: image.file.block_device(),
                start: image.offset,
            },
        }
    }

    /// Reads from `start` into the folios, and completes them in any case. May sleep.
    pub(crate) fn read(&self, start: u64, folios: FolioRead) {
        match self {
            Self::Cache(blob) => blob.cookie().read(start, folios),
            Self::File(image) => {
                // What is beyond any file is dropped, which fails it.
                if let Some(pos) = start.checked_add(image.offset) {
                    let direct = image.direct.load(ordering::Relaxed);
                    folios.read_from(&image.file, pos, direct, QUEUE.get());
                }
            }
        }
    }

    /// Takes the switches of a remount.
    pub(crate) fn set_direct(&self, switches: Switches) {
        if let Self::File(image) = self {
            let direct = image.wants_direct(switches);
            image.direct.store(direct, ordering::Relaxed);
        }
    }

    /// Fails the reads that wait for the daemon, except if other mounts want to read the same.
    pub(crate) fn abort_reads(&self) {
        match self {
            Self::Cache(blob) => blob.abort_reads(),
            // The disk answers.
            Self::File(_) => {}
        }
    }
}
