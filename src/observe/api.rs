//! What quorate keeps in the API, who looks after it, and the add-ons' files on this machine.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};

use tokio::time::Duration;

use crate::cluster_api::{ApiClient, ApiError};
use crate::config::settings::{AddonName, ApiEndpoint};
use crate::host::files;
use crate::kubernetes::addons::inventory::Inventory;
use crate::kubernetes::addons::{Addon, ENDING, Variables};
use crate::kubernetes::objects::{WantedObject, first_things as wanted_things};
use crate::kubernetes::{Component, digest, paths};
use crate::model::addons::{AddonDirectory, AddonFile, AddonPlace, AddonsObservation, AppliedAddon};
use crate::model::fact::chain;
use crate::model::kubernetes::{
    ApiLease, ComponentObservation, FirstThings, KubernetesObservation, Readiness,
};
use crate::model::names::NotAServerUrl;
use crate::model::{Fact, InstanceId};
use crate::reach::Reach;

/// How long this machine's API server is waited for.
const ASK: Duration = Duration::from_secs(10);

type Components = BTreeMap<Component, ComponentObservation>;

/// All of it.
pub(super) async fn look(
    reach: &Reach,
    parsed: &mut Parsed,
    endpoint: &Fact<Option<ApiEndpoint>>,
    components: &Components,
) -> (Fact<Option<ApiLease>>, Fact<FirstThings>, AddonsObservation) {
    let (endpoint, api) = match reached(reach, endpoint, components).await {
        Ok(reached) => reached,
        Err(why) => {
            let addons = AddonsObservation::unknown(&why);
            return (Fact::unknown(why.clone()), Fact::unknown(why), addons);
        }
    };
    let lease = lease(&api).await;
    let (first_things, addons) =
        tokio::join!(first_things(reach, &api, endpoint), addons(reach, parsed, &api, endpoint, &lease));
    (lease, first_things, addons)
}

/// The lease, at every look, since it ends soon, and the add-ons' files, so that a change is followed soon.
/// The rest as in the last full look, if it was known then.
pub(super) async fn again(reach: &Reach, parsed: &mut Parsed, seen: &mut KubernetesObservation) {
    let (endpoint, api) = match reached(reach, &seen.remembered_endpoint, &seen.components).await {
        Ok(reached) => reached,
        Err(why) => {
            seen.api_lease = Fact::unknown(why);
            return;
        }
    };
    seen.api_lease = lease(&api).await;
    if !seen.first_things.is_known() {
        seen.first_things = first_things(reach, &api, endpoint).await;
    }
    if seen.addons.applied.is_known() {
        [seen.addons.shipped, seen.addons.operators] = parsed.all(reach, endpoint);
    } else {
        seen.addons = addons(reach, parsed, &api, endpoint, &seen.api_lease).await;
    }
}

/// The endpoint, and the way to this machine's API server when it is ready; else why there is none.
async fn reached<'a>(
    reach: &Reach,
    endpoint: &'a Fact<Option<ApiEndpoint>>,
    components: &Components,
) -> Result<(&'a ApiEndpoint, ApiClient), String> {
    let endpoint = match endpoint {
        Fact::Known(Some(endpoint)) => endpoint,
        Fact::Known(None) => return Err("not asked for: there is no endpoint yet".to_owned()),
        Fact::Unknown(why) => return Err(why.clone()),
    };
    let ready = components.get(&Component::ApiServer).is_some_and(|seen| seen.readiness == Readiness::Ready);
    if !ready {
        return Err("not asked for: this machine's API server is not ready".to_owned());
    }
    let api = ApiClient::connect(&reach.root.path(paths::ADMIN_KUBECONFIG)).await;
    Ok((endpoint, api.map_err(|error| chain(&error))?))
}

/// The answer, if it comes within this time.
pub(super) async fn in_time<T>(limit: Duration, ask: impl Future<Output = Result<T, ApiError>>) -> Fact<T> {
    match tokio::time::timeout(limit, ask).await {
        Ok(answer) => answer.into(),
        Err(_) => Fact::unknown(format!("no answer within {} s", limit.as_secs())),
    }
}

async fn lease(api: &ApiClient) -> Fact<Option<ApiLease>> {
    in_time(ASK, api.lease()).await
}

async fn first_things(reach: &Reach, api: &ApiClient, endpoint: &ApiEndpoint) -> Fact<FirstThings> {
    match wanted(reach, endpoint) {
        Ok(wanted) => in_time(ASK, api.unfit(&wanted)).await.map(|unfit| FirstThings { unfit }),
        Err(why) => Fact::Unknown(why),
    }
}

fn wanted(reach: &Reach, endpoint: &ApiEndpoint) -> Result<Vec<WantedObject>, String> {
    let path = reach.root.path(paths::CA);
    let authority = files::read_optional(&path).map_err(|error| chain(&error))?;
    let authority = authority.ok_or_else(|| format!("there is no {}", path.display()))?;
    let authority = String::from_utf8_lossy(&authority);
    let server = endpoint.url().parse().map_err(|error: NotAServerUrl| chain(&error))?;
    wanted_things(&reach.settings.cluster, &server, &authority).map_err(|error| chain(&error))
}

/// The add-ons. Whether their objects are there is asked for only where no other machine looks after them.
async fn addons(
    reach: &Reach,
    parsed: &mut Parsed,
    api: &ApiClient,
    endpoint: &ApiEndpoint,
    lease: &Fact<Option<ApiLease>>,
) -> AddonsObservation {
    let inventories = in_time(ASK, api.inventories()).await;
    let elsewhere = is_elsewhere(lease, &reach.identity.instance);
    let applied = match inventories {
        Fact::Known(found) => {
            let mut applied = BTreeMap::new();
            for (name, inventory) in found {
                let inventory = match inventory {
                    Fact::Known(inventory) => Fact::Known(existing(api, inventory, elsewhere).await),
                    Fact::Unknown(why) => Fact::Unknown(why),
                };
                applied.insert(name, inventory);
            }
            Fact::Known(applied)
        }
        Fact::Unknown(why) => Fact::Unknown(why),
    };
    let holding = if elsewhere { Fact::unknown(ELSEWHERE) } else { in_time(ASK, api.holding()).await };
    let [shipped, operators] = parsed.all(reach, endpoint);
    AddonsObservation { shipped, operators, applied, holding }
}

const ELSEWHERE: &str = "not asked for: another machine looks after it";

/// Whether another machine's name stands in the lease; whether that has ended is no matter here.
fn is_elsewhere(lease: &Fact<Option<ApiLease>>, me: &InstanceId) -> bool {
    let holder = lease.known().and_then(|lease| lease.as_ref()?.holder.as_deref());
    holder.is_some_and(|holder| !holder.is_empty() && holder != me.as_str())
}

async fn existing(api: &ApiClient, inventory: Inventory, elsewhere: bool) -> AppliedAddon {
    let missing = if elsewhere {
        Fact::unknown(ELSEWHERE)
    } else {
        in_time(ASK, async { api.missing(&mut api.kinds(), &inventory.objects).await }).await
    };
    AppliedAddon {
        digest: inventory.digest,
        objects: inventory.objects.len(),
        missing,
        failure: inventory.failure,
    }
}

/// What files were found to be: a file that says the same is not read as YAML at each look.
#[derive(Debug, Default)]
pub(super) struct Parsed(HashMap<PathBuf, (String, Variables, AddonFile)>);

impl Parsed {
    fn of(&mut self, path: &Path, name: &AddonName, variables: &Variables) -> AddonFile {
        let unfit = |why: String| AddonFile::Unfit(format!("{}: {why}", path.display()));
        let bytes = match files::read_optional(path) {
            Ok(Some(bytes)) => bytes,
            // It was listed a moment ago.
            Ok(None) => return unfit("it has just gone".to_owned()),
            Err(error) => return AddonFile::Unfit(chain(&error)),
        };
        let said = digest(&bytes);
        if let Some((before, with, file)) = self.0.get(path)
            && *before == said
            && with == variables
        {
            return file.clone();
        }
        let file = match Addon::parse(name, &bytes, variables) {
            Ok(addon) => AddonFile::Fit { holds: addon.holds(), digest: addon.digest },
            Err(error) => unfit(chain(&error)),
        };
        self.0.insert(path.to_owned(), (said, variables.clone(), file.clone()));
        file
    }

    /// The add-ons in a directory. One that is not there has none; one that can't be read is not known.
    fn directory(&mut self, path: &Path, variables: &Variables) -> Fact<AddonDirectory> {
        let unknown = |error: &io::Error| Fact::unknown(format!("reading {}: {error}", path.display()));
        let entries = match std::fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Fact::Known(AddonDirectory::default());
            }
            Err(error) => return unknown(&error),
        };
        let mut found = AddonDirectory::default();
        for entry in entries {
            let file = match entry {
                Ok(entry) => entry.file_name().to_string_lossy().into_owned(),
                Err(error) => return unknown(&error),
            };
            let at = path.join(&file);
            if file.starts_with('.') {
                continue;
            }
            let Some(stem) = file.strip_suffix(ENDING) else {
                if at.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("yml")) {
                    let why = format!("{}: its name does not end in {ENDING}", at.display());
                    found.misnamed.insert(file, why);
                }
                continue;
            };
            match stem.parse::<AddonName>() {
                Ok(name) => {
                    let read = self.of(&at, &name, variables);
                    found.files.insert(name, read);
                }
                Err(rule) => {
                    let why = format!("{}: its name, without {ENDING}, must be {rule}", at.display());
                    found.misnamed.insert(file, why);
                }
            }
        }
        Fact::Known(found)
    }

    /// Both directories.
    fn all(&mut self, reach: &Reach, endpoint: &ApiEndpoint) -> [Fact<AddonDirectory>; 2] {
        let variables = reach.variables(endpoint);
        [AddonPlace::Shipped, AddonPlace::Operators]
            .map(|place| self.directory(&reach.root.path(place.directory()), &variables))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{InstanceTags, load};

    fn variables(more: &str) -> Variables {
        let text = format!("cluster: demo\nbucket: demo-quorate\n{more}");
        let tags = InstanceTags { cluster: None, role: Some("control-plane".to_owned()) };
        let settings = load(Path::new("/nonexistent"), Some(text.as_bytes()), &tags).unwrap().settings;
        let endpoint = "api.example.com".parse().unwrap();
        Variables::of(&settings.cluster, &"eu-west-1".parse().unwrap(), &settings.kubernetes, &endpoint)
    }

    const MAP: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: '${QUORATE_CLUSTER_DOMAIN}'}}\n";

    #[test]
    fn a_directory_that_is_not_there_has_no_add_ons_and_one_that_can_not_be_read_is_not_known() {
        let dir = tempfile::tempdir().unwrap();
        let look = |path: &Path| Parsed::default().directory(path, &variables(""));
        assert_eq!(look(&dir.path().join("none")), Fact::Known(AddonDirectory::default()));
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let Fact::Unknown(why) = look(&file) else { panic!("a file is no directory") };
        assert!(why.contains(&file.display().to_string()), "{why}");
    }

    #[test]
    fn files_are_add_ons_by_their_names_and_a_bad_one_leaves_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let files = [("good", MAP), (".hidden", MAP), ("broken", "a: ["), ("Wrong", MAP), ("notes.txt", "")];
        for (name, text) in files {
            let name = if name.contains(".t") { name.to_owned() } else { format!("{name}.yaml") };
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        std::fs::write(dir.path().join("other.yml"), MAP).unwrap();
        std::fs::create_dir(dir.path().join("folder.yaml")).unwrap();
        let found = Parsed::default().directory(dir.path(), &variables(""));
        let Fact::Known(found) = found else { panic!("{found:?}") };
        let misnamed: Vec<&str> = found.misnamed.keys().map(String::as_str).collect();
        assert_eq!(misnamed, ["Wrong.yaml", "other.yml"]);
        let fit = |file: &AddonFile| matches!(file, AddonFile::Fit { .. });
        let files: Vec<(&str, bool)> =
            found.files.iter().map(|(name, file)| (name.as_str(), fit(file))).collect();
        assert_eq!(files, [("broken", false), ("folder", false), ("good", true)]);
        for (name, file) in &found.files {
            if let AddonFile::Unfit(why) = file {
                assert!(why.contains(&format!("{name}.yaml")), "{why}");
            }
        }
    }

    #[test]
    fn a_file_is_read_anew_when_it_or_what_its_variables_are_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        let mut parsed = Parsed::default();
        let mut look = |text: &str, more: &str| {
            std::fs::write(&path, text).unwrap();
            parsed.of(&path, &"a".parse().unwrap(), &variables(more))
        };
        let first = look(MAP, "");
        assert_eq!(look(MAP, ""), first);
        let other = look(MAP, "kubernetes: {clusterDomain: other.local}\n");
        assert_ne!(other, first);
        assert_eq!(look(MAP, ""), first);
        assert!(matches!(look("a: [", ""), AddonFile::Unfit(_)));
    }
}
