//! Applies add-ons and takes them away.
//!
//! Wherever it is cut off, the inventory in the API lists all that may be there of the add-on: it is written
//! before anything is applied, and shortened after what it had is gone. What the API refuses is written into
//! the inventory, where every machine sees it; the step itself then is done, and others go on.

use super::StepError;
use crate::cluster_api::addons::{Kinds, Placed};
use crate::cluster_api::{ApiClient, ApiError};
use crate::config::settings::{AddonName, ApiEndpoint};
use crate::host::{clock, files};
use crate::kubernetes::addons::inventory::{Entry, Inventory};
use crate::kubernetes::addons::{Addon, ENDING};
use crate::model::AddonPlace;
use crate::model::addons::AddonFailure;
use crate::model::fact::chain;
use crate::reach::Reach;

/// The longest text of a failure that is written down, in characters.
const LONGEST_WHY: usize = 800;

pub(super) async fn apply(
    reach: &Reach,
    name: &AddonName,
    place: AddonPlace,
    digest: &str,
    endpoint: &ApiEndpoint,
) -> Result<(), StepError> {
    let addon = read(reach, name, place, endpoint)?;
    if addon.digest != digest {
        return Err(StepError::OtherAddon { name: name.clone() });
    }
    apply_to(&super::kubernetes::api(reach).await?, name, &addon).await
}

async fn apply_to(api: &ApiClient, name: &AddonName, addon: &Addon) -> Result<(), StepError> {
    let digest = addon.digest.as_str();
    let mut kinds = api.kinds();
    let mut failures = Failures::default();
    let mut placed: Vec<Placed> = Vec::new();
    for object in &addon.objects {
        match api.place(&mut kinds, object).await {
            Ok(object) => placed.push(object),
            Err(error) => {
                failures.note(&error, false);
                if !error.is_refusal() {
                    break;
                }
            }
        }
    }
    let entries: Vec<Entry> = placed.iter().map(|object| object.entry.clone()).collect();
    let (had, mut version) = match api.inventory(name).await? {
        Some((had, version)) => (had, Some(version)),
        None => (Inventory::default(), None),
    };
    // From here on it is nothing as a whole, whatever the file says at the next look.
    let union = Inventory { digest: None, ..had.with(&entries) };
    if union != had || version.is_none() {
        version = Some(kept(api.write_inventory(name, &union, version.as_deref()).await?)?);
    }
    for object in &placed {
        match api.apply_placed(object).await {
            Ok(()) => {}
            Err(error) => {
                failures.note(&error, object.entry.kind == "Secret");
                // Who does not answer is not asked for all the others.
                if !error.is_refusal() {
                    break;
                }
            }
        }
    }
    if failures.is_empty() {
        for entry in union.without(&entries) {
            remove(api, &mut kinds, name, &entry, &mut failures).await;
        }
    }
    let now = if failures.is_empty() {
        tracing::info!(addon = %name, objects = entries.len(), "applied an add-on");
        Inventory { digest: Some(digest.to_owned()), objects: entries, failure: None }
    } else {
        let failure = failures.failure(Some(digest), union.failure.as_ref());
        tracing::warn!(addon = %name, why = failure.why, "an add-on was not applied as a whole");
        Inventory { failure: Some(failure), ..union }
    };
    kept(api.write_inventory(name, &now, version.as_deref()).await?).map(drop)
}

pub(super) async fn prune(reach: &Reach, name: &AddonName) -> Result<(), StepError> {
    prune_from(&super::kubernetes::api(reach).await?, name).await
}

async fn prune_from(api: &ApiClient, name: &AddonName) -> Result<(), StepError> {
    let Some((had, version)) = api.inventory(name).await? else { return Ok(()) };
    let mut kinds = api.kinds();
    let mut failures = Failures::default();
    for entry in had.without(&[]) {
        remove(api, &mut kinds, name, &entry, &mut failures).await;
    }
    if failures.is_empty() {
        tracing::info!(addon = %name, objects = had.objects.len(), "took an add-on away");
        return if api.delete_inventory(name, &version).await? { Ok(()) } else { Err(StepError::Overtaken) };
    }
    let failure = failures.failure(None, had.failure.as_ref());
    tracing::warn!(addon = %name, why = failure.why, "an add-on was not taken away as a whole");
    let now = Inventory { failure: Some(failure), ..had };
    kept(api.write_inventory(name, &now, Some(&version)).await?).map(drop)
}

/// Takes one object away, unless it holds what others put there.
async fn remove(
    api: &ApiClient,
    kinds: &mut Kinds,
    addon: &AddonName,
    entry: &Entry,
    failures: &mut Failures,
) {
    let key = entry.key();
    if key.holds_others_data() {
        tracing::warn!(%addon, object = %key, "left an object that may hold others' data");
        return;
    }
    match api.delete(kinds, addon, entry).await {
        Ok(true) => tracing::info!(%addon, object = %key, "deleted an object of an add-on"),
        Ok(false) => {}
        Err(error) => failures.note(&error, false),
    }
}

/// The add-on in its file, for this cluster.
fn read(
    reach: &Reach,
    name: &AddonName,
    place: AddonPlace,
    endpoint: &ApiEndpoint,
) -> Result<Addon, StepError> {
    let path = reach.root.path(format!("{}/{name}{ENDING}", place.directory()));
    let bytes = files::read_optional(&path)?.ok_or_else(|| StepError::OtherAddon { name: name.clone() })?;
    Ok(Addon::parse(name, &bytes, &reach.variables(endpoint))?)
}

fn kept(version: Option<String>) -> Result<String, StepError> {
    version.ok_or(StepError::Overtaken)
}

/// What went wrong with an add-on: the first failure, and how many more there were.
#[derive(Default)]
struct Failures {
    first: Option<String>,
    more: usize,
}

impl Failures {
    fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Notes what concerns this add-on alone. `secret`: what the API says must not be repeated.
    fn note(&mut self, error: &ApiError, secret: bool) {
        if self.first.is_some() {
            self.more += 1;
            return;
        }
        self.first = Some(if secret { error.without_message() } else { chain(error) });
    }

    fn failure(&self, digest: Option<&str>, before: Option<&AddonFailure>) -> AddonFailure {
        let at = clock::now_ms();
        let digest = digest.map(str::to_owned);
        let since = before.filter(|before| before.digest == digest).map_or(at, |before| before.since.min(at));
        let mut why: String = self.first.as_deref().unwrap_or_default().chars().take(LONGEST_WHY).collect();
        why = why.split_whitespace().collect::<Vec<_>>().join(" ");
        if self.more > 0 {
            why.push_str(&format!(" (and {} more)", self.more));
        }
        AddonFailure { digest, since, at, why }
    }
}

#[cfg(test)]
#[cfg(feature = "lab")]
mod tests;
