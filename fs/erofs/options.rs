// SPDX-License-Identifier: GPL-2.0

//! Mount options.

use kernel::{prelude::*, seq_file::SeqFile, str::CString};
use vfs::fs::show_option;

/// The options of one mount.
#[derive(Default)]
pub(crate) struct Options {
    /// `uuid=`: name of the blob with the super block.
    uuid: Option<CString>,
    /// `device=`, in order: names of the other blobs.
    devices: KVec<CString>,
    /// `tag=`: which cache the blobs are in.
    tag: Option<CString>,
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
            _ => Err(ENOPARAM),
        }
    }

    /// Name of the blob with the super block, which is also the name of the mount in the log.
    ///
    /// [`EOPNOTSUPP`] without one: then the image is on a block device or in a file.
    pub(crate) fn uuid(&self) -> Result<&CStr> {
        self.uuid.as_deref().ok_or_else(|| {
            pr_err!("no uuid= option: block devices and image files cannot be mounted yet\n");
            EOPNOTSUPP
        })
    }

    /// Names of the other blobs, if they were given.
    pub(crate) fn devices(&self) -> &[CString] {
        &self.devices
    }

    /// Tag of the cache, if it was given.
    pub(crate) fn tag(&self) -> Option<&CStr> {
        self.tag.as_deref()
    }

    /// Writes the options as they were given.
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

fn set(slot: &mut Option<CString>, name: &CStr, value: Option<&CStr>) -> Result {
    let value = not_empty(name, value)?;
    if slot.replace(value).is_some() {
        pr_err!("{name:?}= was given twice\n");
        return Err(EINVAL);
    }
    Ok(())
}
