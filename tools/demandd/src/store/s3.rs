// SPDX-License-Identifier: GPL-2.0
//! A bucket of S3 that images are pushed to.
//!
//! A large file goes in parts (a "multipart upload" of the S3 API): S3 takes no more than 5 GiB at a time, and what goes
//! wrong costs one part. Until all of them are there, and are tied together, there is no such object.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::time::Instant;

use anyhow::{anyhow, Context, Result};
use ureq::http::{header, HeaderName, Method, StatusCode};

use super::{digest_of, head, other, retry, soon, Item, Store, LONG_PATIENCE};
use crate::log;
use crate::source::http::client::{Ask, Payload};
use crate::source::http::escape;
use crate::source::http::session::{text, Answer, Session};
use crate::source::s3::{element, Bucket};
use crate::source::Failure;

/// What goes in one piece, in bytes. S3 takes up to 5 GiB.
pub const PART: u64 = 512 << 20;

/// The most parts that S3 takes.
const PARTS_MAX: u64 = 10_000;

/// The largest answer to what is not about the bytes of an object, in bytes.
const ANSWER_MAX: u64 = 64 << 10;

/// Where S3 keeps the digest of an object for us.
const DIGEST: HeaderName = HeaderName::from_static("x-amz-meta-sha256");

/// A bucket of S3.
#[derive(Debug)]
pub struct S3 {
    /// The bucket.
    pub bucket: Bucket,
    /// Its server.
    pub session: Session,
    /// What goes in one piece, in bytes: from 5 MiB to 5 GiB.
    pub part: u64,
}

impl Store for S3 {
    fn has(&self, item: &Item) -> Result<bool, Failure> {
        let url = self.bucket.object(OsStr::new(&item.name));
        let Some(answer) = head(&self.session, &url)? else {
            return Ok(false);
        };
        let size = text(&answer.response, &header::CONTENT_LENGTH);
        let digest = text(&answer.response, &DIGEST);
        // Somebody else may have put it there.
        let same = digest.is_empty() || digest == item.digest.to_string();
        match same && size == item.size.to_string() {
            true => Ok(true),
            false => Err(other(item, &self.bucket.to_string())),
        }
    }

    fn put(&self, item: &Item, file: &File) -> Result<(), Failure> {
        let Item { size, digest, .. } = *item;
        let url = self.bucket.object(OsStr::new(&item.name));
        if size > self.part {
            return self.put_parts(item, file, &url);
        }
        let known = digest.to_string();
        let mut ask = Ask::get(&url);
        ask.method = Method::PUT;
        ask.headers.push((DIGEST, &known));
        ask.payload = Payload::File {
            file,
            offset: 0,
            size,
            digest,
        };
        self.work(ask).map(drop)
    }
}

impl S3 {
    fn put_parts(&self, item: &Item, file: &File, url: &str) -> Result<(), Failure> {
        let known = item.digest.to_string();
        let begin = format!("{url}?uploads=");
        let mut ask = Ask::get(&begin);
        ask.method = Method::POST;
        ask.headers.push((DIGEST, &known));
        ask.payload = Payload::Bytes(&[]);
        let said = self.work(ask)?.bytes(&begin, ANSWER_MAX)?;
        let said = String::from_utf8_lossy(&said);
        let id = element(&said, "UploadId").filter(|id| !id.is_empty());
        let id = id
            .with_context(|| format!("{url}: the server does not say which upload it has begun"))
            .map_err(Failure::lasting)?;
        let upload = format!("uploadId={}", escape(OsStr::new(id)));
        let put = self.parts(item, file, url, &upload);
        if put.is_err() {
            // The server would keep the parts for ever.
            let whole = format!("{url}?{upload}");
            let mut ask = Ask::get(&whole);
            ask.method = Method::DELETE;
            let answer = self.session.ask(&ask, soon());
            let ended = answer.and_then(|answer| answer.check(StatusCode::NO_CONTENT));
            if let Err(failure) = ended {
                log!("{url}: parts are left behind: {:#}", failure.error);
            }
        }
        // Each part was tried several times.
        put.map_err(Failure::lasting)
    }

    fn parts(&self, item: &Item, file: &File, url: &str, upload: &str) -> Result<()> {
        let size = self.part.max(item.size.div_ceil(PARTS_MAX));
        let mut all = String::from("<CompleteMultipartUpload>");
        let mut start = 0;
        let mut number = 0;
        while start < item.size {
            let end = item.size.min(start.saturating_add(size));
            number += 1;
            let tag = self
                .part(file, start..end, url, &format!("{number}&{upload}"))
                .with_context(|| format!("part {number}"))?;
            let _ = write!(
                all,
                "<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"
            );
            start = end;
        }
        all += "</CompleteMultipartUpload>";
        let whole = format!("{url}?{upload}");
        retry(&item.name, || {
            let mut ask = Ask::get(&whole);
            ask.method = Method::POST;
            ask.payload = Payload::Bytes(all.as_bytes());
            let said = match self.work(ask) {
                // It may have been done, and only the answer was lost.
                Err(failure) => match self.has(item)? {
                    true => return Ok(()),
                    false => return Err(failure),
                },
                Ok(answer) => answer.bytes(&whole, ANSWER_MAX)?,
            };
            // A server begins to answer before it knows how that ends.
            match element(&String::from_utf8_lossy(&said), "Code") {
                Some(code) => Err(Failure::passing(anyhow!("{url}: the server says {code:?}"))),
                None => Ok(()),
            }
        })
    }

    /// Sends a part; returns what the server knows it by.
    fn part(&self, mut file: &File, range: Range<u64>, url: &str, number: &str) -> Result<String> {
        let offset = range.start;
        let size = range.end.saturating_sub(offset);
        file.seek(SeekFrom::Start(offset))?;
        let digest = digest_of(file.take(size))?;
        let to = format!("{url}?partNumber={number}");
        retry(url, || {
            let mut ask = Ask::get(&to);
            ask.method = Method::PUT;
            ask.payload = Payload::File {
                file,
                offset,
                size,
                digest,
            };
            let answer = self.work(ask)?;
            let tag = text(&answer.response, &header::ETAG);
            // It goes into XML.
            match tag.is_empty() || tag.contains(['<', '&']) {
                true => Err(Failure::lasting(anyhow!("{url}: a part without a mark"))),
                false => Ok(tag.to_owned()),
            }
        })
    }

    /// Asks for something that takes its time.
    fn work(&self, mut ask: Ask<'_>) -> Result<Answer, Failure> {
        ask.is_work = true;
        let answer = self.session.ask(&ask, Instant::now() + LONG_PATIENCE)?;
        answer
            .check(StatusCode::OK)
            .map_err(|failure| failure.context(ask.url))?;
        Ok(answer)
    }
}
