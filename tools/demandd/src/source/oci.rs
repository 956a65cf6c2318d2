// SPDX-License-Identifier: GPL-2.0
//! An image in an OCI registry as a source. `Documentation/manifest.md` tells how it is stored there.
//!
//! An image manifest names the files as layers, with their digests: with that a file's address is known, and the registry,
//! or whatever that sends to, is a web server like any other.

pub mod auth;
mod helper;
pub mod logins;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{anyhow, bail, ensure, Context, Result};
use serde_json::{json, Value};
use ureq::http::{header, StatusCode, Uri};

use self::auth::Registry;
use self::logins::Logins;
use super::http::access::Access;
use super::http::client::Ask;
use super::http::secret::SecretFile;
use super::http::session::Session;
use super::http::{Found, Places};
use super::{Failure, Itself};
use crate::digest::Digest;
use crate::manifest::{image_of, Wanted};

/// The largest manifest that registries have to take, in bytes.
const MANIFEST_MAX: u64 = 4 << 20;

/// What a manifest is.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What the whole is.
const ARTIFACT: &str = "application/vnd.erofs-demand.image.v1";

/// A configuration that has nothing to say, and that itself.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The bytes of that.
pub const EMPTY_BYTES: &[u8] = b"{}";

/// Where a layer has the name of its file.
const TITLE: &str = "org.opencontainers.image.title";

/// Which image of which registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    host: String,
    name: String,
    /// Empty if there is a digest only.
    tag: String,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads `oci://HOST/IMAGE`, perhaps with a tag or a digest behind it.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = "an image of a registry is oci://HOST/IMAGE, oci://HOST/IMAGE:TAG or oci://HOST/IMAGE@sha256:DIGEST";
        let rest = text.split_once("://").map_or("", |(_, rest)| rest);
        let (host, rest) = rest.split_once('/').context(bad)?;
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().context(bad)?)),
            None => (rest, None),
        };
        let (name, tag) = match rest.split_once(':') {
            Some((name, tag)) => (name, tag),
            None if digest.is_some() => (rest, ""),
            None => (rest, "latest"),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
        ensure!(!host.is_empty() && host.bytes().all(plain), bad);
        let plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        let is_part =
            |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain);
        ensure!(name.split('/').all(is_part), bad);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        ensure!(
            tag.len() <= 128 && tag.bytes().all(plain) && !tag.starts_with(['.', '-']),
            bad
        );
        ensure!(!tag.is_empty() || digest.is_some(), bad);
        Ok(Self {
            host: host.to_owned(),
            name: name.to_owned(),
            tag: tag.to_owned(),
            digest,
        })
    }

    /// The same image by its digest.
    pub fn pinned(&self, digest: &Digest) -> Self {
        Self {
            digest: Some(*digest),
            ..self.clone()
        }
    }
}

/// As [`Reference::parse`] reads it.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            name,
            tag,
            digest,
        } = self;
        write!(f, "oci://{host}/{name}")?;
        if !tag.is_empty() {
            write!(f, ":{tag}")?;
        }
        digest.map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

/// A file of an image: a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// What it is.
    pub kind: String,
    /// The name of the file.
    pub name: String,
    /// The digest of it.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Writes the manifest of an image that has these files.
pub fn manifest(layers: &[Layer]) -> Vec<u8> {
    let layer = |layer: &Layer| {
        json!({
            "mediaType": layer.kind,
            "digest": layer.digest.to_string(),
            "size": layer.size,
            "annotations": { TITLE: layer.name },
        })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": {
            "mediaType": EMPTY,
            "digest": Digest::of(EMPTY_BYTES).to_string(),
            "size": EMPTY_BYTES.len(),
        },
        "layers": layers.iter().map(layer).collect::<Vec<_>>(),
    });
    manifest.to_string().into_bytes()
}

/// What the manifest of an image says.
#[derive(Debug)]
struct Files {
    /// The digest of the manifest.
    manifest: Digest,
    /// The digests of files by their names.
    digests: HashMap<String, Digest>,
}

impl Files {
    /// The image of which these are the files.
    fn image(&self) -> Result<Wanted> {
        let mut images = self.digests.iter().filter_map(|(file, digest)| {
            Some(Wanted {
                name: image_of(file)?.to_owned(),
                digest: Some(*digest),
            })
        });
        match (images.next(), images.next()) {
            (Some(image), None) => Ok(image),
            (None, _) => bail!("it has no manifest of an image"),
            _ => bail!("it has manifests of several images"),
        }
    }
}

/// Reads a manifest: the digests of files by their names.
fn files(bytes: &[u8]) -> Result<HashMap<String, Digest>> {
    let manifest: Value = serde_json::from_slice(bytes).context("it is not JSON")?;
    if manifest.get("manifests").is_some() {
        bail!("it is an index of several images: name one of them by its digest");
    }
    let layers = manifest.get("layers").and_then(Value::as_array);
    let mut files = HashMap::new();
    for layer in layers.context("it has no layers")? {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let title = layer.get("annotations").and_then(|all| all.get(TITLE));
        // Others may have layers for other purposes.
        let Some(name) = text(title) else { continue };
        let digest = text(layer.get("digest")).context("a layer has no digest")?;
        let before = files.insert(name, digest.parse::<Digest>()?);
        ensure!(before.is_none(), "two layers are one file");
    }
    ensure!(
        !files.is_empty(),
        "no layer is a file: it is not an image of `demandd image push`"
    );
    Ok(files)
}

/// An image of a registry.
#[derive(Debug)]
pub struct Image {
    label: String,
    reference: Reference,
    /// The repository, with a slash at the end.
    base: String,
    /// The address of the manifest.
    front: String,
    files: Mutex<Option<Arc<Files>>>,
}

impl Image {
    /// Names an image. Nobody is asked yet.
    pub fn new(text: &str, plain_http: bool) -> Result<Self> {
        let reference = Reference::parse(text)?;
        let Reference {
            host,
            name,
            tag,
            digest,
        } = &reference;
        let scheme = if plain_http { "http" } else { "https" };
        let base = format!("{scheme}://{host}/v2/{name}/");
        let last = digest.map_or_else(|| tag.clone(), |digest| digest.to_string());
        Ok(Self {
            label: text.to_owned(),
            front: format!("{base}manifests/{last}"),
            base,
            reference,
            files: Mutex::default(),
        })
    }

    /// The address of the repository.
    pub fn uri(&self) -> Result<Uri> {
        Ok(self.base.parse()?)
    }

    /// Who asks for it.
    pub fn access(&self, file: Option<SecretFile<Logins>>) -> Box<dyn Access> {
        let Reference { host, name, .. } = &self.reference;
        Box::new(Registry::new(format!("{host}/{name}"), file))
    }

    /// The address of a file.
    pub fn blob(&self, digest: &Digest) -> String {
        format!("{}blobs/{digest}", self.base)
    }

    /// Where uploads begin.
    pub fn uploads(&self) -> String {
        format!("{}blobs/uploads/", self.base)
    }

    /// The address of the manifest, if it has a name that can be given to another one.
    pub fn tagged(&self) -> Option<&str> {
        self.reference.digest.is_none().then_some(&self.front)
    }

    /// Gets the manifest, once.
    fn files(&self, session: &Session, until: Instant) -> Result<Arc<Files>, Failure> {
        let mut known = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(files) = &*known {
            return Ok(Arc::clone(files));
        }
        let mut ask = Ask::get(&self.front);
        ask.headers.push((header::ACCEPT, MANIFEST));
        let answer = session.ask(&ask, until)?;
        answer
            .check(StatusCode::OK)
            .map_err(|failure| failure.context(&self.front))?;
        let bytes = answer.bytes(&self.front, MANIFEST_MAX)?;
        let manifest = Digest::of(&bytes);
        let digest = self.reference.digest;
        if digest.is_some_and(|digest| digest != manifest) {
            let error = anyhow!("the manifest of {} has another digest", self.label);
            return Err(Failure::lasting(error));
        }
        let digests = files(&bytes)
            .with_context(|| format!("the manifest of {}", self.label))
            .map_err(Failure::lasting)?;
        let files = Arc::new(Files { manifest, digests });
        Ok(Arc::clone(known.insert(files)))
    }
}

impl Places for Image {
    fn label(&self) -> &str {
        &self.label
    }

    fn find(&self, session: &Session, name: &OsStr, until: Instant) -> Result<Found, Failure> {
        let files = self.files(session, until)?;
        let digest = name.to_str().and_then(|name| files.digests.get(name));
        let digest =
            digest.ok_or_else(|| Failure::lasting(anyhow!("{self} has no file {name:?}")))?;
        Ok(Found {
            url: self.blob(digest),
            digest: Some(*digest),
        })
    }

    fn itself(&self, session: &Session, until: Instant) -> Result<Itself, Failure> {
        let files = self.files(session, until)?;
        let image = files.image().with_context(|| self.label.clone());
        Ok(Itself {
            image: image.map_err(Failure::lasting)?,
            digest: files.manifest,
        })
    }

    fn front(&self) -> &str {
        &self.front
    }

    fn forget(&self) {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_has_a_tag_or_a_digest() {
        let digest = format!("sha256:{}", "0f".repeat(32));
        for (text, url) in [
            (
                "oci://h/a".to_owned(),
                "https://h/v2/a/manifests/latest".to_owned(),
            ),
            (
                "oci://h:5000/a/b.c:1.0".to_owned(),
                "https://h:5000/v2/a/b.c/manifests/1.0".to_owned(),
            ),
            (
                format!("oci://h/a@{digest}"),
                format!("https://h/v2/a/manifests/{digest}"),
            ),
            (
                format!("oci://h/a:1@{digest}"),
                format!("https://h/v2/a/manifests/{digest}"),
            ),
        ] {
            assert_eq!(Image::new(&text, false).unwrap().front, url);
        }
        for bad in [
            "oci://",
            "oci://h",
            "oci://h/",
            "oci://h/A",
            "oci://h/a//b",
            "oci://h/../a",
            "oci://h/a:",
            "oci://h/a:b/c",
            "oci://h/a@sha256:00",
            "oci:///a",
            "oci://u:p@h/a",
            "oci://h/a?b",
            "oci://h/a:-b",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_manifest_names_files() {
        let layer = |name: &str| Layer {
            kind: "x".to_owned(),
            name: name.to_owned(),
            digest: Digest::of(name.as_bytes()),
            size: 1,
        };
        let bytes = manifest(&[layer("a"), layer("b")]);
        let found = files(&bytes).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found["b"], Digest::of(b"b"));
        let twice = manifest(&[layer("a"), layer("a")]);
        for bad in [
            &b"x"[..],
            b"{}",
            b"{\"layers\": []}",
            b"{\"layers\": [{}]}",
            b"{\"manifests\": []}",
            b"{\"layers\": [{\"annotations\": {\"org.opencontainers.image.title\": \"a\"}, \"digest\": \"sha256:0\"}]}",
            &twice,
        ] {
            assert!(files(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
