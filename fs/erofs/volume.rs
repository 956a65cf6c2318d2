// SPDX-License-Identifier: GPL-2.0

//! A mounted image: super block, devices, and the way to the metadata.

use crate::{
    blobs::Registry,
    buffers::Buffers,
    data, inode,
    options::{Current, Options, Switches},
    source::{ImageFile, Source},
    Erofs,
};
use erofs_disk::{
    resolve, resolve_flat, Address, Area, DeviceSlot, Inode, LongPrefix, LongPrefixes, Place,
    ReadError, DEVICE_SLOT_SIZE, SUPER_OFFSET, SUPER_SIZE, SUPER_SIZE_MAX,
};
use kernel::{
    prelude::*,
    str::CString,
    sync::{
        aref::ARef,
        atomic::{ordering, Atomic},
        Arc, SetOnce,
    },
};
use vfs::{
    c_string,
    fs::{Reconfigured, Statfs},
    inode::INode,
    kfile::KFile,
    log, mapping,
    super_block::{Filling, New, SuperBlock},
    sysfs::Folder,
    u64_from,
};

/// Bytes of an image that are checksummed at most: the first block from the super block on.
const CHECKSUM_MAX: u64 = 4096;

/// What [`Volume::dir_ra_bytes`] is at first.
const DIR_RA_BYTES: u32 = 16384;

/// What belongs to a mount.
pub(crate) struct Volume {
    /// Name of the mount in the log.
    name: CString,
    options: Options,
    /// How many bytes of a directory are asked for at once by those who list it.
    dir_ra_bytes: Arc<Atomic<u32>>,
    /// Those of the options that remount(2) can change.
    switches: Current,
    primary: Device,
    // Known once the super block is read, for which there must be a volume already.
    image: SetOnce<Image>,
    // Then these can be read.
    metabox: SetOnce<Inode>,
    packed: SetOnce<Inode>,
    xattr_prefixes: SetOnce<KVec<LongPrefix>>,
    // And, when it is mounted.
    sysfs: SetOnce<Folder>,
    buffers: Arc<Buffers>,
    /// What damage may say in the log.
    lines: Pin<KBox<log::Limit>>,
}

/// What the super block and the device table say.
struct Image {
    super_block: erofs_disk::SuperBlock,
    /// The device table, and the blobs in its order.
    slots: KVec<DeviceSlot>,
    /// The devices in the order of the table; none if all are in the primary one.
    devices: KVec<Device>,
}

/// Where a device's bytes are, and the inode that caches its metadata.
///
/// The inode is dropped first: that ends its reads.
pub(crate) struct Device {
    inode: SetOnce<ARef<INode<Erofs>>>,
    source: Source,
}

impl Device {
    fn new(source: Source) -> Self {
        Self {
            inode: SetOnce::new(),
            source,
        }
    }

    /// Where its bytes are.
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    fn open(&self, sb: &SuperBlock<Erofs>, index: usize) -> Result {
        let inode = inode::for_device(sb, index, self.source.size())?;
        self.inode.populate(inode);
        Ok(())
    }

    /// Begins to read bytes of the device that are not cached.
    pub(crate) fn read_ahead(&self, pos: u64, len: u64) {
        if let Some(inode) = self.inode.as_ref() {
            mapping::read_ahead(inode, pos, len);
        }
    }

    /// Copies bytes of the device. May sleep.
    pub(crate) fn read_exact(&self, pos: u64, buf: &mut [u8]) -> Result {
        mapping::read_exact(self.inode.as_ref().ok_or(EIO)?, pos, buf)
    }
}

/// Mounts the image that the options name. May sleep.
pub(crate) fn mount<'a>(
    mut sb: New<'a, Erofs>,
    mut options: Options,
) -> Result<(Filling<'a, Erofs>, ARef<INode<Erofs>>)> {
    let shared = sb.context();
    let name = CString::try_from(options.uuid().or(sb.source()).unwrap_or(c"?"))?;
    let opener = Opener {
        registry: &shared.registry,
        kind: match options.uuid() {
            Some(_) => Kind::Cache,
            None if sb.is_on_device() => Kind::Device,
            None => Kind::File,
        },
    };
    let (primary, switches) = match options.take_blob() {
        Some((blob, switches)) => (Source::Cache(blob), switches),
        None => {
            let image = opener.image(sb.image()?, &options, options.fsoffset());
            let switches = image.known(options.switches());
            (image, Current::new(switches)?)
        }
    };
    let mut sb = sb.attach(Volume {
        name,
        switches,
        options,
        primary: Device::new(primary),
        image: SetOnce::new(),
        metabox: SetOnce::new(),
        packed: SetOnce::new(),
        xattr_prefixes: SetOnce::new(),
        sysfs: SetOnce::new(),
        buffers: Buffers::new()?,
        lines: KBox::pin_init(log::Limit::new(), GFP_KERNEL)?,
        dir_ra_bytes: Arc::new(Atomic::new(DIR_RA_BYTES), GFP_KERNEL)?,
    })?;

    let volume: &Volume = sb.data();
    volume.primary.open(&sb, 0)?;
    let super_block = volume.read_super_block()?;
    sb.set_block_bits(u8::try_from(super_block.block_bits())?);
    sb.set_uuid(super_block.uuid());
    let block_size = u64::from(super_block.block_size());
    if sb.data().options.fsoffset() & block_size.wrapping_sub(1) != 0 {
        pr_err!(
            "({:?}): fsoffset= is not a multiple of the block size, {block_size}\n",
            sb.data().name()
        );
        return Err(EINVAL);
    }

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
    // On a block device or in a file without other devices, the primary one has them all.
    let apart = opener.kind == Kind::Cache || !given.is_empty();
    for index in 0..count {
        let slot = volume.read_slot(&image, index)?;
        if !apart {
            image.slots.push(slot, GFP_KERNEL)?;
            continue;
        }
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
        let source = opener.open(volume.name(), &volume.options, &blob_name)?;
        let device = Device::new(source);
        volume.check_size(&blob_name, &device, slot.blocks(), &image)?;
        image.slots.push(slot, GFP_KERNEL)?;
        image.devices.push(device, GFP_KERNEL)?;
    }
    let root = image.super_block.root_nid();
    volume.image.populate(image);
    for (index, device) in volume.image()?.devices.iter().enumerate() {
        device.open(&sb, index.saturating_add(1))?;
    }

    let super_block = volume.super_block()?;
    for (what, nid, slot) in [
        ("metabox", super_block.metabox_nid(), &volume.metabox),
        ("packed", super_block.packed_nid(), &volume.packed),
    ] {
        let Some(nid) = nid else { continue };
        let inode = inode::read(&sb, nid)?;
        if !inode.is_file() {
            return Err(volume.corrupt(format_args!("{what} inode {nid}: not a regular file")));
        }
        slot.populate(inode);
    }
    volume.xattr_prefixes.populate(read_xattr_prefixes(&sb)?);
    if volume.switches().has(Switches::ACL) {
        sb.set_posix_acl()?;
    }

    let root = inode::get(&sb, root)?;
    let volume: &Volume = sb.data();
    if !root.data().is_dir() {
        return Err(volume.corrupt(format_args!("root inode: not a directory")));
    }
    let folder = shared
        .sysfs
        .volume(sb.sysfs_name(), volume.dir_ra_bytes.clone())?;
    volume.sysfs.populate(folder);
    Ok((sb, root))
}

/// Copies bytes of metadata. What lies beyond the end of its area is corrupt. May sleep.
pub(crate) fn read_area(sb: &SuperBlock<Erofs>, area: Area, offset: u64, buf: &mut [u8]) -> Result {
    let volume = sb.data();
    let inode = match area {
        Area::Primary => return volume.read_metadata(offset, buf),
        Area::Metabox => volume.metabox.as_ref(),
        Area::Packed => volume.packed.as_ref(),
    };
    let inode = inode.ok_or_else(|| volume.corrupt(format_args!("no inode for {area:?}")))?;
    match offset.checked_add(u64_from(buf.len())) {
        Some(end) if end <= inode.size => data::read_exact(sb, inode, offset, buf),
        _ => Err(volume.corrupt(format_args!(
            "inode {}: metadata at {offset} lies beyond its end",
            inode.nid
        ))),
    }
}

fn read_xattr_prefixes(sb: &SuperBlock<Erofs>) -> Result<KVec<LongPrefix>> {
    let volume = sb.data();
    let mut records = LongPrefixes::new(volume.super_block()?);
    let mut prefixes = KVec::new();
    while let Some(prefix) = records
        .next(|area, offset, bytes: &mut [u8]| read_area(sb, area, offset, bytes))
        .map_err(|e| volume.read_error(format_args!("prefixes of attribute names"), e))?
    {
        prefixes.push(prefix, GFP_KERNEL)?;
    }
    Ok(prefixes)
}

/// What the devices of an image are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cache,
    Device,
    File,
}

/// Opens the devices of an image.
struct Opener<'a> {
    registry: &'a Arc<Registry>,
    kind: Kind,
}

impl Opener<'_> {
    /// The device `name`: a blob, or a path. May sleep.
    fn open(&self, mount: &CStr, options: &Options, name: &CStr) -> Result<Source> {
        let file = match self.kind {
            Kind::Cache => {
                let blob = self.registry.open(mount, options.tag(), name)?;
                return Ok(Source::Cache(blob));
            }
            Kind::Device => KFile::open_device(name),
            Kind::File => KFile::open_image(name)
                .and_then(|file| file.check_image(erofs_disk::MAGIC).map(|()| file)),
        };
        let file = file.map_err(|e| {
            pr_err!("({mount:?}): device {name:?} cannot be opened: {e:?}\n");
            match e {
                e if e == ENOTBLK => EINVAL,
                e => e,
            }
        })?;
        Ok(self.image(file, options, 0))
    }

    /// A device or image file that is open.
    fn image(&self, file: KFile, options: &Options, offset: u64) -> Source {
        Source::File(ImageFile::new(file, offset, options.switches()))
    }
}

impl Volume {
    /// Name of the mount in the log.
    pub(crate) fn name(&self) -> &CStr {
        &self.name
    }

    /// The mount options.
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// Which of the options that can change are on.
    pub(crate) fn switches(&self) -> Switches {
        self.switches.get()
    }

    /// Takes the options of a remount. [`EINVAL`] if they name another image.
    pub(crate) fn reconfigure(&self, options: Options) -> Result<Reconfigured> {
        self.options.check_same(&options)?;
        let others = &self.image()?.devices;
        let switches = self.primary.source.known(options.switches());
        self.switches.set(switches);
        self.primary.source.set_direct(switches);
        for device in others {
            device.source.set_direct(switches);
        }
        Ok(Reconfigured {
            posix_acl: switches.has(Switches::ACL),
        })
    }

    /// Buffers for a block each.
    pub(crate) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// How many bytes of a directory are asked for at once by those who list it.
    pub(crate) fn dir_ra_bytes(&self) -> u32 {
        self.dir_ra_bytes.load(ordering::Relaxed)
    }

    /// Says in the log what is wrong with the image.
    pub(crate) fn corrupt(&self, what: core::fmt::Arguments<'_>) -> Error {
        if self.lines.may_print() {
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
                if self.lines.may_print() {
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

    /// Says what the format crate found, or passes on why something could not be read.
    pub(crate) fn read_error(&self, place: core::fmt::Arguments<'_>, e: ReadError<Error>) -> Error {
        match e {
            ReadError::Image(e) => self.disk_error(place, e),
            ReadError::Read(e) => e,
        }
    }

    /// The long prefixes of attribute names, in order.
    pub(crate) fn xattr_prefixes(&self) -> &[LongPrefix] {
        self.xattr_prefixes
            .as_ref()
            .map_or(&[], |prefixes| prefixes)
    }

    /// The super block, once it is read.
    pub(crate) fn super_block(&self) -> Result<&erofs_disk::SuperBlock> {
        Ok(&self.image()?.super_block)
    }

    /// Tells which device an address is on, and where.
    pub(crate) fn places(
        &self,
    ) -> Result<impl FnOnce(Address) -> erofs_disk::Result<Place> + use<'_>> {
        let image = self.image()?;
        let find = match image.devices.is_empty() {
            true => resolve_flat,
            false => resolve,
        };
        Ok(move |address| find(&image.super_block, &image.slots, address))
    }

    /// The device `index`: 0 is the primary one, the others are in the order of the table.
    pub(crate) fn device(&self, index: usize) -> Result<&Device> {
        match index.checked_sub(1) {
            None => Ok(&self.primary),
            Some(index) => self.image()?.devices.get(index).ok_or(EFSCORRUPTED),
        }
    }

    /// Copies bytes of the primary device's metadata. What lies beyond its end is corrupt. May
    /// sleep.
    fn read_metadata(&self, pos: u64, buf: &mut [u8]) -> Result {
        match pos.checked_add(u64_from(buf.len())) {
            Some(end) if end <= self.primary.source.size() => self.primary.read_exact(pos, buf),
            _ => Err(self.corrupt(format_args!(
                "metadata at {pos} lies beyond the end of the image"
            ))),
        }
    }

    /// Fails the reads that wait for the daemon, except from blobs that other mounts want to read.
    pub(crate) fn abort_reads(&self) {
        self.primary.source.abort_reads();
        if let Ok(image) = self.image() {
            for device in &image.devices {
                device.source.abort_reads();
            }
        }
    }

    /// The image's label.
    pub(crate) fn label(&self) -> &[u8] {
        self.image()
            .map_or(&[], |image| image.super_block.volume_name())
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
            // As many as there can be, of which the image has some: so the kernel's own module.
            files: u64::MAX,
            free_files: u64::MAX.saturating_sub(sb.inodes()),
            name_len: 255,
            id: (sb.uuid() != [0; 16]).then_some(low ^ high),
        }
    }

    fn image(&self) -> Result<&Image> {
        self.image.as_ref().ok_or(EIO)
    }

    fn read_super_block(&self) -> Result<erofs_disk::SuperBlock> {
        let place = format_args!("super block");
        if self.options.fsoffset() != 0 && self.primary.source.size() == 0 {
            pr_err!("({:?}): fsoffset= is not within the image\n", self.name());
            return Err(EINVAL);
        }
        if self.primary.source.size() < SUPER_OFFSET + u64_from(SUPER_SIZE) {
            return Err(self.corrupt(format_args!("{place}: the image ends before it")));
        }
        let unread = |e| {
            pr_err!("({:?}): {place} cannot be read: {e:?}\n", self.name());
            e
        };
        let mut bytes = [0; SUPER_SIZE_MAX];
        let there = self.primary.source.size().saturating_sub(SUPER_OFFSET);
        let there = usize::try_from(there)
            .unwrap_or(SUPER_SIZE_MAX)
            .min(SUPER_SIZE_MAX);
        let bytes = bytes.get_mut(..there).ok_or(EINVAL)?;
        self.read_metadata(SUPER_OFFSET, bytes).map_err(unread)?;
        let sb = erofs_disk::SuperBlock::parse(bytes).map_err(|e| self.disk_error(place, e))?;

        let range = sb.checksum_range();
        let len = range
            .end
            .checked_sub(range.start)
            .filter(|len| *len <= CHECKSUM_MAX);
        let mut bytes = vfs::zeroed(usize::try_from(len.ok_or(EFSCORRUPTED)?)?)?;
        if range.end > self.primary.source.size() {
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
        self.read_metadata(offset, &mut bytes)?;
        DeviceSlot::parse(&image.super_block, &bytes).map_err(|e| self.disk_error(place, e))
    }

    /// A blob must have all the blocks that the image counts on.
    fn check_size(&self, blob: &CStr, device: &Device, blocks: u64, image: &Image) -> Result {
        let want = blocks.checked_mul(u64::from(image.super_block.block_size()));
        match want {
            Some(want) if want <= device.source.size() => Ok(()),
            _ => {
                pr_err!(
                    "({:?}): blob {blob:?} is truncated: it has {} bytes, the image counts on \
                     {blocks} blocks of {} bytes\n",
                    self.name(),
                    device.source.size(),
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
