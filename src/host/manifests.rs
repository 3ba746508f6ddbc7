//! Static pods' manifests, and how the last change of each went.
//!
//! The kubelet runs every file of the manifest directory, so a manifest is staged beside that
//! directory, synced, and renamed into it. The one before is kept until the new one has proven
//! good. What happened is written down before it happens, in an order in which a crash anywhere
//! leaves a state from which the same change can be made again:
//!
//! | file | what |
//! |---|---|
//! | `/etc/kubernetes/manifests/NAME.yaml` | the manifest |
//! | `/var/lib/quorate/manifests/NAME.json` | the last change, a [`Rollout`] |
//! | `/var/lib/quorate/manifests/NAME.yaml` | the manifest before it |
//! | `/var/lib/quorate/manifests/NAME-files.json` | the files that the component read with that one, where others took their place |

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Root;
use super::files::{self, FileError, NewFile};
use crate::kubernetes::{Component, RenderedFile, digest, paths};
use crate::model::kubernetes::{FailedManifest, Rollout, RolloutState};

/// What could not be learnt or done about a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file was not read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The record of the last change can't be understood.
    #[error("{} is damaged", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The manifest before is not there, or is another one than the record says.
    #[error("the manifest before {component}'s is not kept")]
    NoPrevious {
        /// The component.
        component: Component,
    },
}

/// The manifests of a machine.
#[derive(Debug, Clone)]
pub struct Manifests {
    root: Root,
}

impl Manifests {
    /// Those below this root.
    pub fn of(root: &Root) -> Self {
        Self { root: root.clone() }
    }

    /// The digest of a component's manifest; `None` when there is none.
    pub fn digest(&self, component: Component) -> Result<Option<String>, FileError> {
        Ok(files::read_optional(&self.manifest(component))?.map(|bytes| digest(&bytes)))
    }

    /// The last change of a component's manifest; `None` when there was none.
    pub fn rollout(&self, component: Component) -> Result<Option<Rollout>, ManifestError> {
        let path = self.record(component);
        let Some(bytes) = files::read_optional(&path)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|source| ManifestError::Record { path, source })
    }

    /// Puts a manifest in place, after the files that the component reads with it, which are given to
    /// `owner`. `now` is in milliseconds since 1970.
    pub fn roll_out(
        &self,
        component: Component,
        files: &[RenderedFile],
        owner: Option<u32>,
        manifest: &RenderedFile,
        now: i64,
    ) -> Result<(), ManifestError> {
        let last = self.rollout(component)?;
        let current = files::read_optional(&self.manifest(component))?;
        let previous = match (&current, &last) {
            (None, _) => None,
            // It never was ready, so what was before it stays what to go back to.
            (Some(current), Some(last))
                if last.state == RolloutState::Pending && last.digest == digest(current) =>
            {
                last.previous.clone()
            }
            (Some(current), _) => {
                self.create_records()?;
                let before = files.iter().map(|file| self.as_it_is(file)).collect::<Result<Vec<_>, _>>()?;
                let before: Vec<RenderedFile> = before.into_iter().flatten().collect();
                write_json(&self.previous_files(component), &before)?;
                files::write_durably(&self.previous(component), current, 0o600)?;
                Some(digest(current))
            }
        };
        let failed = last.map(|last| last.failed).unwrap_or_default();
        let record =
            Rollout { digest: manifest.digest(), since: now, state: RolloutState::Pending, previous, failed };
        self.write_record(component, &record)?;
        self.write_files(files, owner)?;
        self.place(component, manifest.content.as_bytes(), manifest.mode)
    }

    /// A file as it lies there now; `None` where it does not.
    fn as_it_is(&self, file: &RenderedFile) -> Result<Option<RenderedFile>, FileError> {
        let found = files::read_optional(&self.root.path(&file.path))?;
        Ok(found.map(|bytes| RenderedFile {
            content: String::from_utf8_lossy(&bytes).into_owned(),
            ..file.clone()
        }))
    }

    fn write_files(&self, files: &[RenderedFile], owner: Option<u32>) -> Result<(), FileError> {
        for file in files {
            let path = self.root.path(&file.path);
            let name = path.file_name().and_then(|name| name.to_str());
            let (Some(dir), Some(name)) = (path.parent(), name) else { continue };
            let file = NewFile { name, bytes: file.content.as_bytes(), mode: file.mode };
            files::write_set_as(dir, &[file], owner)?;
        }
        Ok(())
    }

    /// The manifest in place has proven good.
    pub fn keep(&self, component: Component) -> Result<(), ManifestError> {
        let Some(mut record) = self.rollout(component)? else { return Ok(()) };
        record.state = RolloutState::Good;
        record.previous = None;
        record.failed.clear();
        self.write_record(component, &record)
    }

    /// Takes a manifest out of the kubelet's reach, which ends the pod. A copy is kept beside the records; when the
    /// machine comes back it gets its manifest as if for the first time.
    pub fn withdraw(&self, component: Component) -> Result<(), ManifestError> {
        let path = self.manifest(component);
        let Some(manifest) = files::read_optional(&path)? else { return Ok(()) };
        self.create_records()?;
        let copy = self.root.path(RECORDS).join(format!("{component}-withdrawn.yaml"));
        files::write_durably(&copy, &manifest, MANIFEST_MODE)?;
        Ok(files::remove_durably(&path)?)
    }

    /// Puts the manifest before back in place, with the files that were read with it, and remembers that
    /// this one failed.
    pub fn roll_back(&self, component: Component, owner: Option<u32>, now: i64) -> Result<(), ManifestError> {
        let missing = || ManifestError::NoPrevious { component };
        let mut record = self.rollout(component)?.ok_or_else(missing)?;
        let kept = files::read_optional(&self.previous(component))?.ok_or_else(missing)?;
        if record.previous != Some(digest(&kept)) {
            return Err(missing());
        }
        // The failure first: cut off after it, the same is done again, and nothing else.
        if note(&mut record.failed, &record.digest, record.since) {
            self.write_record(component, &record)?;
        }
        let path = self.previous_files(component);
        if let Some(bytes) = files::read_optional(&path)? {
            let before: Vec<RenderedFile> =
                serde_json::from_slice(&bytes).map_err(|source| ManifestError::Record { path, source })?;
            self.write_files(&before, owner)?;
        }
        self.place(component, &kept, MANIFEST_MODE)?;
        let record = Rollout {
            digest: digest(&kept),
            since: now,
            state: RolloutState::Good,
            previous: None,
            failed: record.failed,
        };
        self.write_record(component, &record)
    }

    fn place(&self, component: Component, content: &[u8], mode: u32) -> Result<(), ManifestError> {
        let path = self.manifest(component);
        files::create_dir(&self.root.path(paths::MANIFESTS), 0o755)?;
        Ok(files::write_staged(&self.root.path(paths::KUBERNETES), &path, content, mode)?)
    }

    fn write_record(&self, component: Component, record: &Rollout) -> Result<(), ManifestError> {
        self.create_records()?;
        write_json(&self.record(component), record)
    }

    fn create_records(&self) -> Result<(), FileError> {
        files::create_dir(&self.root.path(RECORDS), 0o700)
    }

    fn manifest(&self, component: Component) -> PathBuf {
        self.root.path(component.manifest())
    }

    fn record(&self, component: Component) -> PathBuf {
        self.root.path(RECORDS).join(format!("{component}.json"))
    }

    fn previous_files(&self, component: Component) -> PathBuf {
        self.root.path(RECORDS).join(format!("{component}-files.json"))
    }

    fn previous(&self, component: Component) -> PathBuf {
        self.root.path(RECORDS).join(format!("{component}.yaml"))
    }
}

/// Notes that the manifest that was put in place then did not get ready; `false`: that stands there already.
fn note(failed: &mut Vec<FailedManifest>, digest: &str, tried: i64) -> bool {
    match failed.iter_mut().find(|known| known.digest == digest) {
        Some(known) if known.tried == tried => return false,
        Some(known) => {
            known.tried = tried;
            known.times = known.times.saturating_add(1);
        }
        None => failed.push(FailedManifest { digest: digest.to_owned(), tried, times: 1 }),
    }
    true
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), ManifestError> {
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|source| ManifestError::Record { path: path.to_owned(), source })?;
    Ok(files::write_durably(path, &bytes, 0o600)?)
}

const RECORDS: &str = "/var/lib/quorate/manifests";
const MANIFEST_MODE: u32 = 0o600;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::Owner;

    const WHICH: Component = Component::Scheduler;

    fn manifests(dir: &std::path::Path) -> Manifests {
        std::fs::create_dir_all(dir.join("etc/kubernetes")).unwrap();
        Manifests::of(&Root::new(dir))
    }

    fn manifest(content: &str) -> RenderedFile {
        RenderedFile {
            path: WHICH.manifest().to_owned(),
            mode: 0o600,
            owner: Owner::Root,
            content: content.to_owned(),
        }
    }

    #[test]
    fn a_failed_manifest_is_replaced_by_the_last_one_that_was_good() {
        let dir = tempfile::tempdir().unwrap();
        let manifests = manifests(dir.path());
        manifests.roll_out(WHICH, &[], None, &manifest("one"), 1).unwrap();
        manifests.keep(WHICH).unwrap();
        manifests.roll_out(WHICH, &[], None, &manifest("two"), 2).unwrap();
        // Corrected before it ever was ready: the way back still leads to the good one.
        manifests.roll_out(WHICH, &[], None, &manifest("three"), 3).unwrap();
        let rollout = manifests.rollout(WHICH).unwrap().unwrap();
        assert_eq!((rollout.since, rollout.previous), (3, Some(digest(b"one"))));
        manifests.roll_back(WHICH, None, 4).unwrap();
        assert_eq!(manifests.digest(WHICH).unwrap(), Some(digest(b"one")));
        let rollout = manifests.rollout(WHICH).unwrap().unwrap();
        assert_eq!(rollout.state, RolloutState::Good);
        assert_eq!(rollout.failed, [FailedManifest { digest: digest(b"three"), tried: 3, times: 1 }]);
    }

    #[test]
    fn how_often_a_manifest_failed_is_counted_until_another_is_good() {
        let dir = tempfile::tempdir().unwrap();
        let manifests = manifests(dir.path());
        manifests.roll_out(WHICH, &[], None, &manifest("one"), 1).unwrap();
        manifests.keep(WHICH).unwrap();
        let failed = || manifests.rollout(WHICH).unwrap().unwrap().failed;
        let path = dir.path().join(&RECORDS[1..]).join("kube-scheduler.json");
        for (now, times) in [(2, 1), (4, 2)] {
            manifests.roll_out(WHICH, &[], None, &manifest("two"), now).unwrap();
            // Cut off right after the failure was written down: it is one failure all the same.
            let mut record = manifests.rollout(WHICH).unwrap().unwrap();
            note(&mut record.failed, &record.digest, record.since);
            write_json(&path, &record).unwrap();
            manifests.roll_back(WHICH, None, now + 1).unwrap();
            assert_eq!(failed(), [FailedManifest { digest: digest(b"two"), tried: now, times }]);
        }
        manifests.roll_out(WHICH, &[], None, &manifest("three"), 6).unwrap();
        manifests.keep(WHICH).unwrap();
        assert_eq!(failed(), []);
    }

    #[test]
    fn what_a_component_reads_goes_back_with_its_manifest() {
        let dir = tempfile::tempdir().unwrap();
        let manifests = manifests(dir.path());
        let file =
            |content: &str| RenderedFile { path: paths::SCHEDULER_CONFIG.to_owned(), ..manifest(content) };
        let path = dir.path().join(&paths::SCHEDULER_CONFIG[1..]);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let found = || std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, "good").unwrap();
        manifests.roll_out(WHICH, &[], None, &manifest("one"), 1).unwrap();
        manifests.keep(WHICH).unwrap();
        manifests.roll_out(WHICH, &[file("bad")], None, &manifest("two"), 2).unwrap();
        assert_eq!(found(), "bad");
        // Corrected, and bad again, before it ever was ready.
        manifests.roll_out(WHICH, &[file("worse")], None, &manifest("three"), 3).unwrap();
        assert_eq!(found(), "worse");
        manifests.roll_back(WHICH, None, 4).unwrap();
        assert_eq!((found().as_str(), manifests.digest(WHICH).unwrap()), ("good", Some(digest(b"one"))));
        // A change without files takes none of them back.
        std::fs::write(&path, "good too").unwrap();
        manifests.roll_out(WHICH, &[], None, &manifest("four"), 5).unwrap();
        manifests.roll_back(WHICH, None, 6).unwrap();
        assert_eq!(found(), "good too");
    }

    #[test]
    fn the_first_manifest_has_none_to_go_back_to() {
        let dir = tempfile::tempdir().unwrap();
        let manifests = manifests(dir.path());
        manifests.roll_out(WHICH, &[], None, &manifest("one"), 1).unwrap();
        assert!(matches!(manifests.roll_back(WHICH, None, 2), Err(ManifestError::NoPrevious { .. })));
        assert_eq!(manifests.digest(WHICH).unwrap(), Some(digest(b"one")));
    }

    #[test]
    fn a_roll_out_that_was_cut_off_before_the_manifest_was_placed_is_done_again() {
        let dir = tempfile::tempdir().unwrap();
        let manifests = manifests(dir.path());
        manifests.roll_out(WHICH, &[], None, &manifest("one"), 1).unwrap();
        manifests.keep(WHICH).unwrap();
        manifests.roll_out(WHICH, &[], None, &manifest("two"), 2).unwrap();
        // As it was when the record was written and the manifest not placed yet.
        std::fs::write(dir.path().join(&WHICH.manifest()[1..]), "one").unwrap();
        manifests.roll_out(WHICH, &[], None, &manifest("two"), 3).unwrap();
        assert_eq!(manifests.digest(WHICH).unwrap(), Some(digest(b"two")));
        assert_eq!(manifests.rollout(WHICH).unwrap().unwrap().previous, Some(digest(b"one")));
    }

    #[test]
    fn nothing_but_manifests_ever_lies_in_their_directory() {
        let dir = tempfile::tempdir().unwrap();
        let manifests = manifests(dir.path());
        manifests.roll_out(WHICH, &[], None, &manifest("one"), 1).unwrap();
        let names = files::list_optional(&dir.path().join("etc/kubernetes/manifests")).unwrap().unwrap();
        assert_eq!(names, ["kube-scheduler.yaml"]);
    }
}
