//! Where the file system begins for the agent: `/` on a machine, a directory in a laboratory.
//!
//! Every absolute path that the agent knows goes through [`Root::path`]. Processes are the one
//! exception: they are the kernel's, and the same under every root.

use std::path::{Path, PathBuf};

/// The directory that stands for `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// The directory `dir` as the root.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    /// Where the absolute path `absolute` is: `/var/lib/etcd` gives `ROOT/var/lib/etcd`.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.0.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    /// Whether it is the machine's own.
    pub fn is_machine(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// The directory itself.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl Default for Root {
    /// The machine's own root.
    fn default() -> Self {
        Self::new("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_stay_below_the_root() {
        assert_eq!(Root::new("/lab/node-1").path("/var/lib/etcd"), Path::new("/lab/node-1/var/lib/etcd"));
        assert_eq!(Root::new("/lab/node-1").path("etc"), Path::new("/lab/node-1/etc"));
        assert_eq!(Root::default().path("/var/lib/etcd"), Path::new("/var/lib/etcd"));
    }
}
