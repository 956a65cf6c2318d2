// SPDX-License-Identifier: GPL-2.0

//! `/dev/cachefiles_demand`: the wire format, as include/uapi/linux/cachefiles_demand.h has it.
//!
//! One daemon at a time has the device open. Reading gives it requests, writing takes its commands.

use crate::{
    cache::{Cache, State},
    request::Record,
};
use fscache::backend;
use kernel::{
    cred::Credential,
    fs::File,
    new_mutex,
    prelude::*,
    str::CString,
    sync::{aref::ARef, atomic::ordering, poll::PollTable, Arc, Mutex},
    uaccess::{UserSliceReader, UserSliceWriter},
};
use vfs::{
    c_string,
    chardev::{capable_sys_admin, Device},
};

/// Size of a record in bytes: three numbers of 8 bytes and a name in 256.
const RECORD_SIZE: usize = 280;
const NAME_OFFSET: usize = 24;

/// Longest command in bytes.
const COMMAND_MAX: usize = 4095;

/// Largest errno that user space knows. Those above it mean something within the kernel: that a
/// read goes on in the background, for instance, which a daemon must not be able to say.
const ERRNO_MAX: u64 = 511;

/// Tag of a cache that is not given one.
const DEFAULT_TAG: &CStr = c"CacheFiles";

/// One open of the device.
#[pin_data]
pub(crate) struct Session {
    state: Arc<State>,
    cred: ARef<Credential>,
    #[pin]
    setup: Mutex<Setup>,
}

#[derive(Default)]
struct Setup {
    dir: Option<CString>,
    tag: Option<CString>,
    cache: Option<Arc<backend::Cache<Cache>>>,
}

#[vtable]
impl Device for Session {
    const NAME: &'static CStr = c"cachefiles_demand";
    type Context = State;

    fn open(state: &Arc<State>, file: &File) -> Result<Arc<Self>> {
        if !capable_sys_admin() {
            return Err(EPERM);
        }
        if state.open.xchg(true, ordering::Full) {
            return Err(EBUSY);
        }
        let session = Arc::pin_init(
            pin_init!(Self {
                state: state.clone(),
                cred: file.cred().into(),
                setup <- new_mutex!(Setup::default()),
            }),
            GFP_KERNEL,
        );
        if session.is_err() {
            state.open.store(false, ordering::Release);
        }
        session
    }

    fn read(&self, mut buffer: UserSliceWriter) -> Result<usize> {
        if buffer.len() < RECORD_SIZE {
            return Err(EMSGSIZE);
        }
        let Some(cache) = self.cache() else {
            return Ok(0);
        };
        let requests = &cache.backend().requests;
        let mut read = 0usize;
        while buffer.len() >= RECORD_SIZE {
            let Some(record) = requests.deliver() else {
                break;
            };
            if let Err(e) = buffer.write_slice(&encode(&record)) {
                requests.take_back(record.id);
                // What was copied before counts.
                return if read == 0 { Err(e) } else { Ok(read) };
            }
            read = read.saturating_add(RECORD_SIZE);
        }
        Ok(read)
    }

    fn write(&self, data: UserSliceReader) -> Result {
        if data.len() > COMMAND_MAX {
            return Err(EINVAL);
        }
        let mut command = KVec::new();
        data.read_all(&mut command, GFP_KERNEL)?;
        self.command(&command)
    }

    fn poll(&self, file: &File, table: PollTable<'_>) -> bool {
        table.register_wait(file, &self.state.readable);
        self.cache()
            .is_some_and(|cache| cache.backend().requests.deliverable())
    }

    fn release(&self) {
        if let Some(cache) = self.setup.lock().cache.take() {
            self.state.release(&cache);
        }
        self.state.open.store(false, ordering::Release);
    }
}

impl Session {
    /// The credentials that the device was opened with.
    pub(crate) fn cred(&self) -> ARef<Credential> {
        self.cred.clone()
    }

    fn cache(&self) -> Option<Arc<backend::Cache<Cache>>> {
        self.setup.lock().cache.clone()
    }

    fn command(&self, line: &[u8]) -> Result {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if line.contains(&0) {
            return Err(EINVAL);
        }
        let (word, rest) = split_word(line);
        match word {
            b"dir" => self.dir(rest),
            b"tag" => self.tag(rest),
            b"bind" => self.bind(rest),
            b"done" => {
                let (id, rest) = split_word(rest);
                self.answer(number(id)?, rest, Ok(()))
            }
            b"fail" => {
                let (id, rest) = split_word(rest);
                let (errno, rest) = split_word(rest);
                let errno = match number(errno)? {
                    errno @ 1..=ERRNO_MAX => i32::try_from(errno)?,
                    _ => return Err(EINVAL),
                };
                self.answer(number(id)?, rest, Err(Error::from_errno(-errno)))
            }
            b"" => Err(EINVAL),
            _ => Err(EOPNOTSUPP),
        }
    }

    fn dir(&self, path: &[u8]) -> Result {
        if !path.starts_with(b"/") {
            return Err(EINVAL);
        }
        let mut setup = self.setup.lock();
        setup.not_bound()?;
        set(&mut setup.dir, path)
    }

    fn tag(&self, tag: &[u8]) -> Result {
        if tag.is_empty() {
            return Err(EINVAL);
        }
        let mut setup = self.setup.lock();
        setup.not_bound()?;
        set(&mut setup.tag, tag)
    }

    fn bind(&self, rest: &[u8]) -> Result {
        if !rest.is_empty() {
            return Err(EINVAL);
        }
        let mut setup = self.setup.lock();
        setup.not_bound()?;
        let dir = setup.dir.as_deref().ok_or(EINVAL)?;
        let tag = setup.tag.as_deref().unwrap_or(DEFAULT_TAG);
        let cache = self.state.as_arc_borrow().bind(dir, tag, self)?;
        setup.cache = Some(cache);
        Ok(())
    }

    fn answer(&self, id: u64, rest: &[u8], result: Result) -> Result {
        if !rest.is_empty() {
            return Err(EINVAL);
        }
        let cache = self.cache().ok_or(EINVAL)?;
        cache.backend().requests.answer(id, result)
    }
}

impl Setup {
    fn not_bound(&self) -> Result {
        match self.cache {
            None => Ok(()),
            Some(_) => Err(EBUSY),
        }
    }
}

fn set(slot: &mut Option<CString>, value: &[u8]) -> Result {
    if slot.is_some() {
        return Err(EEXIST);
    }
    *slot = Some(c_string(value)?);
    Ok(())
}

/// The first word of a command, and what comes after the white space behind it.
fn split_word(line: &[u8]) -> (&[u8], &[u8]) {
    let word = line.iter().position(u8::is_ascii_whitespace);
    let (word, rest) = line
        .split_at_checked(word.unwrap_or(line.len()))
        .unwrap_or((line, &[]));
    (word, rest.trim_ascii())
}

/// A decimal number, or a hexadecimal one after "0x".
fn number(word: &[u8]) -> Result<u64> {
    let word = core::str::from_utf8(word).map_err(|_| EINVAL)?;
    let parsed = match word.strip_prefix("0x") {
        Some(hex) if !hex.starts_with('+') => u64::from_str_radix(hex, 16),
        None if !word.starts_with('+') => word.parse(),
        _ => return Err(EINVAL),
    };
    parsed.map_err(|_| EINVAL)
}

/// The record as the daemon reads it: three numbers in the machine's byte order, and the name
/// padded with NULs.
fn encode(record: &Record) -> [u8; RECORD_SIZE] {
    let mut bytes = [0; RECORD_SIZE];
    let fields = [record.id, record.start, record.len];
    for (slot, field) in bytes.chunks_exact_mut(size_of::<u64>()).zip(fields) {
        slot.copy_from_slice(&field.to_ne_bytes());
    }
    // A file name has at most 255 bytes, so one NUL is left.
    let name = record.object.name().to_bytes();
    for (slot, byte) in bytes.iter_mut().skip(NAME_OFFSET).zip(name) {
        *slot = *byte;
    }
    bytes
}
