// SPDX-License-Identifier: GPL-2.0
//! Lines, and how values are written in them.

use std::fmt::{self, Arguments, Display, Write as _};
use std::io::{BufWriter, Write};

use anyhow::{Context, Result};
use rustix::io::Errno;

/// Where lines go. They begin with the path that was set last.
pub(crate) struct Output<W: Write> {
    writer: BufWriter<W>,
    path: String,
}

impl<W: Write> Output<W> {
    pub(crate) fn new(writer: W) -> Self {
        Self {
            writer: BufWriter::with_capacity(1 << 16, writer),
            path: String::new(),
        }
    }

    /// From here on, lines are about `path`.
    pub(crate) fn set_path(&mut self, path: &[u8]) {
        self.path.clear();
        // A String takes everything.
        let _ = write!(self.path, "{}", Escaped(path));
    }

    pub(crate) fn line(&mut self, item: &str, values: Arguments<'_>) -> Result<()> {
        writeln!(self.writer, "{}\t{item}\t{values}", self.path).context("cannot write the result")
    }

    pub(crate) fn end(mut self) -> Result<()> {
        self.writer.flush().context("cannot write the result")
    }
}

/// Bytes as printable ASCII without blanks: what is not, and the backslash, becomes `\xHH`.
pub(crate) struct Escaped<'a>(pub(crate) &'a [u8]);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            match byte {
                b'\\' | 0..=b' ' | 0x7f.. => write!(f, "\\x{byte:02x}")?,
                _ => f.write_char(char::from(*byte))?,
            }
        }
        Ok(())
    }
}

/// Bytes in hexadecimal.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// `ok`, or the name of the error.
pub(crate) struct Outcome<T>(pub(crate) Result<T, Errno>);

impl<T> Display for Outcome<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(_) => f.write_str("ok"),
            Err(errno) => Error(*errno).fmt(f),
        }
    }
}

/// The value, or the name of the error.
pub(crate) struct Value<T>(pub(crate) Result<T, Errno>);

impl<T: Display> Display for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(value) => value.fmt(f),
            Err(errno) => Error(*errno).fmt(f),
        }
    }
}

/// The name of an error, as in `errno(3)`.
pub(crate) struct Error(pub(crate) Errno);

macro_rules! names {
    ($code:expr, $($name:ident)*) => {
        match $code {
            $(libc::$name => Some(stringify!($name)),)*
            _ => None,
        }
    };
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.0.raw_os_error();
        let name = names!(code, EPERM ENOENT EINTR EIO ENXIO EBADF EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST
            EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE
            EDOM ERANGE ENAMETOOLONG ENOSYS ENOTEMPTY ELOOP ENODATA EBADMSG EOVERFLOW EBADR EOPNOTSUPP ETIMEDOUT
            ESTALE EUCLEAN EREMOTEIO ENOKEY EHWPOISON);
        match name {
            Some(name) => f.write_str(name),
            None => write!(f, "errno-{code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_unambiguously() {
        let text = |bytes: &[u8]| Escaped(bytes).to_string();
        assert_eq!(text(b"plain-name_1.txt"), "plain-name_1.txt");
        assert_eq!(text(b"a b\tc\n"), "a\\x20b\\x09c\\x0a");
        assert_eq!(text(b"\\x20"), "\\x5cx20");
        assert_eq!(text("\u{fc}".as_bytes()), "\\xc3\\xbc");
        assert_eq!(text(&[0x7f, 0x80, 0xff]), "\\x7f\\x80\\xff");
    }

    #[test]
    fn errors_have_names() {
        assert_eq!(Error(Errno::ROFS).to_string(), "EROFS");
        assert_eq!(
            Error(Errno::from_raw_os_error(4000)).to_string(),
            "errno-4000"
        );
        assert_eq!(Value(Err::<u32, _>(Errno::NODATA)).to_string(), "ENODATA");
        assert_eq!(Outcome(Ok(3)).to_string(), "ok");
    }
}
