// SPDX-License-Identifier: GPL-2.0
//! What users without privileges may do: permissions, as modes and access control lists make them.

use std::ffi::CStr;
use std::io::Write;
use std::os::fd::BorrowedFd;

use anyhow::{Context, Result};
use rustix::fs::{accessat, Access, AtFlags};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use rustix::{fs::Gid, fs::Uid};

use crate::output::{Outcome, Output, Value};

/// User and group are this.
const IDENTITIES: [u32; 2] = [1000, 65534];

pub(crate) fn print<W: Write>(dir: BorrowedFd<'_>, name: &CStr, out: &mut Output<W>) -> Result<()> {
    for id in IDENTITIES {
        match as_user(id, || ask(dir, name))? {
            Ok(answer) => out.line("access", format_args!("as={id} {answer}"))?,
            Err(errno) => {
                let refused = Value(Err::<u8, _>(errno));
                return out.line("access", format_args!("as={id} {refused}"));
            }
        }
    }
    Ok(())
}

fn ask(dir: BorrowedFd<'_>, name: &CStr) -> String {
    let allowed = |access| {
        Outcome(accessat(
            dir,
            name,
            access,
            AtFlags::EACCESS | AtFlags::SYMLINK_NOFOLLOW,
        ))
    };
    format!(
        "read={} write={} execute={}",
        allowed(Access::READ_OK),
        allowed(Access::WRITE_OK),
        allowed(Access::EXEC_OK)
    )
}

/// Runs `f` with the effective user and group `id` and no other group. An error of the inner result says that this
/// process may not do that; one of the outer that there is no way back.
fn as_user(id: u32, f: impl FnOnce() -> String) -> Result<Result<String, Errno>> {
    let (uid, gid) = (geteuid(), getegid());
    if !uid.is_root() {
        return Ok(Err(Errno::PERM));
    }
    if let Err(errno) = set_thread_groups(&[]) {
        return Ok(Err(errno));
    }
    set_thread_res_gid(None::<Gid>, Gid::from_raw(id), gid).context("cannot change the group")?;
    set_thread_res_uid(None::<Uid>, Uid::from_raw(id), uid).context("cannot change the user")?;
    let answer = f();
    set_thread_res_uid(None::<Uid>, uid, uid).context("cannot change the user back")?;
    set_thread_res_gid(None::<Gid>, gid, gid).context("cannot change the group back")?;
    Ok(Ok(answer))
}
