// SPDX-License-Identifier: GPL-2.0
//! What shows who asks: read from files, kept out of everything that is printed.
//!
//! A secret is never an option or a value of the configuration, where others could see it: those name its file. The
//! file is read when the daemon starts, so that a mistake shows at once, and again when somebody asks for it or a
//! server refuses what was in it.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{bail, ensure, Context, Result};
use base64::prelude::{Engine as _, BASE64_STANDARD};

use crate::log;

/// The largest file in bytes.
const FILE_MAX: u64 = 1 << 20;

/// Text that is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one who shall see it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A user and a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The name, which is secret, too: tokens are often given in its place.
    pub user: Secret,
    /// The password.
    pub password: Secret,
}

impl Login {
    /// Reads `USER:PASSWORD`. A password may have colons.
    pub fn parse(text: &str) -> Result<Self> {
        match one_line(text)?.split_once(':') {
            Some((user, password)) if !user.is_empty() => Ok(Self {
                user: Secret::new(user),
                password: Secret::new(password),
            }),
            _ => bail!("it is not USER:PASSWORD"),
        }
    }

    /// The value of the header `Authorization` (RFC 7617).
    pub fn basic(&self) -> Secret {
        let pair = format!("{}:{}", self.user.reveal(), self.password.reveal());
        Secret(format!("Basic {}", BASE64_STANDARD.encode(pair)))
    }
}

/// The value of the header `Authorization` for a token (RFC 6750), which is all of a file.
pub fn bearer(text: &str) -> Result<Secret> {
    let token = one_line(text)?;
    ensure!(
        token.bytes().all(|byte| byte.is_ascii_graphic()),
        "a token has no spaces and nothing but ASCII"
    );
    Ok(Secret(format!("Bearer {token}")))
}

/// A file of one line. The errors do not quote it.
fn one_line(text: &str) -> Result<&str> {
    let line = text.trim_end_matches(['\r', '\n']);
    ensure!(!line.is_empty(), "it is empty");
    ensure!(
        !line.contains(|char: char| char.is_control()),
        "it has more than one line"
    );
    Ok(line)
}

/// A file with something secret.
pub struct SecretFile<T> {
    path: PathBuf,
    parse: fn(&str) -> Result<T>,
    state: Mutex<Stamped<T>>,
}

/// What was in a file, and which version of it that was.
#[derive(Clone)]
struct Stamped<T> {
    stamp: u64,
    value: T,
}

impl<T: Clone + PartialEq> SecretFile<T> {
    /// Reads a file. Complains about one that everybody can read.
    pub fn open(path: &Path, parse: fn(&str) -> Result<T>) -> Result<Self> {
        let value = read(path, parse)?;
        let is_open = |meta: fs::Metadata| meta.permissions().mode() & 0o004 != 0;
        if fs::metadata(path).is_ok_and(is_open) {
            log!(
                "everybody can read the secret in {}: chmod o-r",
                path.display()
            );
        }
        Ok(Self {
            path: path.to_owned(),
            parse,
            state: Mutex::new(Stamped { stamp: 0, value }),
        })
    }

    /// What was in the file when it was last read, and a number that stands for it.
    pub fn get(&self) -> (u64, T) {
        let state = self.lock();
        (state.stamp, state.value.clone())
    }

    /// Reads the file again. Whether there is something else in it.
    pub fn reload(&self) -> Result<bool> {
        let value = read(&self.path, self.parse)?;
        let mut state = self.lock();
        if state.value == value {
            return Ok(false);
        }
        *state = Stamped {
            stamp: state.stamp.wrapping_add(1),
            value,
        };
        Ok(true)
    }

    /// A server did not take what has this number. Whether there is something else now.
    pub fn newer(&self, than: u64) -> bool {
        // Another thread may have met the same.
        if self.lock().stamp != than {
            return true;
        }
        self.reload().unwrap_or_else(|error| {
            log!("{error:#}");
            false
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self) -> MutexGuard<'_, Stamped<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for SecretFile<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({})", self.path.display())
    }
}

fn read<T>(path: &Path, parse: fn(&str) -> Result<T>) -> Result<T> {
    let read = || {
        let file = File::open(path)?;
        let mut text = String::new();
        file.take(FILE_MAX).read_to_string(&mut text)?;
        parse(&text)
    };
    read().with_context(|| format!("cannot take a secret from {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_a_line() {
        // The example of RFC 7617, section 2.
        let login = Login::parse("Aladdin:open sesame\n").unwrap();
        assert_eq!(login.basic().reveal(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        let login = Login::parse("user:pass:word").unwrap();
        assert_eq!(login.password.reveal(), "pass:word");
        for bad in ["", "\n", "user", ":password", "a:b\nc:d"] {
            assert!(Login::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_token_is_a_line_without_spaces() {
        assert_eq!(bearer("abc.def\r\n").unwrap().reveal(), "Bearer abc.def");
        for bad in ["", "a b", "a\nb", "\u{e9}"] {
            assert!(bearer(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let login = Login::parse("somebody:xyzzy").unwrap();
        let printed = format!("{login:?} {:?}", login.basic());
        assert!(!printed.contains("xyzzy") && !printed.contains("somebody"));
        let error = format!("{:#}", Login::parse("xyzzy\nxyzzy").unwrap_err());
        assert!(!error.contains("xyzzy"), "{error}");
    }
}
