//! Programs that stand in for those that need root: `mount`, `umount`, `findmnt` and `containerd`.
//!
//! Everything else that the agent runs (blkid, mkfs, dumpe2fs, resize2fs) is the real thing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::LabError;

const PROGRAMS: [(&str, &str); 4] = [
    ("mount", include_str!("standins/mount")),
    ("umount", include_str!("standins/umount")),
    ("findmnt", include_str!("standins/findmnt")),
    ("containerd", include_str!("standins/containerd")),
];

/// Writes the stand-ins into `dir`, which is made.
pub fn install(dir: &Path) -> Result<(), LabError> {
    fs::create_dir_all(dir).map_err(LabError::file("making", dir))?;
    for (name, script) in PROGRAMS {
        let path = dir.join(name);
        fs::write(&path, script).map_err(LabError::file("writing", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(LabError::file("making executable", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::{Command, Output};

    use super::*;

    struct Bench {
        dir: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            install(&dir.path().join("bin")).unwrap();
            fs::create_dir(dir.path().join("mnt")).unwrap();
            fs::File::create(dir.path().join("volume.img")).unwrap().set_len(64 << 20).unwrap();
            std::os::unix::fs::symlink(dir.path().join("volume.img"), dir.path().join("nvme1n1")).unwrap();
            Self { dir }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn run(&self, program: &str, args: &[&str]) -> Output {
            let path = format!("{}:/usr/sbin:/sbin:/usr/bin:/bin", self.path("bin").display());
            Command::new(self.path("bin").join(program))
                .args(args)
                .current_dir(self.dir.path())
                .env("PATH", path)
                .output()
                .unwrap()
        }

        fn mkfs(&self) {
            let made = Command::new("/usr/sbin/mkfs.ext4")
                .args(["-q", "-E", "nodiscard"])
                .arg(self.path("volume.img"))
                .status()
                .unwrap();
            assert!(made.success());
        }

        fn mount(&self, kind: &str) -> Output {
            self.run("mount", &["-t", kind, "-o", "noatime,nodev", "nvme1n1", "mnt"])
        }

        fn findmnt(&self) -> Output {
            self.run("findmnt", &["--json", "--mountpoint", "mnt", "-o", "SOURCE,FSTYPE,OPTIONS"])
        }
    }

    #[test]
    fn what_is_mounted_is_found_and_its_data_go_with_the_volume() {
        let bench = Bench::new();
        bench.mkfs();
        assert_eq!(bench.findmnt().status.code(), Some(1));
        assert!(bench.mount("ext4").status.success());
        let found: serde_json::Value = serde_json::from_slice(&bench.findmnt().stdout).unwrap();
        let expected = serde_json::json!({ "filesystems": [
            { "source": "nvme1n1", "fstype": "ext4", "options": "rw,noatime,nodev" }
        ]});
        assert_eq!(found, expected);
        fs::write(bench.path("mnt/data"), "x").unwrap();
        assert_eq!(fs::read_to_string(bench.path("volume.img.d/data")).unwrap(), "x");
        assert!(bench.run("umount", &["mnt"]).status.success());
        assert!(!bench.path("mnt/data").exists());
        let silent = bench.findmnt();
        assert_eq!((silent.status.code(), silent.stdout.len() + silent.stderr.len()), (Some(1), 0));
        assert!(bench.mount("ext4").status.success());
        assert!(bench.path("mnt/data").exists());
    }

    #[test]
    fn a_device_without_that_file_system_is_not_mounted() {
        let bench = Bench::new();
        assert_eq!(bench.mount("ext4").status.code(), Some(32));
        bench.mkfs();
        assert_eq!(bench.mount("xfs").status.code(), Some(32));
        fs::remove_file(bench.path("nvme1n1")).unwrap();
        assert_eq!(bench.mount("ext4").status.code(), Some(32));
        assert_eq!(bench.findmnt().status.code(), Some(1));
    }

    #[test]
    fn nothing_is_mounted_or_unmounted_twice() {
        let bench = Bench::new();
        bench.mkfs();
        assert_eq!(bench.run("umount", &["mnt"]).status.code(), Some(32));
        assert!(bench.mount("ext4").status.success());
        assert_eq!(bench.mount("ext4").status.code(), Some(32));
    }
}
