//! Configuration: from files, EC2 user data and instance tags to validated [`Settings`].
//!
//! Three stages, each a file: `config::fragments` are texts with a source, `config::inputs` are checked values,
//! key by key, [`settings`] are merged and complete. The sources, later ones winning key by key:
//!
//! 1. defaults, in the table of `config::keys`;
//! 2. `/usr/lib/quorate/config.d/*.yaml`, by file name: the image's;
//! 3. `/etc/quorate/config.d/*.yaml`, by file name: the operator's;
//! 4. EC2 user data, see `config::userdata`;
//! 5. the instance tags `quorate:cluster` and `quorate:role`.
//!
//! It is strict: what is not understood in quorate's own documents is an error with its place; all errors of all
//! sources are reported at once. Lists are replaced, not joined.
//!
//! Except for reading the fragments' files it is pure. It asks neither the metadata service nor EC2: the caller
//! hands in user data and tags, and it must not call [`load`] while either is unknown, since unknown is not
//! absent.

mod errors;
pub(crate) mod flags;
mod fragments;
mod inputs;
mod keys;
mod kinds;
mod kubernetes;
mod lookup;
mod node;
mod resolve;
mod schema;
pub mod settings;
mod show;
mod units;
mod userdata;
mod values;
pub mod verbs;
mod yaml;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use errors::{ConfigError, ConfigErrors, Origin, Position, Problem, Source};
pub use fragments::{DIRECTORIES, Fragment};
pub use schema::schema;
pub use settings::Settings;
pub use show::show;
pub use units::InvalidUnit;
pub use userdata::{HEADER, PART_TYPE};
pub use values::InvalidValue;

use inputs::Input;
use resolve::Effective;

use crate::model::tags;

/// The instance's tags that configure it: what is definitely set, and what is definitely not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstanceTags {
    /// The value of `quorate:cluster`.
    pub cluster: Option<String>,
    /// The value of `quorate:role`.
    pub role: Option<String>,
}

/// Configuration that was read, merged and found valid.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Each effective key, its value as it is written in YAML, and where it came from; in the order of the keys.
    pub origins: Vec<(&'static str, String, Origin)>,
    /// The fragments, in the order in which they were merged.
    pub fragments: Vec<Fragment>,
    /// What of the user data is not quorate's: where, and what it is.
    pub passed_over: Vec<(Source, String)>,
}

/// Reads and merges all sources. `root` is what `/usr/lib` and `/etc` lie below; `user_data` and `tags` are absent
/// only where the instance definitely has none.
pub fn load(root: &Path, user_data: Option<&[u8]>, tags: &InstanceTags) -> Result<Loaded, ConfigErrors> {
    let mut errors = Vec::new();
    let mut fragments = fragments::read_directories(root, &mut errors);
    let user_data = user_data.map(|raw| userdata::read(raw, &mut errors)).unwrap_or_default();
    fragments.extend(user_data.fragments);
    let mut inputs: Vec<Input> =
        fragments.iter().flat_map(|fragment| inputs::read(fragment, &mut errors)).collect();
    let tags = [("cluster", tags::CLUSTER, &tags.cluster), ("role", tags::ROLE, &tags.role)];
    for (path, tag, text) in tags {
        if let Some(text) = text {
            inputs.extend(inputs::read_tag(&Source::Tag(tag), path, text, &mut errors));
        }
    }
    let effective = Effective::merge(&inputs);
    effective.check(Completeness::Whole, &mut errors);
    let settings = ConfigErrors::unless_empty(errors, ())
        .and_then(|()| effective.settings().map_err(ConfigErrors::from))?;
    let origins = effective
        .iter()
        .map(|input| (input.key.path, show::render(input.key, &input.value), input.origin.clone()))
        .collect();
    Ok(Loaded { settings, origins, fragments, passed_over: user_data.passed_over })
}

/// How much files that are checked by themselves have to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completeness {
    /// They may be a part of the configuration: no key is missing, and rules between keys hold where all the keys
    /// are set.
    Fragments,
    /// They are all of it.
    Whole,
}

/// Checks files by themselves, merged in the given order; gives back what was read.
pub fn check_files(files: &[PathBuf], completeness: Completeness) -> Result<Vec<Fragment>, ConfigErrors> {
    let mut errors = Vec::new();
    let fragments = fragments::read_files(files, &mut errors);
    let inputs: Vec<Input> =
        fragments.iter().flat_map(|fragment| inputs::read(fragment, &mut errors)).collect();
    let effective = Effective::merge(&inputs);
    effective.check(completeness, &mut errors);
    ConfigErrors::unless_empty(errors, fragments)
}
