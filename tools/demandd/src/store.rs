// SPDX-License-Identifier: GPL-2.0
//! Places that images are pushed to: directories, S3, registries.
//!
//! What is there already stays: files of an image never change. The manifest comes last, so that whoever sees it finds
//! what it names.

pub mod s3;

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Context, Error, Result};
use rustix::fs::{renameat_with, RenameFlags, CWD};
use rustix::io::Errno;
use ureq::http::{header, Method, StatusCode, Uri};

use crate::digest::{Digest, Hasher};
use crate::log;
use crate::manifest::{list_file, manifest_file, Manifest, MANIFEST_MAX};
use crate::source::directory;
use crate::source::http::client::{Ask, Payload};
use crate::source::http::session::{join, text, Answer, Session};
use crate::source::oci::{self, Image, Layer};
use crate::source::{Failure, Kind, Source as _};

/// How often something is tried.
const TRIES: u32 = 5;

/// The first pause between two attempts, and the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long one question, and how long one file may take.
const PATIENCE: Duration = Duration::from_secs(60);
const LONG_PATIENCE: Duration = Duration::from_secs(86_400);

/// One file of an image.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// The digest of it.
    pub digest: Digest,
    /// What it is, as registries are told.
    pub kind: &'static str,
}

/// A place that images are pushed to.
pub trait Store: fmt::Debug {
    /// Whether it has a file already. One that has the name and is another one is an error.
    fn has(&self, item: &Item) -> Result<bool, Failure>;

    /// Adds a file.
    fn put(&self, item: &Item, file: &File) -> Result<(), Failure>;

    /// Ties files together, if that has to be done. Returns the digest that stands for them there, if there is one.
    fn finish(&self, _items: &[Item]) -> Result<Option<Digest>, Failure> {
        Ok(None)
    }
}

/// Pushes an image that is in a directory. Tells of each file whether it was there already.
pub fn push(
    from: &Path,
    name: &str,
    store: &dyn Store,
    mut tell: impl FnMut(&Item, bool) -> Result<()>,
) -> Result<Option<Digest>> {
    let dir = directory::Directory::new(from)?;
    let items = items(&dir, name)?;
    for item in &items {
        let one = || -> Result<bool> {
            let (file, size) = dir.open(OsStr::new(&item.name))?;
            let before = changed(&file)?;
            ensure!(
                size == item.size && digest_of(&file)? == item.digest,
                "it is not as the manifest says: it has changed, or is damaged"
            );
            let had = retry(&item.name, || match store.has(item)? {
                true => Ok(true),
                false => store.put(item, &file).map(|()| false),
            })?;
            // Without a manifest nobody looks for it there, but it would be taken for the right one the next time.
            ensure!(
                had || changed(&file)? == before,
                "it has changed while it was pushed: remove what is there"
            );
            Ok(had)
        };
        let had = one().with_context(|| format!("cannot push {}", item.name))?;
        tell(item, had)?;
    }
    retry(name, || store.finish(&items)).with_context(|| format!("cannot push {name}"))
}

/// When a file was last changed, by its size and two of its times.
fn changed(file: &File) -> io::Result<(u64, [i64; 4])> {
    let meta = file.metadata()?;
    let times = [
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
    ];
    Ok((meta.len(), times))
}

/// The files of an image, in the order in which they are pushed.
fn items(dir: &directory::Directory, name: &str) -> Result<Vec<Item>> {
    let file = manifest_file(name);
    let bytes = dir
        .file(&file, MANIFEST_MAX as u64, Instant::now())
        .map_err(Error::from)?;
    let manifest = Manifest::parse(&bytes).with_context(|| format!("{file} is no manifest"))?;
    let mut items = Vec::new();
    for entry in manifest.entries() {
        let list = list_file(&entry.name);
        let size = dir.open(OsStr::new(&list))?.1;
        items.push(Item {
            name: entry.name.clone(),
            size: entry.size,
            digest: entry.digest,
            kind: "application/vnd.erofs-demand.blob.v1",
        });
        items.push(Item {
            name: list,
            size,
            digest: entry.list,
            kind: "application/vnd.erofs-demand.chunks.v1",
        });
    }
    items.push(Item {
        name: file,
        size: bytes.len() as u64,
        digest: Digest::of(&bytes),
        kind: "application/vnd.erofs-demand.manifest.v1",
    });
    Ok(items)
}

fn digest_of(mut file: impl Read) -> Result<Digest> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            size => hasher.update(buffer.get(..size).unwrap_or_default()),
        }
    }
}

/// Tries something again that may go well the next time.
fn retry<T>(what: &str, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T> {
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        let failure = match attempt() {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        let asked = match failure.kind {
            Kind::Lasting => return Err(failure.error),
            Kind::Passing => None,
            Kind::Overload(asked) => asked,
        };
        log!("{what}: {:#}; trying again", failure.error);
        thread::sleep(asked.unwrap_or(pause).min(LONGEST_PAUSE));
        pause = pause.saturating_mul(2);
    }
    Ok(attempt()?)
}

fn other(item: &Item, place: &str) -> Failure {
    let name = &item.name;
    let error =
        "is there and is another one, and files of images never change: choose another name";
    Failure::lasting(anyhow!("{name} in {place} {error}"))
}

/// A directory of this machine.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Names a directory, which has to exist.
    pub fn new(dir: &Path) -> Result<Self> {
        directory::Directory::new(dir)?;
        Ok(Self(dir.to_owned()))
    }

    fn copy(&self, item: &Item, mut from: &File) -> Result<()> {
        io::Seek::rewind(&mut from)?;
        let to = self.0.join(&item.name);
        let new = self
            .0
            .join(format!(".{}.{}", item.name, std::process::id()));
        let mut copied = || -> Result<()> {
            let mut file = File::options().write(true).create_new(true).open(&new)?;
            io::copy(&mut from, &mut file)?;
            file.sync_all()?;
            // Somebody else may have been faster.
            match renameat_with(CWD, &new, CWD, &to, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => Err(other(item, &self.0.display().to_string()).error),
                result => Ok(result?),
            }
        };
        let copied = copied();
        if copied.is_err() {
            let _ = fs::remove_file(&new);
        }
        copied.with_context(|| format!("cannot write {}", to.display()))
    }
}

impl Store for Directory {
    fn has(&self, item: &Item) -> Result<bool, Failure> {
        let path = self.0.join(&item.name);
        match File::open(&path) {
            Ok(file) => match digest_of(file).map_err(Failure::lasting)? == item.digest {
                true => Ok(true),
                false => Err(other(item, &self.0.display().to_string())),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Failure::lasting(
                Error::from(error).context(path.display().to_string()),
            )),
        }
    }

    fn put(&self, item: &Item, file: &File) -> Result<(), Failure> {
        self.copy(item, file).map_err(Failure::lasting)
    }
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Asks whether something is there.
fn head(session: &Session, url: &str) -> Result<Option<Answer>, Failure> {
    let mut ask = Ask::get(url);
    ask.method = Method::HEAD;
    let answer = session.ask(&ask, soon())?;
    if answer.response.status() == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    answer
        .check(StatusCode::OK)
        .map_err(|failure| failure.context(url))?;
    Ok(Some(answer))
}

/// An image of a registry.
#[derive(Debug)]
pub struct Registry {
    image: Image,
    session: Session,
}

impl Registry {
    /// Names the image, which has to have a tag.
    pub fn new(image: Image, session: Session) -> Result<Self> {
        ensure!(
            image.tagged().is_some(),
            "an image is pushed to a tag: its digest is known afterwards"
        );
        Ok(Self { image, session })
    }

    fn upload(&self, digest: &Digest, payload: Payload<'_>) -> Result<(), Failure> {
        let begin = self.image.uploads();
        let mut ask = Ask::get(&begin);
        ask.method = Method::POST;
        ask.payload = Payload::Bytes(&[]);
        let answer = self.session.ask(&ask, soon())?;
        answer
            .check(StatusCode::ACCEPTED)
            .map_err(|failure| failure.context(&begin))?;
        let base: Uri = begin.parse().map_err(Failure::lasting)?;
        let to =
            join(&base, text(&answer.response, &header::LOCATION)).map_err(Failure::lasting)?;
        let mark = if to.contains('?') { '&' } else { '?' };
        let to = format!("{to}{mark}digest={digest}");
        let mut ask = Ask::get(&to);
        // Where it goes is between us and the registry.
        ask.label = &begin;
        ask.method = Method::PUT;
        ask.headers
            .push((header::CONTENT_TYPE, "application/octet-stream"));
        ask.payload = payload;
        ask.is_work = true;
        let answer = self.session.ask(&ask, Instant::now() + LONG_PATIENCE)?;
        answer
            .check(StatusCode::CREATED)
            .map_err(|failure| failure.context(&begin))
    }
}

impl Store for Registry {
    fn has(&self, item: &Item) -> Result<bool, Failure> {
        let url = self.image.blob(&item.digest);
        Ok(head(&self.session, &url)?.is_some())
    }

    fn put(&self, item: &Item, file: &File) -> Result<(), Failure> {
        let Item { size, digest, .. } = *item;
        let payload = Payload::File {
            file,
            offset: 0,
            size,
            digest,
        };
        self.upload(&digest, payload)
    }

    fn finish(&self, items: &[Item]) -> Result<Option<Digest>, Failure> {
        let empty = Digest::of(oci::EMPTY_BYTES);
        if head(&self.session, &self.image.blob(&empty))?.is_none() {
            self.upload(&empty, Payload::Bytes(oci::EMPTY_BYTES))?;
        }
        let layer = |item: &Item| Layer {
            kind: item.kind.to_owned(),
            name: item.name.clone(),
            digest: item.digest,
            size: item.size,
        };
        let layers: Vec<_> = items.iter().map(layer).collect();
        let manifest = oci::manifest(&layers);
        let url = self.image.tagged().unwrap_or_default();
        let mut ask = Ask::get(url);
        ask.method = Method::PUT;
        ask.headers.push((header::CONTENT_TYPE, oci::MANIFEST));
        ask.payload = Payload::Bytes(&manifest);
        let answer = self.session.ask(&ask, soon())?;
        answer
            .check(StatusCode::CREATED)
            .map_err(|failure| failure.context(url))?;
        Ok(Some(Digest::of(&manifest)))
    }
}
