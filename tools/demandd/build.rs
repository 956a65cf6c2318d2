// SPDX-License-Identifier: GPL-2.0
//! Translates the C header of the wire format, so that it is written down once.
//!
//! The `bindgen` command is used, not the crate: the kernel modules need the command anyway, and the crate would add
//! some thirty packages to the build. `BINDGEN` names another one.

use std::env;
use std::path::Path;
use std::process::Command;

const HEADER: &str = "../../include/uapi/linux/cachefiles_demand.h";

fn main() {
    println!("cargo:rerun-if-changed={HEADER}");
    println!("cargo:rerun-if-env-changed=BINDGEN");
    let bindgen = env::var_os("BINDGEN").unwrap_or_else(|| "bindgen".into());
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let status = Command::new(&bindgen)
        .arg(HEADER)
        .arg("--output")
        .arg(Path::new(&out).join("cachefiles_demand.rs"))
        .args([
            "--allowlist-item",
            "cachefiles_demand_.*|CACHEFILES_DEMAND_.*",
        ])
        .args(["--use-core", "--generate-cstr"])
        .args(["--", "-I../../include/uapi"])
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{bindgen:?} could not translate {HEADER}: {status}"),
        Err(error) => {
            panic!("cannot run {bindgen:?}: {error}: install bindgen and clang, or set BINDGEN")
        }
    }
}
