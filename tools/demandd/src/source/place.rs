// SPDX-License-Identifier: GPL-2.0
//! Naming a source: a directory, or an address and what is special about it, `ADDRESS KEY=VALUE ...`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};

use super::directory::Directory;
use super::http::access::{Access, Header};
use super::http::secret::{bearer, Login, SecretFile};
use super::http::session::Session;
use super::http::{self, Client, Http, Options};
use super::mirror::Mirrors;
use super::oci::logins::Logins;
use super::oci::{self, Image, Reference};
use super::s3::{Bucket, Key};
use super::{Itself, Source};
use crate::digest::Digest;
use crate::store::{self, s3, Store};

/// What every address can have.
const COMMON: [&str; 3] = ["proxy", "proxy-password-file", "ca-file"];

/// What the address of a web server can have.
const WEB: [&str; 2] = ["password-file", "token-file"];

/// What a bucket of S3 can have.
const S3: [&str; 4] = ["endpoint", "region", "style", "key-file"];

/// What an image in a registry can have.
const OCI: [&str; 2] = ["auth-file", "plain-http"];

/// The keys whose values are paths.
const FILES: [&str; 6] = [
    "proxy-password-file",
    "ca-file",
    "password-file",
    "token-file",
    "key-file",
    "auth-file",
];

/// A source that somebody has named. Nobody has been asked for anything yet.
#[derive(Clone, Debug)]
pub struct Place {
    name: OsString,
    settings: BTreeMap<String, String>,
}

/// What kind of source a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Directory,
    Web,
    S3,
    Oci,
}

impl Scheme {
    fn of(name: &OsStr) -> Self {
        let is = |scheme: &[u8]| {
            let bytes = name.as_bytes();
            let rest = bytes.get(scheme.len()..).unwrap_or_default();
            rest.starts_with(b"://")
                && bytes
                    .get(..scheme.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        };
        if is(b"http") || is(b"https") {
            Self::Web
        } else if is(b"s3") {
            Self::S3
        } else if is(b"oci") {
            Self::Oci
        } else {
            Self::Directory
        }
    }

    /// Checks an address.
    fn check(self, name: &str) -> Result<()> {
        match self {
            Self::Directory => Ok(()),
            Self::Web => http::directory(name).map(drop),
            Self::S3 => Bucket::new(name, None, None, None).map(drop),
            Self::Oci => Reference::parse(name).map(drop),
        }
    }

    /// The keys of its settings, besides the common ones.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Directory => &[],
            Self::Web => &WEB,
            Self::S3 => &S3,
            Self::Oci => &OCI,
        }
    }
}

/// An image as somebody names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `NAME` or `PLACE/NAME`, both perhaps with `@DIGEST`.
    Named {
        /// The name, and the digest.
        name: String,
        /// The place that has it.
        place: Option<OsString>,
    },
    /// A place that is the image: one of a registry, `oci://HOST/IMAGE`.
    Itself(OsString),
}

/// Takes a name apart from the place before it. Neither a name nor a digest has a slash. The settings of an address stand
/// behind the name.
impl From<&str> for Address {
    fn from(text: &str) -> Self {
        let scheme = Scheme::of(text.as_ref());
        if scheme == Scheme::Oci {
            return Self::Itself(text.into());
        }
        let is_address = scheme != Scheme::Directory;
        let (text, settings) = match text.split_once(char::is_whitespace) {
            Some((address, settings)) if is_address => (address, format!(" {settings}")),
            _ => (text, String::new()),
        };
        let (place, name) = match text.rsplit_once('/') {
            Some(("", name)) => (Some("/"), name),
            Some((place, name)) => (Some(place), name),
            None => (None, text),
        };
        Self::Named {
            name: name.to_owned(),
            place: place.map(|place| format!("{place}{settings}").into()),
        }
    }
}

impl Address {
    /// The place, if there is one.
    pub fn place(&self) -> Option<&OsStr> {
        match self {
            Self::Named { place, .. } => place.as_deref(),
            Self::Itself(place) => Some(place),
        }
    }

    /// The same, with the place as it is understood from anywhere.
    pub fn full(&self) -> Result<Self> {
        let full = |place: &OsString| Place::parse(place)?.full();
        Ok(match self {
            Self::Named { name, place } => Self::Named {
                name: name.clone(),
                place: place.as_ref().map(full).transpose()?,
            },
            Self::Itself(place) => Self::Itself(full(place)?),
        })
    }

    /// The name and the place. A place that is the image is asked, and is known by its digest from then on; `mirrors` is
    /// that place.
    pub fn look_up(&self, mirrors: Option<&Mirrors>) -> Result<(String, Option<OsString>)> {
        match self {
            Self::Named { name, place } => Ok((name.clone(), place.clone())),
            Self::Itself(place) => {
                let Itself { image, digest } = mirrors.context("there is no source")?.itself()?;
                let pinned = Place::parse(place)?.pinned(&digest)?;
                Ok((image.to_string(), Some(pinned)))
            }
        }
    }
}

/// Without what may be secret.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named { name, .. } => f.write_str(name),
            Self::Itself(place) => match Place::parse(place) {
                Ok(place) => write!(f, "{}", Path::new(&place.name).display()),
                Err(_) => f.write_str("an image"),
            },
        }
    }
}

impl Place {
    /// Reads a name. A directory has no settings, so that its name may have spaces. Errors do not quote what may be secret.
    pub fn parse(text: &OsStr) -> Result<Self> {
        let scheme = Scheme::of(text);
        if scheme == Scheme::Directory {
            let kind = text.to_str().and_then(|text| text.split_once("://"));
            if let Some((kind, _)) = kind.filter(|(kind, _)| !kind.contains('/')) {
                bail!("there are no sources of the kind {kind:?}");
            }
            return Ok(Self {
                name: text.to_owned(),
                settings: BTreeMap::new(),
            });
        }
        let text = text.to_str().context("an address is text")?;
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or_default();
        scheme.check(name)?;
        let mut settings = BTreeMap::new();
        for word in words {
            // It could be a password that has a space.
            let (key, value) = word
                .split_once('=')
                .context("what stands behind an address is KEY=VALUE")?;
            let known = || COMMON.iter().chain(scheme.keys()).copied();
            if !known().any(|known| known == key) {
                let known: Vec<_> = known().collect();
                bail!(
                    "there is no key {key:?} for {name}; the keys are: {}",
                    known.join(", ")
                );
            }
            ensure!(!value.is_empty(), "{key:?} of {name} has no value");
            let before = settings.insert(key.to_owned(), value.to_owned());
            ensure!(before.is_none(), "{key:?} of {name} is there twice");
        }
        ensure!(
            !WEB.iter().all(|key| settings.contains_key(*key)),
            "{name} has a password-file and a token-file: one of them"
        );
        Ok(Self {
            name: name.into(),
            settings,
        })
    }

    /// Whether it is a directory of this machine.
    pub fn is_directory(&self) -> bool {
        Scheme::of(&self.name) == Scheme::Directory
    }

    /// The directory, or the address.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// The same place as it is understood from anywhere: with the paths of files in full.
    pub fn full(&self) -> Result<OsString> {
        if self.is_directory() {
            let path = Path::new(&self.name).canonicalize();
            let path =
                path.with_context(|| format!("no source {}", Path::new(&self.name).display()))?;
            return Ok(path.into_os_string());
        }
        let mut place = self.clone();
        for (key, value) in &mut place.settings {
            if FILES.contains(&key.as_str()) {
                let path = std::path::absolute(&*value)?.into_os_string();
                let path = path.into_string().ok();
                let path = path.filter(|path| !path.contains(char::is_whitespace));
                *value = path.with_context(|| format!("the path of {key} has a space"))?;
            }
        }
        Ok(place.text())
    }

    /// The same place, an image of a registry, by the digest that it has there: it is this image whatever becomes of a tag.
    pub fn pinned(&self, digest: &Digest) -> Result<OsString> {
        let name = self.name.to_str().context("an address is text")?;
        let place = Self {
            name: Reference::parse(name)?.pinned(digest).to_string().into(),
            settings: self.settings.clone(),
        };
        Ok(place.text())
    }

    /// As [`Place::parse`] reads it.
    fn text(&self) -> OsString {
        let mut text = self.name.clone();
        for (key, value) in &self.settings {
            text.push(format!(" {key}={value}"));
        }
        text
    }

    /// The source. Credentials are read, and nobody is asked for anything. `options` are for what the place does not say
    /// itself.
    pub fn open(&self, options: &Options) -> Result<Box<dyn Source>> {
        let scheme = Scheme::of(&self.name);
        if scheme == Scheme::Directory {
            return Ok(Box::new(Directory::new(Path::new(&self.name))?));
        }
        let name = self.name.to_str().context("an address is text")?;
        let open = || -> Result<Box<dyn Source>> {
            let client = Client::new(&self.options(options))?;
            Ok(match scheme {
                Scheme::Directory => bail!("it is no address"),
                Scheme::Web => match self.header()? {
                    Some(access) => Box::new(Http::with_access(name, client, access)?),
                    None => Box::new(Http::new(name, client)?),
                },
                Scheme::S3 => {
                    let (bucket, session) = self.bucket(name, client)?;
                    Box::new(Http::with_places(Box::new(bucket), session))
                }
                Scheme::Oci => {
                    let (image, session) = self.image(name, client)?;
                    Box::new(Http::with_places(Box::new(image), session))
                }
            })
        };
        open().with_context(|| format!("the source {name}"))
    }

    /// What images can be pushed to.
    pub fn store(&self, options: &Options) -> Result<Box<dyn Store>> {
        let scheme = Scheme::of(&self.name);
        if scheme == Scheme::Directory {
            return Ok(Box::new(store::Directory::new(Path::new(&self.name))?));
        }
        let name = self.name.to_str().context("an address is text")?;
        let open = || -> Result<Box<dyn Store>> {
            let client = Client::new(&self.options(options))?;
            Ok(match scheme {
                Scheme::S3 => {
                    let (bucket, session) = self.bucket(name, client)?;
                    Box::new(s3::S3 {
                        bucket,
                        session,
                        part: s3::PART,
                    })
                }
                Scheme::Oci => {
                    let (image, session) = self.image(name, client)?;
                    Box::new(store::Registry::new(image, session)?)
                }
                Scheme::Directory | Scheme::Web => {
                    bail!("images are pushed to directories, S3 and registries")
                }
            })
        };
        open().with_context(|| format!("the place {name}"))
    }

    fn bucket(&self, name: &str, client: Client) -> Result<(Bucket, Session)> {
        let [endpoint, region, style] = ["endpoint", "region", "style"].map(|key| self.get(key));
        let bucket = Bucket::new(name, endpoint, region, style)?;
        let key = self.get("key-file");
        let key = key
            .map(|file| SecretFile::open(Path::new(file), Key::parse))
            .transpose()?;
        let session = Session::new(client, &bucket.uri()?, bucket.access(key));
        Ok((bucket, session))
    }

    fn image(&self, name: &str, client: Client) -> Result<(Image, Session)> {
        let plain = match self.get("plain-http") {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => bail!("plain-http is true or false"),
        };
        let image = Image::new(name, plain)?;
        let file = self.get("auth-file").map(PathBuf::from);
        let file = file.or_else(oci::logins::usual_file);
        let file = file
            .map(|file| SecretFile::open(&file, Logins::parse))
            .transpose()?;
        let session = Session::new(client, &image.uri()?, image.access(file));
        Ok((image, session))
    }

    fn options(&self, options: &Options) -> Options {
        let mut options = options.clone();
        if let Some(proxy) = self.get("proxy") {
            options.proxy = Some(proxy.to_owned()).filter(|proxy| proxy != "none");
            options.proxy.get_or_insert_default();
            // The password is for another one.
            options.proxy_password_file = None;
        }
        if let Some(file) = self.get("proxy-password-file") {
            options.proxy_password_file = Some(PathBuf::from(file));
        }
        if let Some(file) = self.get("ca-file") {
            options.ca_file = Some(PathBuf::from(file));
        }
        options
    }

    fn header(&self) -> Result<Option<Box<dyn Access>>> {
        let login = |text: &str| Ok(Login::parse(text)?.basic());
        let file = match (self.get("password-file"), self.get("token-file")) {
            (Some(file), _) => SecretFile::open(Path::new(file), login)?,
            (_, Some(file)) => SecretFile::open(Path::new(file), bearer)?,
            _ => return Ok(None),
        };
        Ok(Some(Box::new(Header(file))))
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.settings.get(key).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_settings_behind_it() {
        let place = Place::parse("https://host/dir proxy=none  token-file=/a".as_ref()).unwrap();
        assert_eq!(place.name(), "https://host/dir");
        assert_eq!(place.get("token-file"), Some("/a"));
        assert!(!place.is_directory());
        let place = Place::parse("/a directory proxy=none".as_ref()).unwrap();
        assert_eq!(place.name(), "/a directory proxy=none");
        assert!(place.is_directory());
    }

    #[test]
    fn an_image_has_a_place_and_a_name_or_is_a_place() {
        for (text, name, place) in [
            ("app", "app", None),
            ("/app", "app", Some("/")),
            ("a b/app@sha256:0", "app@sha256:0", Some("a b")),
            ("https://h/a/app", "app", Some("https://h/a")),
            (
                "s3://bucket/app@sha256:0 endpoint=http://h/x key-file=/k",
                "app@sha256:0",
                Some("s3://bucket endpoint=http://h/x key-file=/k"),
            ),
        ] {
            let expected = Address::Named {
                name: name.to_owned(),
                place: place.map(OsString::from),
            };
            assert_eq!(Address::from(text), expected);
        }
        let text = "oci://h/a/app:1 plain-http=true";
        assert_eq!(Address::from(text), Address::Itself(text.into()));
    }

    #[test]
    fn a_place_is_the_same_from_anywhere() {
        let here = std::env::current_dir().unwrap();
        let full = Place::parse("s3://b key-file=k region=r".as_ref()).unwrap();
        let expected = format!("s3://b key-file={}/k region=r", here.display());
        assert_eq!(full.full().unwrap(), *expected);
        assert_eq!(Place::parse(".".as_ref()).unwrap().full().unwrap(), here);
    }

    #[test]
    fn an_image_of_a_registry_can_be_named_by_its_digest() {
        let digest = Digest::of(b"");
        for (text, expected) in [
            ("oci://h/a", format!("oci://h/a:latest@{digest}")),
            (
                "oci://h:1/a:b plain-http=true",
                format!("oci://h:1/a:b@{digest} plain-http=true"),
            ),
        ] {
            let place = Place::parse(text.as_ref()).unwrap();
            assert_eq!(place.pinned(&digest).unwrap(), *expected);
            Place::parse(expected.as_ref()).unwrap();
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for (text, expected) in [
            ("http://host/ colour=1", "there is no key \"colour\""),
            ("http://host/ proxy", "KEY=VALUE"),
            ("http://host/ proxy=", "has no value"),
            ("http://host/ proxy=a proxy=b", "twice"),
            ("http://host/ password-file=a token-file=b", "one of them"),
            ("http://user:secret@host/", "password-file"),
            ("http://user:secret@host/ colour=1", "password-file"),
            ("s3://", "s3://BUCKET/PREFIX"),
            ("oci://host", "oci://HOST/IMAGE"),
            ("oci://user:secret@host/image", "oci://HOST/IMAGE"),
            ("s3://bucket password-file=a", "no key"),
            ("htps://user:secret@host/", "of the kind \"htps\""),
        ] {
            let error = format!("{:#}", Place::parse(text.as_ref()).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
