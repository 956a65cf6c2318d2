// SPDX-License-Identifier: GPL-2.0
//! The machine as its files tell of it, below a root: "/", or another one in tests.

use std::fs;
use std::path::{Path, PathBuf};

/// A machine.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
}

/// Where a kernel module comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Ours, or at least not the kernel's own.
    Ours,
    /// From the kernel's own tree.
    Kernel,
    /// There is none.
    Absent,
}

impl Machine {
    /// The machine whose files are below `root`.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Where a file of an absolute path is.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// What is in a file, if it can be read.
    pub fn read(&self, path: &str) -> Option<String> {
        let bytes = fs::read(self.path(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The version of the kernel that runs.
    pub fn release(&self) -> String {
        let told = self.read("/proc/sys/kernel/osrelease");
        told.unwrap_or_default().trim().to_owned()
    }

    /// Which module of this name is loaded.
    pub fn loaded(&self, module: &str) -> Origin {
        // The mark of a module from outside of the kernel's tree.
        match self.read(&format!("/sys/module/{module}/taint")) {
            Some(taint) if taint.contains('O') => Origin::Ours,
            Some(_) => Origin::Kernel,
            None => Origin::Absent,
        }
    }

    /// Which module of this name modprobe would load.
    pub fn installed(&self, module: &str) -> Origin {
        let list = format!("/lib/modules/{}/modules.dep", self.release());
        let list = self.read(&list).unwrap_or_default();
        let paths = list.lines().filter_map(|line| line.split(':').next());
        let of_module = |path: &&str| {
            let file = path.rsplit('/').next().unwrap_or(path);
            file.split(".ko").next() == Some(module)
        };
        match paths.into_iter().find(of_module) {
            Some(path) if path.starts_with("kernel/") => Origin::Kernel,
            Some(_) => Origin::Ours,
            None => Origin::Absent,
        }
    }
}
