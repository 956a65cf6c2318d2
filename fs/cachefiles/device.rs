// SPDX-License-Identifier: GPL-2.0

//! `/dev/cachefiles_demand`: the wire format, as include/uapi/linux/cachefiles_demand.h has it.
//!
//! One daemon at a time has the device open. Reading gives it requests, writing takes its commands.

use crate::{
    cache::{Bound, Cache, State},
    io,
    presence::BLOCK,
    request::{Load, Record},
    space::{Limits, SpaceLimits},
};
use kernel::{
    cred::Credential,
    fs::File,
    new_mutex,
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    str::CString,
    sync::{aref::ARef, atomic::ordering, Arc, Mutex},
    uaccess::{UserSliceReader, UserSliceWriter},
};
use vfs::{
    c_string,
    chardev::{capable_sys_admin, Device},
    cred,
    path::Path,
    poll::{self, Events},
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

/// Longest time that can be set, in seconds: a week.
const SECONDS_MAX: u64 = 604_800;

/// Largest unit of requests in bytes.
const GRANULE_MAX: u64 = 16 << 20;

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
    secctx: Option<CString>,
    settings: Settings,
    cache: Option<Arc<Bound>>,
}

/// What a daemon can choose. A cache has those of the daemon that serves it.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    /// Seconds that requests wait for the next daemon after this one is gone.
    pub(crate) linger: u32,
    /// Seconds after which a request fails; zero for never.
    pub(crate) timeout: u32,
    /// Unit of requests in bytes, a power of two.
    pub(crate) granule: u64,
    pub(crate) io_mode: io::Mode,
    pub(crate) limits: SpaceLimits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            linger: 30,
            timeout: 0,
            granule: BLOCK,
            io_mode: io::Mode::Auto,
            limits: SpaceLimits {
                blocks: Limits::DEFAULT,
                files: Limits::DEFAULT,
            },
        }
    }
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
        let Some(bound) = self.bound() else {
            return Ok(0);
        };
        let requests = &bound.cache().requests;
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

    fn poll(&self, file: &File, table: &poll::Table<'_>) -> Events {
        self.state.polled.register(file, table);
        let bound = self.bound();
        let cache = bound.as_ref().map(|bound| bound.cache());
        Events {
            readable: cache.is_some_and(|cache| cache.requests.deliverable()),
            writable: cache.is_some_and(|cache| {
                cache.check_space();
                cache.space.culling()
            }),
        }
    }

    fn show_fdinfo(&self, m: &SeqFile) {
        let Some(bound) = self.bound() else {
            return;
        };
        let cache = bound.cache();
        let Load {
            queued,
            delivered,
            oldest_ms,
            ..
        } = cache.requests.load();
        let hung = cache.requests.counts.hung.load(ordering::Relaxed);
        seq_print!(m, "cache:\t{:?}\n", cache.tag());
        seq_print!(m, "queued:\t{queued}\ndelivered:\t{delivered}\n");
        seq_print!(m, "oldest_ms:\t{oldest_ms}\nhung:\t{hung}\n");
    }

    fn release(&self) {
        let bound = self.setup.lock().cache.take();
        if let Some(bound) = bound {
            self.state.release(&bound, false);
        }
        self.state.open.store(false, ordering::Release);
    }
}

impl Session {
    fn bound(&self) -> Option<Arc<Bound>> {
        self.setup.lock().cache.clone()
    }

    /// Runs `f` on the cache; [`EINVAL`] when none is bound.
    fn with_cache(&self, f: impl FnOnce(&Arc<Cache>) -> Result) -> Result {
        f(self.bound().ok_or(EINVAL)?.cache())
    }

    fn command(&self, line: &[u8]) -> Result {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if line.contains(&0) {
            return Err(EINVAL);
        }
        let (word, rest) = split_word(line);
        match word {
            b"dir" => self.dir(rest),
            b"tag" => self.before_bind(|setup| set(&mut setup.tag, rest)),
            b"secctx" => self.before_bind(|setup| set(&mut setup.secctx, rest)),
            b"bind" => self.bind(rest),
            b"unbind" => self.unbind(rest),
            b"done" => {
                let id = only_number(rest)?;
                self.with_cache(|cache| {
                    cache.requests.answer(id, Ok(()))?;
                    cache.check_space();
                    Ok(())
                })
            }
            b"fail" => {
                let (id, rest) = split_word(rest);
                let id = number(id)?;
                let errno = match only_number(rest)? {
                    errno @ 1..=ERRNO_MAX => i32::try_from(errno)?,
                    _ => return Err(EINVAL),
                };
                let e = Error::from_errno(-errno);
                self.with_cache(|cache| cache.requests.answer(id, Err(e)))
            }
            b"restore" => {
                nothing(rest)?;
                self.with_cache(|cache| {
                    cache.requests.restore();
                    Ok(())
                })
            }
            b"cull" => {
                let name = file_name(rest)?;
                let dir = Path::working_directory()?;
                self.with_cache(|cache| cache.cull(&dir, &name))
            }
            b"inuse" => {
                let name = file_name(rest)?;
                let dir = Path::working_directory()?;
                self.with_cache(|cache| match cache.is_used(&dir, &name)? {
                    true => Err(EBUSY),
                    false => Ok(()),
                })
            }
            b"linger" => {
                let linger = seconds(rest)?;
                self.change(|settings| settings.linger = linger)
            }
            b"timeout" => {
                let timeout = seconds(rest)?;
                self.change(|settings| settings.timeout = timeout)
            }
            b"granule" => {
                let granule = only_number(rest)?;
                if !granule.is_power_of_two() || !(BLOCK..=GRANULE_MAX).contains(&granule) {
                    return Err(EINVAL);
                }
                self.change(|settings| settings.granule = granule)
            }
            b"io" => {
                let mode = match rest {
                    b"auto" => io::Mode::Auto,
                    b"direct" => io::Mode::Direct,
                    b"buffered" => io::Mode::Buffered,
                    _ => return Err(EINVAL),
                };
                self.change(|settings| settings.io_mode = mode)
            }
            b"brun" => self.limit(rest, |limits| &mut limits.blocks.run),
            b"bcull" => self.limit(rest, |limits| &mut limits.blocks.cull),
            b"bstop" => self.limit(rest, |limits| &mut limits.blocks.stop),
            b"frun" => self.limit(rest, |limits| &mut limits.files.run),
            b"fcull" => self.limit(rest, |limits| &mut limits.files.cull),
            b"fstop" => self.limit(rest, |limits| &mut limits.files.stop),
            b"" => Err(EINVAL),
            _ => Err(EOPNOTSUPP),
        }
    }

    fn before_bind(&self, f: impl FnOnce(&mut Setup) -> Result) -> Result {
        let mut setup = self.setup.lock();
        setup.not_bound()?;
        f(&mut setup)
    }

    fn dir(&self, path: &[u8]) -> Result {
        if !path.starts_with(b"/") {
            return Err(EINVAL);
        }
        self.before_bind(|setup| set(&mut setup.dir, path))
    }

    /// Changes a setting, of the cache as well if there is one.
    fn change(&self, f: impl FnOnce(&mut Settings)) -> Result {
        let mut setup = self.setup.lock();
        f(&mut setup.settings);
        if let Some(bound) = &setup.cache {
            bound.cache().set(&setup.settings);
        }
        Ok(())
    }

    fn limit(&self, percent: &[u8], f: impl FnOnce(&mut SpaceLimits) -> &mut u8) -> Result {
        let percent = number(percent.strip_suffix(b"%").ok_or(EINVAL)?)?;
        match u8::try_from(percent) {
            Ok(percent @ 0..=99) => self.before_bind(|setup| {
                *f(&mut setup.settings.limits) = percent;
                Ok(())
            }),
            _ => Err(EINVAL),
        }
    }

    fn bind(&self, rest: &[u8]) -> Result {
        nothing(rest)?;
        self.before_bind(|setup| {
            let dir = setup.dir.as_deref().ok_or(EINVAL)?;
            let tag = setup.tag.as_deref().unwrap_or(DEFAULT_TAG);
            let SpaceLimits { blocks, files } = &setup.settings.limits;
            if !blocks.valid() || !files.valid() {
                pr_err!("bind: limits must be stop < cull < run < 100%\n");
                return Err(EINVAL);
            }
            let cred = match setup.secctx.as_deref() {
                None => self.cred.clone(),
                Some(secctx) => cred::with_security_context(&self.cred, secctx)
                    .inspect_err(|e| pr_err!("bind: secctx {secctx:?}: {e:?}\n"))?,
            };
            let state = self.state.as_arc_borrow();
            setup.cache = Some(state.bind(dir, tag, &setup.settings, &cred)?);
            Ok(())
        })
    }

    fn unbind(&self, rest: &[u8]) -> Result {
        nothing(rest)?;
        let bound = {
            let mut setup = self.setup.lock();
            let bound = setup.cache.take().ok_or(EINVAL)?;
            *setup = Setup::default();
            bound
        };
        self.state.release(&bound, true);
        Ok(())
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

/// Fills in what can be given once.
fn set(slot: &mut Option<CString>, value: &[u8]) -> Result {
    if value.is_empty() {
        return Err(EINVAL);
    }
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

/// There must be no argument.
fn nothing(rest: &[u8]) -> Result {
    match rest {
        [] => Ok(()),
        _ => Err(EINVAL),
    }
}

/// The one argument, a number.
fn only_number(rest: &[u8]) -> Result<u64> {
    let (word, rest) = split_word(rest);
    nothing(rest)?;
    number(word)
}

fn seconds(rest: &[u8]) -> Result<u32> {
    match only_number(rest)? {
        seconds @ 0..=SECONDS_MAX => Ok(u32::try_from(seconds)?),
        _ => Err(EINVAL),
    }
}

/// The one argument, a name without a directory.
fn file_name(rest: &[u8]) -> Result<CString> {
    match rest {
        b"" | b"." | b".." => Err(EINVAL),
        name if name.contains(&b'/') => Err(EINVAL),
        name => c_string(name),
    }
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
