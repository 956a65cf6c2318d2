// SPDX-License-Identifier: GPL-2.0

//! A mounted image: super block, devices, and the way to the metadata.

use crate::{blobs::Blob, inode, options::Options, Erofs};
use erofs_disk::{DeviceSlot, DEVICE_SLOT_SIZE, SUPER_OFFSET, SUPER_SIZE};
use kernel::{
    prelude::*,
    sync::{aref::ARef, SetOnce},
};
use vfs::{
    c_string,
    fs::Statfs,
    inode::INode,
    mapping,
    super_block::{Filling, New, SuperBlock},
    u64_from,
};

/// Bytes of an image that are checksummed at most: the first block from the super block on.
const CHECKSUM_MAX: u64 = 4096;

/// What belongs to a mount.
pub(crate) struct Volume {
    options: Options,
    primary: Device,
    // Known once the super block is read, for which there must be a volume already.
    image: SetOnce<Image>,
}

/// What the super block and the device table say.
struct Image {
    super_block: erofs_disk::SuperBlock,
    /// The device table, and the blobs in its order.
    slots: KVec<DeviceSlot>,
    devices: KVec<Device>,
}

/// A blob and the inode that caches its metadata.
///
/// The inode is dropped first: that ends its reads from the blob.
pub(crate) struct Device {
    inode: SetOnce<ARef<INode<Erofs>>>,
    blob: Blob,
}

impl Device {
    fn new(blob: Blob) -> Self {
        Self {
            inode: SetOnce::new(),
            blob,
        }
    }

    /// The blob.
    pub(crate) fn blob(&self) -> &Blob {
        &self.blob
    }

    fn open(&self, sb: &SuperBlock<Erofs>, index: usize) -> Result {
        let inode = inode::for_device(sb, index, self.blob.size())?;
        self.inode.populate(inode);
        Ok(())
    }

    /// Copies bytes of the device. May sleep.
    pub(crate) fn read_exact(&self, pos: u64, buf: &mut [u8]) -> Result {
        mapping::read_exact(self.inode.as_ref().ok_or(EIO)?, pos, buf)
    }
}

/// Mounts the image that the options name. May sleep.
pub(crate) fn mount<'a>(
    sb: New<'a, Erofs>,
    options: Options,
) -> Result<(Filling<'a, Erofs>, ARef<INode<Erofs>>)> {
    let name = options.uuid()?;
    let registry = sb.context().clone();
    let primary = Device::new(registry.open(name, options.tag(), name)?);
    let mut sb = sb.attach(Volume {
        options,
        primary,
        image: SetOnce::new(),
    })?;

    let volume: &Volume = sb.data();
    volume.primary.open(&sb, 0)?;
    let super_block = volume.read_super_block()?;
    sb.set_block_bits(u8::try_from(super_block.block_bits())?);

    let volume: &Volume = sb.data();
    let mut image = Image {
        slots: KVec::new(),
        devices: KVec::new(),
        super_block,
    };
    volume.check_size(
        volume.name(),
        &volume.primary,
        image.super_block.blocks(),
        &image,
    )?;
    let count = image.super_block.device_count();
    let given = volume.options.devices();
    if !given.is_empty() && given.len() != usize::from(count) {
        pr_err!(
            "({:?}): {} device= options, but the image has {count} devices\n",
            volume.name(),
            given.len()
        );
        return Err(EINVAL);
    }
    for index in 0..count {
        let slot = volume.read_slot(&image, index)?;
        let blob_name = match given.get(usize::from(index)) {
            Some(name) => c_string(name.to_bytes())?,
            None if slot.tag().is_empty() => {
                pr_err!(
                    "({:?}): device {} has no name in the image, and there is no device= option\n",
                    volume.name(),
                    index + 1
                );
                return Err(EINVAL);
            }
            None => c_string(slot.tag())?,
        };
        let blob = registry.open(volume.name(), volume.options.tag(), &blob_name)?;
        let device = Device::new(blob);
        volume.check_size(&blob_name, &device, slot.blocks(), &image)?;
        image.slots.push(slot, GFP_KERNEL)?;
        image.devices.push(device, GFP_KERNEL)?;
    }
    let root = image.super_block.root_nid();
    volume.image.populate(image);
    for (index, device) in volume.image()?.devices.iter().enumerate() {
        device.open(&sb, index.saturating_add(1))?;
    }

    let root = inode::get(&sb, root)?;
    if !root.data().is_dir() {
        return Err(volume.corrupt(format_args!("root inode: not a directory")));
    }
    Ok((sb, root))
}

impl Volume {
    /// Name of the mount in the log.
    pub(crate) fn name(&self) -> &CStr {
        self.options.uuid().unwrap_or(c"?")
    }

    /// The mount options.
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// Says in the log what is wrong with the image.
    pub(crate) fn corrupt(&self, what: core::fmt::Arguments<'_>) -> Error {
        if vfs::log::ratelimit() {
            pr_err!("({:?}): corrupted image: {what}\n", self.name());
        }
        EFSCORRUPTED
    }

    /// Says in the log what the format crate found; `place` tells where.
    pub(crate) fn disk_error(
        &self,
        place: core::fmt::Arguments<'_>,
        e: erofs_disk::Error,
    ) -> Error {
        match e {
            erofs_disk::Error::Unsupported(what) => {
                if vfs::log::ratelimit() {
                    pr_err!("({:?}): {place}: not supported: {what}\n", self.name());
                }
                EOPNOTSUPP
            }
            erofs_disk::Error::BadMagic(_) => {
                pr_err!("({:?}): {place}: {}\n", self.name(), Shown(&e));
                EINVAL
            }
            erofs_disk::Error::Corrupt(what) => self.corrupt(format_args!("{place}: {what}")),
        }
    }

    /// The super block, once it is read.
    pub(crate) fn super_block(&self) -> Result<&erofs_disk::SuperBlock> {
        Ok(&self.image()?.super_block)
    }

    /// The slots of the device table.
    pub(crate) fn slots(&self) -> Result<&[DeviceSlot]> {
        Ok(&self.image()?.slots)
    }

    /// The device `index`: 0 is the primary one, the others are in the order of the table.
    pub(crate) fn device(&self, index: usize) -> Result<&Device> {
        match index.checked_sub(1) {
            None => Ok(&self.primary),
            Some(index) => self.image()?.devices.get(index).ok_or(EFSCORRUPTED),
        }
    }

    /// Copies bytes of the metadata. May sleep.
    pub(crate) fn read_metadata(&self, pos: u64, buf: &mut [u8]) -> Result {
        self.primary.read_exact(pos, buf)
    }

    /// Fails the reads that wait for the daemon, except from blobs that other mounts want to read.
    pub(crate) fn abort_reads(&self) {
        self.primary.blob.abort_reads();
        if let Ok(image) = self.image() {
            for device in &image.devices {
                device.blob.abort_reads();
            }
        }
    }

    /// The numbers for statfs(2).
    pub(crate) fn statfs(&self) -> Statfs {
        let Ok(image) = self.image() else {
            return Statfs::default();
        };
        let sb = &image.super_block;
        let blocks = image
            .slots
            .iter()
            .fold(sb.blocks(), |sum, slot| sum.saturating_add(slot.blocks()));
        let (low, high) = halves(sb.uuid());
        Statfs {
            block_size: sb.block_size(),
            blocks,
            files: sb.inodes(),
            name_len: 255,
            id: low ^ high,
        }
    }

    fn image(&self) -> Result<&Image> {
        self.image.as_ref().ok_or(EIO)
    }

    fn read_super_block(&self) -> Result<erofs_disk::SuperBlock> {
        let place = format_args!("super block");
        if self.primary.blob.size() < SUPER_OFFSET + u64_from(SUPER_SIZE) {
            return Err(self.corrupt(format_args!("{place}: the image ends before it")));
        }
        let unread = |e| {
            pr_err!("({:?}): {place} cannot be read: {e:?}\n", self.name());
            e
        };
        let mut bytes = [0; SUPER_SIZE];
        self.read_metadata(SUPER_OFFSET, &mut bytes)
            .map_err(unread)?;
        let sb = erofs_disk::SuperBlock::parse(&bytes).map_err(|e| self.disk_error(place, e))?;

        let range = sb.checksum_range();
        let len = range
            .end
            .checked_sub(range.start)
            .filter(|len| *len <= CHECKSUM_MAX);
        let mut bytes = KVec::from_elem(0, usize::try_from(len.ok_or(EFSCORRUPTED)?)?, GFP_KERNEL)?;
        if range.end > self.primary.blob.size() {
            return Err(self.corrupt(format_args!("{place}: the image ends within its block")));
        }
        self.read_metadata(range.start, &mut bytes)
            .map_err(unread)?;
        sb.verify_checksum(&bytes)
            .map_err(|e| self.disk_error(place, e))?;
        Ok(sb)
    }

    fn read_slot(&self, image: &Image, index: u16) -> Result<DeviceSlot> {
        let place = format_args!("device table");
        let offset = image
            .super_block
            .device_slot_offset(index)
            .ok_or_else(|| self.corrupt(format_args!("{place}: beyond any image")))?;
        let mut bytes = [0; DEVICE_SLOT_SIZE];
        self.read_metadata(offset, &mut bytes)
            .map_err(|e| match e {
                e if e == EIO => self.corrupt(format_args!("{place}: beyond the end of the image")),
                e => e,
            })?;
        DeviceSlot::parse(&image.super_block, &bytes).map_err(|e| self.disk_error(place, e))
    }

    /// A blob must have all the blocks that the image counts on.
    fn check_size(&self, blob: &CStr, device: &Device, blocks: u64, image: &Image) -> Result {
        let want = blocks.checked_mul(u64::from(image.super_block.block_size()));
        match want {
            Some(want) if want <= device.blob.size() => Ok(()),
            _ => {
                pr_err!(
                    "({:?}): blob {blob:?} is truncated: it has {} bytes, the image counts on \
                     {blocks} blocks of {} bytes\n",
                    self.name(),
                    device.blob.size(),
                    image.super_block.block_size()
                );
                Err(EFSCORRUPTED)
            }
        }
    }
}

/// Shows an error of the format crate in a log line.
struct Shown<'a>(&'a erofs_disk::Error);

impl kernel::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
        core::fmt::Display::fmt(self.0, f)
    }
}

fn halves(uuid: [u8; 16]) -> (u64, u64) {
    let value = u128::from_le_bytes(uuid);
    // CAST: The two halves, each of 64 bits.
    (value as u64, (value >> 64) as u64)
}
