// SPDX-License-Identifier: GPL-2.0

//! Mount options.

use kernel::{prelude::*, seq_file::SeqFile, seq_print, str::CString};
use vfs::fs::show_option;

/// The options of one mount.
pub(crate) struct Options {
    /// `uuid=`: name of the blob with the super block.
    uuid: Option<CString>,
    /// `device=`, in order: names of the other blobs, or paths of devices or files.
    devices: KVec<CString>,
    /// `tag=`: which cache the blobs are in.
    tag: Option<CString>,
    /// `fsoffset=`: where the image begins on its device or in its file, in bytes.
    fsoffset: u64,
    /// `directio`: an image file is read past its page cache.
    direct: bool,
    /// `user_xattr`: attributes of users are shown.
    user_xattr: bool,
    /// `acl`: access control lists are heeded.
    acl: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            uuid: None,
            devices: KVec::new(),
            tag: None,
            fsoffset: 0,
            direct: false,
            user_xattr: true,
            acl: true,
        }
    }
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
                let value = not_empty(name, value)?;
                let value = value.to_str().ok().and_then(|value| value.parse().ok());
                self.fsoffset = value.ok_or(EINVAL)?;
                Ok(())
            }
            b"directio" => flag(&mut self.direct, true, value),
            b"nodirectio" => flag(&mut self.direct, false, value),
            b"user_xattr" => flag(&mut self.user_xattr, true, value),
            b"nouser_xattr" => flag(&mut self.user_xattr, false, value),
            b"acl" => flag(&mut self.acl, true, value),
            b"noacl" => flag(&mut self.acl, false, value),
            _ => Err(ENOPARAM),
        }
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

    /// Whether an image file is read past its page cache.
    pub(crate) fn direct(&self) -> bool {
        self.direct
    }

    /// Whether attributes of users are shown.
    pub(crate) fn user_xattr(&self) -> bool {
        self.user_xattr
    }

    /// Whether access control lists are heeded.
    pub(crate) fn acl(&self) -> bool {
        self.acl
    }

    /// Names of the other blobs, or paths, if they were given.
    pub(crate) fn devices(&self) -> &[CString] {
        &self.devices
    }

    /// Tag of the cache, if it was given.
    pub(crate) fn tag(&self) -> Option<&CStr> {
        self.tag.as_deref()
    }

    /// Writes the options as they were given, and what holds by default.
    pub(crate) fn show(&self, seq: &SeqFile) {
        if let Some(uuid) = &self.uuid {
            show_option(seq, c"uuid", uuid);
        }
        for device in &self.devices {
            show_option(seq, c"device", device);
        }
        if let Some(tag) = &self.tag {
            show_option(seq, c"tag", tag);
        }
        if self.fsoffset != 0 {
            seq_print!(seq, ",fsoffset={}", self.fsoffset);
        }
        if self.direct {
            seq_print!(seq, ",directio");
        }
        let no = |on| if on { "" } else { "no" };
        seq_print!(
            seq,
            ",{}user_xattr,{}acl",
            no(self.user_xattr),
            no(self.acl)
        );
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

fn flag(slot: &mut bool, to: bool, value: Option<&CStr>) -> Result {
    if value.is_some() {
        return Err(EINVAL);
    }
    *slot = to;
    Ok(())
}

fn set(slot: &mut Option<CString>, name: &CStr, value: Option<&CStr>) -> Result {
    let value = not_empty(name, value)?;
    if slot.replace(value).is_some() {
        pr_err!("{name:?}= was given twice\n");
        return Err(EINVAL);
    }
    Ok(())
}
