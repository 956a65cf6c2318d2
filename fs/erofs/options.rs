// SPDX-License-Identifier: GPL-2.0

//! Mount options.

use crate::blobs::{Blob, Registry};
use kernel::{
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    str::{parse_int::ParseInt as _, CString},
    sync::{
        atomic::{ordering, Atomic},
        Arc,
    },
};
use vfs::{c_string, fs::show_option};

/// Options that are on or off, and that remount(2) can change.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Switches(u32);

impl Switches {
    /// `user_xattr`: attributes of users are shown.
    pub(crate) const USER_XATTR: Self = Self(1);
    /// `acl`: access control lists are heeded.
    pub(crate) const ACL: Self = Self(1 << 1);
    /// `directio`: an image file is read past its page cache.
    pub(crate) const DIRECT_IO: Self = Self(1 << 2);
    /// `dax=never`.
    const NO_DAX: Self = Self(1 << 3);

    /// Whether all of these are on.
    pub(crate) fn has(self, these: Self) -> bool {
        self.0 & these.0 == these.0
    }

    /// Turns these on or off.
    pub(crate) fn set(&mut self, these: Self, on: bool) {
        match on {
            true => self.0 |= these.0,
            false => self.0 &= !these.0,
        }
    }

    /// Those that have a meaning for an image in the cache.
    pub(crate) fn of_cache(mut self) -> Self {
        self.set(Self::DIRECT_IO, false);
        self
    }
}

/// The switches of a mounted volume.
#[derive(Clone)]
pub(crate) struct Current(Arc<Atomic<u32>>);

impl Current {
    pub(crate) fn new(switches: Switches) -> Result<Self> {
        Ok(Self(Arc::new(Atomic::new(switches.0), GFP_KERNEL)?))
    }

    pub(crate) fn get(&self) -> Switches {
        Switches(self.0.load(ordering::Relaxed))
    }

    pub(crate) fn set(&self, switches: Switches) {
        self.0.store(switches.0, ordering::Relaxed);
    }
}

/// What makes two mounts of an image in the cache the same: the blob with the super block, and the
/// options, as they are now.
pub(crate) struct Key {
    blob: u64,
    devices: KVec<CString>,
    tag: Option<CString>,
    switches: Current,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.blob == other.blob
            && self.switches.get() == other.switches.get()
            && self.tag.as_deref() == other.tag.as_deref()
            && same_names(&self.devices, &other.devices)
    }
}

fn same_names(names: &[CString], others: &[CString]) -> bool {
    let strings = |names| <[CString]>::iter(names).map(|name| &**name);
    strings(names).eq(strings(others))
}

impl Default for Switches {
    fn default() -> Self {
        Self(Self::USER_XATTR.0 | Self::ACL.0)
    }
}

/// The options of one mount.
#[derive(Default)]
pub(crate) struct Options {
    /// `uuid=`: name of the blob with the super block.
    uuid: Option<CString>,
    /// `device=`, in order: names of the other blobs, or paths of devices or files.
    devices: KVec<CString>,
    /// `tag=`: which cache the blobs are in.
    tag: Option<CString>,
    /// `fsoffset=`: where the image begins on its device or in its file, in bytes.
    fsoffset: u64,
    switches: Switches,
    sharing: Sharing,
    /// What `uuid=` names, opened, and the switches that mounts of the volume share.
    opened: Option<(Blob, Current)>,
}

/// Options that the kernel's own module has for memory that is shared, between images or with a
/// device. They are taken, so that what works with that module does with this one; here every mount
/// has pages of its own.
#[derive(Default)]
struct Sharing {
    /// `dax`, `dax=always`.
    dax: bool,
    /// `domain_id=`: whose images may share.
    domain: bool,
    /// `inode_share`.
    inodes: bool,
}

impl Options {
    /// Takes one option. [`ENOPARAM`] for a name that is not known.
    pub(crate) fn parse(&mut self, name: &CStr, value: Option<&CStr>) -> Result {
        match name.to_bytes() {
            b"uuid" => set(&mut self.uuid, name, value),
            b"tag" => set(&mut self.tag, name, value),
            b"device" => {
                let device = not_empty(name, value)?;
                Ok(self.devices.push(device, GFP_KERNEL)?)
            }
            b"fsoffset" => {
                let value = value.ok_or(EINVAL)?;
                self.fsoffset = u64::from_str(value.to_bytes().as_ref())?;
                Ok(())
            }
            b"directio" => self.switch(Switches::DIRECT_IO, true, value),
            b"nodirectio" => self.switch(Switches::DIRECT_IO, false, value),
            b"user_xattr" => self.switch(Switches::USER_XATTR, true, value),
            b"nouser_xattr" => self.switch(Switches::USER_XATTR, false, value),
            b"acl" => self.switch(Switches::ACL, true, value),
            b"noacl" => self.switch(Switches::ACL, false, value),
            b"dax" => {
                let always = match value.map(CStr::to_bytes) {
                    None | Some(b"always") => true,
                    Some(b"never") => false,
                    Some(_) => return Err(EINVAL),
                };
                self.sharing.dax = always;
                self.switches.set(Switches::NO_DAX, !always);
                Ok(())
            }
            // What is to be kept of compressed files: there are none yet.
            b"cache_strategy" => match value.map(CStr::to_bytes) {
                Some(b"disabled" | b"readahead" | b"readaround") => Ok(()),
                _ => Err(EINVAL),
            },
            b"domain_id" => not_empty(name, value).map(|_| self.sharing.domain = true),
            b"inode_share" => no_value(value).map(|()| self.sharing.inodes = true),
            _ => Err(ENOPARAM),
        }
    }

    fn switch(&mut self, switch: Switches, on: bool, value: Option<&CStr>) -> Result {
        no_value(value)?;
        self.switches.set(switch, on);
        Ok(())
    }

    /// [`EINVAL`] for options about shared memory that do not go together; says what is not done of
    /// those that do.
    pub(crate) fn check_sharing(&self) -> Result {
        let wrong = match self.sharing {
            Sharing {
                inodes: true,
                domain: false,
                ..
            } => "inode_share needs domain_id=",
            Sharing {
                inodes: true,
                dax: true,
                ..
            } => "inode_share and dax do not go together",
            Sharing { inodes, dax, .. } => {
                if inodes {
                    pr_info!("inode_share is off: pages are not shared between images\n");
                }
                if dax {
                    pr_info!("dax is off: files are read through the page cache\n");
                }
                return Ok(());
            }
        };
        pr_err!("{wrong}\n");
        Err(EINVAL)
    }

    /// Opens the blob that `uuid=` names. May sleep. Errors are those of [`Registry::open`].
    pub(crate) fn open_blob(&mut self, registry: &Arc<Registry>) -> Result<Key> {
        let name = self.uuid().ok_or(EINVAL)?;
        let blob = registry.open(name, self.tag(), name)?;
        let mut devices = KVec::new();
        for name in &self.devices {
            devices.push(c_string(name.to_bytes())?, GFP_KERNEL)?;
        }
        let key = Key {
            blob: blob.id(),
            devices,
            tag: self.tag().map(|tag| c_string(tag.to_bytes())).transpose()?,
            switches: Current::new(self.switches.of_cache())?,
        };
        self.opened = Some((blob, key.switches.clone()));
        Ok(key)
    }

    /// What [`Self::open_blob`] opened, once.
    pub(crate) fn take_blob(&mut self) -> Option<(Blob, Current)> {
        self.opened.take()
    }

    /// [`EINVAL`] if `other`, as far as it says, names another image.
    pub(crate) fn check_same(&self, other: &Self) -> Result {
        let differs = |mine: &Option<CString>, other: &Option<CString>| {
            other.is_some() && other.as_deref() != mine.as_deref()
        };
        let same_devices = same_names(&self.devices, &other.devices);
        let name = if differs(&self.uuid, &other.uuid) {
            "uuid="
        } else if differs(&self.tag, &other.tag) {
            "tag="
        } else if !other.devices.is_empty() && !same_devices {
            "device="
        } else if other.fsoffset != 0 && other.fsoffset != self.fsoffset {
            "fsoffset="
        } else {
            return Ok(());
        };
        pr_err!("{name} cannot be changed by a remount\n");
        Err(EINVAL)
    }

    /// Name of the blob with the super block. Without one the image is on a block device or in a
    /// file.
    pub(crate) fn uuid(&self) -> Option<&CStr> {
        self.uuid.as_deref()
    }

    /// Where the image begins on its device or in its file, in bytes.
    pub(crate) fn fsoffset(&self) -> u64 {
        self.fsoffset
    }

    /// Those that can change, as they were given.
    pub(crate) fn switches(&self) -> Switches {
        self.switches
    }

    /// Names of the other blobs, or paths, if they were given.
    pub(crate) fn devices(&self) -> &[CString] {
        &self.devices
    }

    /// Tag of the cache, if it was given.
    pub(crate) fn tag(&self) -> Option<&CStr> {
        self.tag.as_deref()
    }

    /// Writes the options as they were given, and what holds of those that can change.
    pub(crate) fn show(&self, seq: &SeqFile, switches: Switches) {
        if let Some(uuid) = &self.uuid {
            show_option(seq, c"uuid", uuid);
            for device in &self.devices {
                show_option(seq, c"device", device);
            }
        }
        if let Some(tag) = &self.tag {
            show_option(seq, c"tag", tag);
        }
        let no = |on| if switches.has(on) { "" } else { "no" };
        seq_print!(
            seq,
            ",{}user_xattr,{}acl",
            no(Switches::USER_XATTR),
            no(Switches::ACL)
        );
        if switches.has(Switches::NO_DAX) {
            seq_print!(seq, ",dax=never");
        }
        if switches.has(Switches::DIRECT_IO) {
            seq_print!(seq, ",directio");
        }
        if self.fsoffset != 0 {
            seq_print!(seq, ",fsoffset={}", self.fsoffset);
        }
    }
}

fn not_empty(name: &CStr, value: Option<&CStr>) -> Result<CString> {
    match value {
        Some(value) if !value.is_empty() => Ok(CString::try_from(value)?),
        _ => {
            pr_err!("{name:?}= needs a value\n");
            Err(EINVAL)
        }
    }
}

fn no_value(value: Option<&CStr>) -> Result {
    match value {
        None => Ok(()),
        Some(_) => Err(EINVAL),
    }
}

fn set(slot: &mut Option<CString>, name: &CStr, value: Option<&CStr>) -> Result {
    let value = not_empty(name, value)?;
    if slot.replace(value).is_some() {
        pr_err!("{name:?}= was given twice\n");
        return Err(EINVAL);
    }
    Ok(())
}
