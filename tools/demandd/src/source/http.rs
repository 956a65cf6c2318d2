// SPDX-License-Identifier: GPL-2.0
//! A web server as a source: every file is read with `GET`, ranges of blobs with a `Range` header. What else speaks HTTP
//! (S3, registries) differs in where its files are ([`Places`]) and in how it is shown who asks ([`access::Access`]).
//!
//! A server can say what it likes; what it answers is only taken if it is exactly what was asked for. A server that does
//! not keep to the protocol will not do so the next time either, so that is a lasting failure. One that does not answer, or
//! stops in the middle, may do better later.

pub mod access;
pub mod client;
pub mod secret;
pub mod session;

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Read;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{anyhow, bail, ensure, Context, Result};
use ureq::http::{header, StatusCode, Uri};
use ureq::BodyReader;

use self::access::{Access, Anybody};
use self::client::{io_failure, Ask};
pub use self::client::{Client, Options};
use self::session::{text, Answer, Elsewhere, Session};
use super::{is_no_image, Failure, How, Itself, Ranges, Source, Stream};
use crate::digest::Digest;

/// Where the files of a source are.
pub trait Places: fmt::Debug + Send + Sync {
    /// The name of all of it, for messages.
    fn label(&self) -> &str;

    /// Where a file is. It may take questions to find it.
    fn find(&self, session: &Session, name: &OsStr, until: Instant) -> Result<Found, Failure>;

    /// As [`Source::itself`].
    fn itself(&self, _session: &Session, _until: Instant) -> Result<Itself, Failure> {
        Err(is_no_image(self.label()))
    }

    /// What is asked for to see whether the server answers.
    fn front(&self) -> &str;

    /// Forgets what was found, so that it is looked for again.
    fn forget(&self) {}
}

/// Where a file is.
#[derive(Clone, Debug)]
pub struct Found {
    /// The address.
    pub url: String,
    /// The digest that all of it has to have, if that is known.
    pub digest: Option<Digest>,
}

impl Found {
    /// A file of which no more is known.
    pub fn at(url: String) -> Self {
        Self { url, digest: None }
    }
}

/// A place that is reached with HTTP.
#[derive(Clone, Debug)]
pub struct Http(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    places: Box<dyn Places>,
    session: Session,
}

/// A directory of a web server.
#[derive(Debug)]
struct Directory {
    /// Ends with a slash.
    base: String,
}

impl Places for Directory {
    fn label(&self) -> &str {
        &self.base
    }

    fn find(&self, _session: &Session, name: &OsStr, _until: Instant) -> Result<Found, Failure> {
        Ok(Found::at(format!("{}{}", self.base, escape(name))))
    }

    fn front(&self) -> &str {
        &self.base
    }
}

/// The address of a directory, without anything that would be secret.
pub fn directory(url: &str) -> Result<Uri> {
    let authority = url.split("://").nth(1).unwrap_or_default();
    if authority
        .split('/')
        .next()
        .unwrap_or_default()
        .contains('@')
    {
        // Not with the address: it would be in every log.
        bail!("a source with a user name and a password in its address: put these into a file (password-file)");
    }
    let uri: Uri = url.parse().with_context(|| format!("the source {url}"))?;
    ensure!(
        uri.host().is_some_and(|host| !host.is_empty()) && !url.contains(['?', '#']),
        "the source {url} is not the address of a directory"
    );
    Ok(uri)
}

impl Http {
    /// Names a directory of a web server that everybody may read. Nobody is asked yet.
    pub fn new(url: &str, client: Client) -> Result<Self> {
        let advice = "see password-file and token-file";
        Self::with_access(url, client, Box::new(Anybody { advice }))
    }

    /// Names a directory of a web server, and who asks for it.
    pub fn with_access(url: &str, client: Client, access: Box<dyn Access>) -> Result<Self> {
        let session = Session::new(client, &directory(url)?, access);
        let base = format!("{}/", url.trim_end_matches('/'));
        Ok(Self::with_places(Box::new(Directory { base }), session))
    }

    /// Names files wherever they are.
    pub fn with_places(places: Box<dyn Places>, session: Session) -> Self {
        Self(Arc::new(Inner { places, session }))
    }
}

impl Source for Http {
    fn label(&self) -> &str {
        self.0.places.label()
    }

    fn file(&self, name: &str, most: u64, until: Instant) -> Result<Vec<u8>, Failure> {
        let Inner { places, session } = &*self.0;
        let Found { url, digest } = places.find(session, OsStr::new(name), until)?;
        let answer = session.ask(&Ask::get(&url), until)?;
        answer
            .check(StatusCode::OK)
            .map_err(|failure| failure.context(&url))?;
        let bytes = answer.bytes(&url, most)?;
        match digest.filter(|digest| *digest != Digest::of(&bytes)) {
            None => Ok(bytes),
            Some(digest) => Err(Failure::lasting(anyhow!(
                "{url} is damaged: its digest is not {digest}"
            ))),
        }
    }

    fn blob(&self, name: &OsStr, size: u64) -> Result<Box<dyn Ranges>, Failure> {
        Ok(Box::new(HttpBlob {
            source: self.clone(),
            name: name.to_owned(),
            size,
            moved: Mutex::default(),
        }))
    }

    fn itself(&self, until: Instant) -> Result<Itself, Failure> {
        self.0.places.itself(&self.0.session, until)
    }

    fn probe(&self, until: Instant) -> Result<(), Failure> {
        let Inner { places, session } = &*self.0;
        let answer = session.ask(&Ask::get(places.front()), until)?;
        if let Some(failure) = answer.overload() {
            return Err(failure);
        }
        // A directory need not have a page of its own: any answer shows that somebody is there, unless it is for others.
        match &answer.refused {
            Some(refused) if refused.everything => Err(Failure::lasting(anyhow!(
                "the server answers {}: {}",
                answer.response.status(),
                refused.why
            ))),
            _ => Ok(()),
        }
    }

    fn reload(&self) -> Result<bool> {
        let Inner { places, session } = &*self.0;
        places.forget();
        session.reload()
    }
}

/// A blob on a web server.
#[derive(Debug)]
struct HttpBlob {
    source: Http,
    name: OsString,
    size: u64,
    /// Where the server has sent us to, until that fails.
    moved: Mutex<Option<Elsewhere>>,
}

impl Ranges for HttpBlob {
    fn range(&self, range: Range<u64>, how: &How) -> Result<Box<dyn Stream + '_>, Failure> {
        let Inner { places, session } = &*self.source.0;
        let url = places.find(session, &self.name, how.until)?.url;
        if let Some(moved) = self.moved().filter(|_| !how.fresh) {
            // Why it fails does not matter: whoever has sent us there knows better.
            match self.ask(moved.reveal(), &range, how) {
                Ok((answer, length)) => return Ok(self.stream(url, answer, length, &range)),
                Err(_) => self.set_moved(None),
            }
        }
        let (mut answer, length) = self
            .ask(&url, &range, how)
            .map_err(|failure| failure.context(&url))?;
        self.set_moved(answer.moved.take());
        Ok(self.stream(url, answer, length, &range))
    }
}

impl HttpBlob {
    /// Asks for a range. Tells the length of the answer if the server does.
    fn ask(
        &self,
        url: &str,
        range: &Range<u64>,
        how: &How,
    ) -> Result<(Answer, Option<u64>), Failure> {
        let last = range.end.saturating_sub(1);
        let wanted = format!("bytes={}-{last}", range.start);
        let mut ask = Ask::get(url);
        ask.headers.push((header::RANGE, &wanted));
        if how.fresh {
            ask.headers.push((header::CACHE_CONTROL, "no-cache"));
        }
        let answer = self.source.0.session.ask(&ask, how.until)?;
        let length = self.check(&answer, range)?;
        Ok((answer, length))
    }

    fn stream(
        &self,
        url: String,
        answer: Answer,
        length: Option<u64>,
        range: &Range<u64>,
    ) -> Box<dyn Stream + '_> {
        Box::new(HttpStream {
            blob: self,
            url,
            body: answer.response.into_body().into_reader(),
            left: range.end.saturating_sub(range.start),
            // Looking for the end is free then, and only then.
            ends_by_itself: length.is_some(),
        })
    }

    /// Whether an answer is about the range that was asked for, and nothing else. Tells its length if the server does.
    fn check(&self, answer: &Answer, range: &Range<u64>) -> Result<Option<u64>, Failure> {
        let size = self.size;
        let response = &answer.response;
        if response.status() == StatusCode::OK {
            // All of it, which is as good if all of it was asked for.
            if *range != (0..size) {
                return Err(Failure::lasting(anyhow!(
                    "the server does not know ranges: it answers with the whole file"
                )));
            }
            answer.check(StatusCode::OK)?;
        } else {
            answer.check(StatusCode::PARTIAL_CONTENT)?;
            let said = text(response, &header::CONTENT_RANGE);
            let last = range.end.saturating_sub(1);
            let right = format!("bytes {}-{last}/{size}", range.start);
            let unsure = format!("bytes {}-{last}/*", range.start);
            if said != right && said != unsure {
                return Err(Failure::lasting(anyhow!(
                    "the server answers with another range: {said:?} instead of {right:?}"
                )));
            }
        }
        let length = response.body().content_length();
        let right = range.end.saturating_sub(range.start);
        match length {
            Some(length) if length != right => Err(Failure::lasting(anyhow!(
                "the server wants to send {length} bytes instead of {right}"
            ))),
            length => Ok(length),
        }
    }

    fn moved(&self) -> Option<Elsewhere> {
        let moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        moved.clone()
    }

    fn set_moved(&self, to: Option<Elsewhere>) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = to;
    }
}

/// The bytes of an answer.
struct HttpStream<'a> {
    blob: &'a HttpBlob,
    url: String,
    body: BodyReader<'static>,
    left: u64,
    ends_by_itself: bool,
}

impl Stream for HttpStream<'_> {
    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), Failure> {
        self.body.read_exact(bytes).map_err(|error| {
            self.blob.set_moved(None);
            io_failure(error).context(&self.url)
        })?;
        self.left = self.left.saturating_sub(bytes.len() as u64);
        if self.left == 0 && self.ends_by_itself {
            // A connection whose answer was read to its end is kept for the next request.
            let _ = self.body.read(&mut [0]);
        }
        Ok(())
    }
}

/// A name as it stands in an address.
pub fn escape(name: &OsStr) -> Cow<'_, str> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    match name.to_str() {
        Some(name) if name.as_bytes().iter().all(plain) => Cow::Borrowed(name),
        _ => name
            .as_bytes()
            .iter()
            .map(|byte| match plain(byte) {
                true => char::from(*byte).to_string(),
                false => format!("%{byte:02X}"),
            })
            .collect::<Vec<_>>()
            .concat()
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        for (name, escaped) in [
            ("app-1.0_x~.img", "app-1.0_x~.img"),
            ("a b", "a%20b"),
            ("a%2f?#", "a%252f%3F%23"),
            ("\u{e9}", "%C3%A9"),
        ] {
            assert_eq!(escape(OsStr::new(name)), escaped);
        }
    }
}
