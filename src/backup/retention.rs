//! Retention: which backups are kept for how long.
//!
//! All of a day, one an hour of a week, one a day of as long as is set. A chain goes as a whole, its manifest first, so
//! that what is half gone is no chain any more. Never removed, whatever their age, are the two newest chains, of which one
//! may be damaged, the one that was last rehearsed with success, and any that is younger than a day. That something can't
//! be removed (Object Lock keeps it, or the role may not) harms nothing, and keeps nothing else from being removed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::error::BackupError;
use super::{read, rehearsal};
use crate::aws::{ObjectError, ObjectStore};
use crate::model::{BackupKey, BackupPart, ChainName, ClusterUuid};

const DAY: i64 = 86_400_000;
const HOUR: i64 = 3_600_000;
/// How many of the newest chains are kept in any case.
const NEWEST: usize = 2;

/// For how long what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Every chain.
    pub all: Duration,
    /// One of each hour.
    pub hourly: Duration,
    /// One of each day.
    pub daily: Duration,
}

/// The chains that are not kept any more. `chains` are those that were finished, with when they were begun, in
/// milliseconds since 1970; `good` is known to be restorable.
pub fn thinned(
    chains: &BTreeMap<ChainName, i64>,
    good: Option<&ChainName>,
    now: i64,
    retention: &Retention,
) -> Vec<ChainName> {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let (mut hours, mut days) = (BTreeSet::new(), BTreeSet::new());
    let mut thinned = Vec::new();
    // The newest of an hour or a day is the one that is kept.
    for (place, (chain, taken)) in chains.iter().rev().enumerate() {
        let age = now.saturating_sub(*taken);
        let first_of_its_hour = hours.insert(taken.div_euclid(HOUR));
        let first_of_its_day = days.insert(taken.div_euclid(DAY));
        let is_kept = place < NEWEST
            || Some(chain) == good
            || age < millis(retention.all).max(DAY)
            || (first_of_its_hour && age < millis(retention.hourly))
            || (first_of_its_day && age < millis(retention.daily));
        if !is_kept {
            thinned.push(chain.clone());
        }
    }
    thinned
}

/// Removes what is not kept any more, and uploads that were never finished. `now` is in milliseconds since 1970.
///
/// # Errors
/// S3 gave no answer: nothing is removed by half of what there is.
pub async fn thin(
    objects: &ObjectStore,
    uuid: &ClusterUuid,
    retention: &Retention,
    now: i64,
) -> Result<(), BackupError> {
    let rehearsed = rehearsal::last(objects).await?.filter(|rehearsal| rehearsal.error.is_none());
    let (mut chains, mut gone) = (BTreeMap::new(), Vec::new());
    for chain in read::all_chains(objects).await? {
        match read::manifest(objects, uuid, &chain).await {
            Ok(Some(manifest)) => drop(chains.insert(chain, manifest.taken)),
            Ok(None) if is_abandoned(objects, &chain, now).await? => gone.push(chain),
            Ok(None) => {}
            // Somebody may want to look at it.
            Err(error) if error.is_about_the_backup() => {
                tracing::warn!(error = crate::model::fact::chain(&error), "a backup is damaged");
            }
            Err(error) => return Err(error),
        }
    }
    gone.extend(thinned(&chains, rehearsed.as_ref().map(|rehearsal| &rehearsal.chain), now, retention));
    for chain in gone {
        match remove(objects, &chain).await {
            Ok(()) => tracing::info!(%chain, "removed a backup that is not kept any more"),
            Err(BackupError::Store(error @ ObjectError::Kept { .. })) => {
                tracing::warn!(%chain, error = crate::model::fact::chain(&error), "an old backup stays");
            }
            Err(error) => return Err(error),
        }
    }
    for upload in objects.abandoned_uploads(crate::model::backup::BACKUPS).await? {
        if now.saturating_sub(upload.begun) > DAY {
            objects.abort_upload(&upload).await?;
        }
    }
    Ok(())
}

/// A chain without a manifest to which nothing came for a day is nobody's any more.
async fn is_abandoned(objects: &ObjectStore, chain: &ChainName, now: i64) -> Result<bool, BackupError> {
    let newest = objects.objects(&chain.prefix()).await?.into_iter().map(|object| object.modified).max();
    Ok(newest.is_some_and(|modified| now.saturating_sub(modified) > DAY))
}

async fn remove(objects: &ObjectStore, chain: &ChainName) -> Result<(), BackupError> {
    objects.remove_backup(&BackupKey { chain: chain.clone(), part: BackupPart::Manifest }).await?;
    for key in objects.list(&chain.prefix()).await? {
        // What is not a backup's stays.
        if let Ok(key) = key.parse::<BackupKey>() {
            objects.remove_backup(&key).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Generation;

    const NOW: i64 = 1_700_000_000_000;
    const KEPT: Retention = Retention {
        all: Duration::from_hours(24),
        hourly: Duration::from_hours(24 * 7),
        daily: Duration::from_hours(24 * 90),
    };

    fn name(generation: u64, taken: i64) -> ChainName {
        ChainName::new(Generation(generation), taken / 1000, "0a1b2c3d").unwrap()
    }

    fn every_quarter(days: i64) -> BTreeMap<ChainName, i64> {
        (0..days * 96).map(|n| NOW - n * 900_000).map(|taken| (name(1, taken), taken)).collect()
    }

    #[test]
    fn all_of_a_day_one_an_hour_of_a_week_and_one_a_day_of_ninety() {
        let chains = every_quarter(120);
        let thinned: BTreeSet<_> = thinned(&chains, None, NOW, &KEPT).into_iter().collect();
        let kept = |from: i64, to: i64| {
            let aged = chains.iter().filter(|(_, taken)| (from..to).contains(&(NOW - **taken)));
            aged.filter(|(chain, _)| !thinned.contains(*chain)).count()
        };
        assert_eq!(kept(0, DAY), 96);
        assert_eq!(kept(DAY, 7 * DAY), 6 * 24);
        assert_eq!(kept(7 * DAY, 90 * DAY), 83);
        assert_eq!(kept(90 * DAY, 200 * DAY), 0);
    }

    #[test]
    fn thinning_again_and_again_leaves_what_thinning_once_would() {
        let mut chains = BTreeMap::new();
        let mut taken = NOW - 100 * DAY;
        while taken <= NOW {
            chains.insert(name(1, taken), taken);
            for gone in thinned(&chains, None, taken, &KEPT) {
                chains.remove(&gone);
            }
            taken += 900_000;
        }
        let age = |chain: &ChainName| NOW - chains[chain];
        assert_eq!(chains.keys().filter(|chain| age(chain) < DAY).count(), 96);
        let week = chains.keys().filter(|chain| (DAY..7 * DAY).contains(&age(chain))).count();
        assert!((143..=145).contains(&week), "{week}");
        let rest = chains.keys().filter(|chain| age(chain) >= 7 * DAY).count();
        assert!((82..=84).contains(&rest), "{rest}");
    }

    proptest! {
        #[test]
        fn the_newest_two_a_good_one_and_all_of_the_last_day_are_always_kept(
            ages in prop::collection::btree_set(0..400 * DAY, 1..60),
            all in 0u64..100_000, hourly in 0u64..1_000_000, daily in 0u64..10_000_000,
        ) {
            let chains: BTreeMap<_, _> =
                ages.iter().map(|age| (name(1, NOW - age), NOW - age)).collect();
            let kept = Retention {
                all: Duration::from_secs(all),
                hourly: Duration::from_secs(hourly),
                daily: Duration::from_secs(daily),
            };
            let good = chains.keys().next().unwrap();
            let gone = thinned(&chains, Some(good), NOW, &kept);
            for kept in chains.keys().rev().take(2).chain([good]) {
                prop_assert!(!gone.contains(kept));
            }
            prop_assert!(gone.iter().all(|chain| NOW - chains[chain] >= DAY));
        }
    }
}
