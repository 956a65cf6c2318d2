// SPDX-License-Identifier: GPL-2.0
//! Extended attributes of a name in the working directory.

use std::ffi::{CStr, CString};
use std::io::Write;

use anyhow::Result;
use rustix::fs::{lgetxattr, lgetxattr_query, llistxattr, llistxattr_query};
use rustix::io::Errno;

use crate::output::{Escaped, Hex, Output, Value};
use crate::sha256::sha256;

/// The largest list, and the largest value, that the kernel gives.
const MAX: usize = 65536;

/// A longer value is told by its length and its digest.
const SHOWN: usize = 256;

/// Names that are asked for whether they are in the list or not: absent ones, those that the list need not have, and
/// some that cannot be.
const PROBES: [&CStr; 8] = [
    c"user.mount-digest.absent",
    c"trusted.overlay.opaque",
    c"security.capability",
    c"system.posix_acl_access",
    c"system.posix_acl_default",
    c"system.absent",
    c"user.",
    c"absent",
];

pub(crate) fn print<W: Write>(name: &CStr, out: &mut Output<W>) -> Result<()> {
    let mut list = vec![0; MAX];
    // The length that a caller with no room is told, too.
    let length = llistxattr_query(name);
    let mut names = match llistxattr(name, &mut list[..]) {
        Ok(length) => names(&list[..length]),
        Err(errno) => {
            return out.line("xattr-list", format_args!("{}", Value(Err::<u8, _>(errno))));
        }
    };
    let shown: Vec<_> = names
        .iter()
        .map(|n| format!(" {}", Escaped(n.to_bytes())))
        .collect();
    out.line(
        "xattr-list",
        format_args!("length={}{}", Value(length), shown.concat()),
    )?;
    names.sort_unstable();
    let mut value = list;
    for attribute in &names {
        out.line(
            "xattr",
            format_args!(
                "{}={}",
                Escaped(attribute.to_bytes()),
                Value(get(name, attribute, &mut value))
            ),
        )?;
    }
    let mut probes = String::new();
    for attribute in PROBES {
        if !names.iter().any(|n| n.as_c_str() == attribute) {
            let got = get(name, attribute, &mut value);
            probes += &format!(" {}={}", Escaped(attribute.to_bytes()), Value(got));
        }
    }
    out.line("xattr-probes", format_args!("{}", probes.trim_start()))?;
    if let Some(first) = names.first() {
        let mut short = [0];
        out.line(
            "xattr-short",
            format_args!(
                "list={} value={}",
                Value(llistxattr(name, &mut short[..])),
                Value(lgetxattr(name, first, &mut short[..]))
            ),
        )?;
    }
    Ok(())
}

/// The names in a list, each of which ends with a NUL.
fn names(list: &[u8]) -> Vec<CString> {
    list.split_inclusive(|byte| *byte == 0)
        .map(|name| {
            let end = name.iter().position(|byte| *byte == 0);
            CString::new(&name[..end.unwrap_or(name.len())]).unwrap_or_default()
        })
        .collect()
}

fn get(name: &CStr, attribute: &CStr, buffer: &mut [u8]) -> Result<String, Errno> {
    let asked = lgetxattr_query(name, attribute)?;
    let length = lgetxattr(name, attribute, &mut buffer[..])?;
    let value = &buffer[..length];
    let text = if length > SHOWN {
        format!("{length}:sha256:{}", sha256(value))
    } else if attribute.to_bytes().starts_with(b"system.") {
        format!("{length}:0x{}", Hex(value))
    } else {
        format!("{length}:{}", Escaped(value))
    };
    Ok(if asked == length {
        text
    } else {
        format!("{text}, but {asked} when asked for the length")
    })
}
