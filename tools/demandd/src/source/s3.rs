// SPDX-License-Identifier: GPL-2.0
//! S3 as a source: a web server whose files are the objects of a bucket, and whose requests are signed.

pub mod sigv4;

use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{bail, ensure, Context, Result};
use ureq::http::{header, HeaderName, StatusCode, Uri};

use self::sigv4::{authorization, hex, stamp, Scope, Signed};
use super::http::access::{Access, Refusal, Refused, Shown, Verdict};
use super::http::client::Ask;
use super::http::secret::{Secret, SecretFile};
use super::http::session::{text, Session};
use super::http::{directory, escape, Found, Places};
use super::Failure;

/// Where buckets are if nobody says anything else.
const REGION: &str = "us-east-1";

/// Of an answer that says why something is refused, so much is read, in bytes.
const REASON_MAX: u64 = 16 << 10;

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const PAYLOAD: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// A key of S3, from a file as AWS's own tools have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    id: Secret,
    secret: Secret,
    session: Option<Secret>,
}

impl Key {
    /// Reads the section `default` of a file, or the only one.
    pub fn parse(text: &str) -> Result<Self> {
        let mut sections: Vec<(&str, Vec<(&str, &str)>)> = vec![("", Vec::new())];
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            let title = line
                .strip_prefix('[')
                .and_then(|line| line.strip_suffix(']'));
            if let Some(title) = title {
                sections.push((title.trim(), Vec::new()));
                continue;
            }
            let (key, value) = line.split_once('=').context("a line is not KEY = VALUE")?;
            if let Some((_, pairs)) = sections.last_mut() {
                pairs.push((key.trim(), value.trim()));
            }
        }
        sections.retain(|(_, pairs)| !pairs.is_empty());
        let default = sections.iter().find(|(title, _)| *title == "default");
        let (_, pairs) = match (default, &sections[..]) {
            (Some(section), _) | (None, [section]) => section,
            _ => bail!("it has no section [default]"),
        };
        let get = |key: &str| {
            pairs
                .iter()
                .find(|(have, _)| *have == key)
                .map(|(_, value)| *value)
        };
        let need = |key: &'static str| get(key).filter(|value| !value.is_empty()).context(key);
        Ok(Self {
            id: Secret::new(need("aws_access_key_id")?),
            secret: Secret::new(need("aws_secret_access_key")?),
            session: get("aws_session_token").map(Secret::new),
        })
    }
}

/// Which bucket, and how it is reached.
#[derive(Clone, Debug)]
pub struct Bucket {
    label: String,
    /// Ends with a slash.
    base: String,
    region: String,
}

impl Bucket {
    /// Reads `s3://BUCKET/PREFIX`. `style` is "path" or "host".
    pub fn new(
        name: &str,
        endpoint: Option<&str>,
        region: Option<&str>,
        style: Option<&str>,
    ) -> Result<Self> {
        let rest = name.split_once("://").map_or("", |(_, rest)| rest);
        let (bucket, prefix) = rest
            .trim_end_matches('/')
            .split_once('/')
            .unwrap_or((rest, ""));
        let bucket = bucket.trim_end_matches('/');
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        ensure!(
            !bucket.is_empty() && bucket.bytes().all(plain),
            "a source of S3 is s3://BUCKET/PREFIX"
        );
        let region = region.unwrap_or(REGION);
        let by_host = match style {
            None => endpoint.is_none(),
            Some("host") => true,
            Some("path") => false,
            Some(_) => bail!("the style of {name} is \"path\" or \"host\""),
        };
        let aws = format!("https://s3.{region}.amazonaws.com");
        let endpoint = endpoint.unwrap_or(&aws).trim_end_matches('/');
        let uri = directory(endpoint)?;
        ensure!(
            uri.path() == "/" && matches!(uri.scheme_str(), Some("http" | "https")),
            "the endpoint {endpoint} is http://HOST or https://HOST"
        );
        let (scheme, host) = endpoint.split_once("://").unwrap_or_default();
        let mut base = match by_host {
            true => format!("{scheme}://{bucket}.{host}/"),
            false => format!("{endpoint}/{bucket}/"),
        };
        for part in prefix.split('/').filter(|part| !part.is_empty()) {
            base += &format!("{}/", escape(OsStr::new(part)));
        }
        Ok(Self {
            label: format!("{}/", name.trim_end_matches('/')),
            base,
            region: region.to_owned(),
        })
    }

    /// The address of all of it.
    pub fn uri(&self) -> Result<Uri> {
        directory(&self.base)
    }

    /// The address of an object.
    pub fn object(&self, name: &OsStr) -> String {
        format!("{}{}", self.base, escape(name))
    }

    /// Who asks for it: with a key, or as anybody.
    pub fn access(&self, key: Option<SecretFile<Key>>) -> Box<dyn Access> {
        Box::new(Signer {
            key,
            region: self.region.clone(),
        })
    }
}

impl Places for Bucket {
    fn label(&self) -> &str {
        &self.label
    }

    fn find(&self, _session: &Session, name: &OsStr, _until: Instant) -> Result<Found, Failure> {
        Ok(Found::at(self.object(name)))
    }

    fn front(&self) -> &str {
        &self.base
    }
}

/// Signs requests.
#[derive(Debug)]
struct Signer {
    key: Option<SecretFile<Key>>,
    region: String,
}

impl Access for Signer {
    fn show(&self, ask: &Ask<'_>, url: &Uri) -> Result<Shown, Failure> {
        let Some(file) = &self.key else {
            return Ok(Shown::default());
        };
        let (number, key) = file.get();
        let time = stamp(SystemTime::now());
        let payload = hex(ask.payload.digest().as_bytes());
        let mut headers = vec![
            (DATE, Secret::new(&time[..])),
            (PAYLOAD, Secret::new(&payload[..])),
        ];
        headers.extend(key.session.map(|session| (TOKEN, session)));
        let host = url.authority().map_or("", |authority| authority.as_str());
        let mut signed = vec![("host", host)];
        let own = ask.headers.iter();
        let own = own.filter(|(name, _)| name.as_str().starts_with("x-amz-"));
        signed.extend(own.map(|(name, value)| (name.as_str(), *value)));
        signed.extend(
            headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.reveal())),
        );
        signed.sort_unstable();
        let scope = Scope {
            time: &time,
            region: &self.region,
            service: "s3",
        };
        let request = Signed {
            method: ask.method.as_str(),
            path: url.path(),
            query: url.query().unwrap_or_default(),
            headers: &signed,
            payload: &payload,
        };
        let value = authorization(key.id.reveal(), key.secret.reveal(), &scope, &request);
        headers.push((header::AUTHORIZATION, Secret::new(value)));
        Ok(Shown {
            stamp: number,
            headers,
        })
    }

    fn refused(&self, refusal: Refusal<'_>) -> Result<Verdict, Failure> {
        let response = refusal.response;
        let status = response.status();
        let date = httpdate::parse_http_date(text(response, &header::DATE)).ok();
        let mut region = text(response, &HeaderName::from_static("x-amz-bucket-region")).to_owned();
        let mut reason = String::new();
        // Without one it is refused all the same.
        let reader = response.body_mut().as_reader();
        let _ = reader.take(REASON_MAX).read_to_string(&mut reason);
        let code = word(&reason, "Code");
        if region.is_empty() {
            region = word(&reason, "Region").to_owned();
        }
        // Keys come and go; and who asked for something with the old one is not to suffer.
        let about_key = [
            "ExpiredToken",
            "InvalidToken",
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
        ];
        let maybe = about_key.contains(&code) || status == StatusCode::UNAUTHORIZED;
        if let Some(key) = self.key.as_ref().filter(|_| maybe && !refusal.last) {
            if key.newer(refusal.stamp) {
                return Ok(Verdict::Again);
            }
        }
        let path = self
            .key
            .as_ref()
            .map(|key| key.path().display().to_string());
        let file = format!("in {}", path.unwrap_or_default());
        let (everything, why) = match code {
            "RequestTimeTooSkewed" => (true, skew(SystemTime::now(), date)),
            "SignatureDoesNotMatch" => {
                (true, format!("the secret key {file} is not the right one"))
            }
            "InvalidAccessKeyId" => (true, format!("it does not know the key {file}")),
            "ExpiredToken" | "InvalidToken" => (
                true,
                format!("the session token {file} is not good any more"),
            ),
            "AccessDenied" => match &self.key {
                Some(_) => (false, format!("who has the key {file} may not have it")),
                None => (false, "it is not for everybody (see key-file)".to_owned()),
            },
            _ if !region.is_empty() && region != self.region => (
                true,
                format!("the bucket is in another region: region={region}"),
            ),
            // As after HEAD, whose answers have no body.
            "" if status == StatusCode::FORBIDDEN => (
                false,
                format!("without a reason: see whether the key {file} is right"),
            ),
            "" => return Ok(Verdict::Stays(None)),
            code => (false, code.to_owned()),
        };
        Ok(Verdict::Stays(Some(Refused { why, everything })))
    }

    fn reload(&self) -> Result<bool> {
        self.key.as_ref().map_or(Ok(false), SecretFile::reload)
    }
}

/// By how much a clock is wrong.
fn skew(ours: SystemTime, theirs: Option<SystemTime>) -> String {
    let by = theirs.map(|theirs| match ours.duration_since(theirs) {
        Ok(by) => (by, "ahead of"),
        Err(error) => (error.duration(), "behind"),
    });
    match by {
        Some((by, way)) => format!(
            "the clock of this machine is {} seconds {way} that of the server: set it",
            Duration::as_secs(&by)
        ),
        None => "the clock of this machine and that of the server differ: set it".to_owned(),
    }
}

/// What stands in the first element of this name, if that is text only.
pub fn element<'t>(xml: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, end) = rest.split_once('<')?;
    (end.starts_with(&format!("/{name}>")) && !text.contains('&')).then_some(text)
}

/// The same, if it is a word; else nothing, which can be printed, too.
fn word<'t>(xml: &'t str, name: &str) -> &'t str {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let text = element(xml, name).filter(|text| text.bytes().all(plain));
    text.unwrap_or_default()
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_section_of_a_file() {
        let key = |text: &str| Key::parse(text);
        let text = "# of ours\n[other]\naws_access_key_id = X\n[default]\naws_access_key_id = ID\naws_secret_access_key=SE=CRET\n";
        let right = key(text).unwrap();
        assert_eq!(
            (right.id.reveal(), right.secret.reveal()),
            ("ID", "SE=CRET")
        );
        assert_eq!(right.session, None);
        let one = "[one]\naws_access_key_id=a\naws_secret_access_key=b\naws_session_token=c\n";
        assert_eq!(key(one).unwrap().session.unwrap().reveal(), "c");
        let two = format!("{one}[two]\naws_access_key_id=a\n");
        for (bad, expected) in [
            ("", "[default]"),
            (&two[..], "[default]"),
            ("xyzzy", "KEY = VALUE"),
            (
                "[default]\naws_access_key_id=xyzzy\n",
                "aws_secret_access_key",
            ),
        ] {
            let error = format!("{:#}", key(bad).unwrap_err());
            assert!(
                error.contains(expected) && !error.contains("xyzzy"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_bucket_is_in_the_path_or_in_the_host() {
        for (name, endpoint, region, style, base) in [
            (
                "s3://b",
                None,
                None,
                None,
                "https://b.s3.us-east-1.amazonaws.com/",
            ),
            (
                "s3://b/p/",
                None,
                Some("eu-1"),
                None,
                "https://b.s3.eu-1.amazonaws.com/p/",
            ),
            (
                "s3://b/p/q",
                Some("http://h:9000/"),
                None,
                None,
                "http://h:9000/b/p/q/",
            ),
            (
                "s3://b//p+q",
                Some("https://h"),
                None,
                Some("host"),
                "https://b.h/p%2Bq/",
            ),
            (
                "s3://b",
                None,
                None,
                Some("path"),
                "https://s3.us-east-1.amazonaws.com/b/",
            ),
        ] {
            assert_eq!(
                Bucket::new(name, endpoint, region, style).unwrap().base,
                base
            );
        }
        for (name, endpoint, style) in [
            ("s3://", None, None),
            ("s3:///p", None, None),
            ("s3://b c", None, None),
            ("s3://b", Some("http://h/dir"), None),
            ("s3://b", Some("ftp://h"), None),
            ("s3://b", Some("http://u:p@h"), None),
            ("s3://b", None, Some("both")),
        ] {
            assert!(Bucket::new(name, endpoint, None, style).is_err(), "{name}");
        }
    }

    #[test]
    fn an_element_has_text_and_a_reason_is_a_word() {
        let xml =
            "<?xml?><R><A>a/b+c==</A><B><C>AccessDenied</C></B><D>&lt;</D><E></E><F>eu-1</F><G>a";
        for (name, text, reason) in [
            ("A", Some("a/b+c=="), ""),
            ("B", None, ""),
            ("C", Some("AccessDenied"), "AccessDenied"),
            ("D", None, ""),
            ("E", Some(""), ""),
            ("F", Some("eu-1"), "eu-1"),
            ("G", None, ""),
            ("H", None, ""),
        ] {
            assert_eq!((element(xml, name), word(xml, name)), (text, reason));
        }
    }
}
