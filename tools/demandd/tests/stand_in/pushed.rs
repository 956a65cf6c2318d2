// SPDX-License-Identifier: GPL-2.0
//! An image that is pushed to a place and read from it again.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use demandd::blobs::Blobs;
use demandd::image::build::describe;
use demandd::image::verify::{chunks, manifest};
use demandd::source::http::secret::SecretFile;
use demandd::source::http::session::Session;
use demandd::source::http::{Client, Options};
use demandd::source::mirror::Mirrors;
use demandd::source::place::Place;
use demandd::source::s3::{Bucket, Key};
use demandd::source::{Failure, Source};
use demandd::store::push;
use demandd::store::s3::S3;

use super::daemon::{options, Daemon, NEVER};
use super::{mirrors, Site};

pub const SIZE: u64 = 100_000;
pub const CHUNK: u64 = 16_384;

pub fn web_options() -> Options {
    Options {
        silence: Duration::from_secs(10),
        proxy: Some(String::new()),
        proxy_password_file: None,
        ca_file: None,
    }
}

pub fn open(place: &str) -> Box<dyn Source> {
    let place = Place::parse(place.as_ref()).unwrap();
    place.open(&web_options()).unwrap()
}

/// Reads the manifest of the image.
pub fn read_manifest(source: &dyn Source) -> Result<Vec<u8>, Failure> {
    source.file("a.manifest", 1000, Instant::now() + Duration::from_secs(30))
}

/// Why it cannot be read.
pub fn failure(place: &str) -> Failure {
    read_manifest(&*open(place)).unwrap_err()
}

/// An image in the site's source; its bytes.
pub fn image(site: &Site) -> Vec<u8> {
    let bytes = site.blob("a.img", SIZE);
    describe(&site.source_dir(), "a", &["a.img".to_owned()], CHUNK).unwrap();
    bytes
}

/// Pushes it; tells the files that were there already.
pub fn push_to(from: &Path, place: &str) -> Result<Vec<String>> {
    let store = Place::parse(place.as_ref())?.store(&web_options())?;
    let mut had = Vec::new();
    push(from, "a", &*store, |item, there| {
        had.extend(there.then(|| item.name.clone()));
        Ok(())
    })?;
    Ok(had)
}

/// A bucket that takes no more than `part` bytes at a time.
pub fn bucket(name: &str, endpoint: &str, key: &Path, part: u64) -> S3 {
    let client = Client::new(&web_options()).unwrap();
    let bucket = Bucket::new(name, Some(endpoint), None, None).unwrap();
    let key = SecretFile::open(key, Key::parse).unwrap();
    let session = Session::new(client, &bucket.uri().unwrap(), bucket.access(Some(key)));
    S3 {
        bucket,
        session,
        part,
    }
}

/// A daemon that serves it from there.
pub fn serve(site: &Site, place: &str) -> Daemon {
    let mirrors: Arc<Mirrors> = mirrors(vec![open(place)]);
    let manifest = manifest(&mirrors, &"a".parse().unwrap()).unwrap();
    let entry = &manifest.entries()[0];
    let chunks = chunks(&mirrors, entry).unwrap();
    site.volume().prepare_verified(entry, &chunks).unwrap();
    let blobs = Blobs::new(site.volume(), mirrors, 8, NEVER);
    Daemon::with_blobs(blobs, options(), |node| node)
}
