//! `quorate etcd`: its members, its backups, and the way back from one.
//!
//! What changes the cluster is one compare-and-set on the charter; the agents do the rest, each on its machine. So a
//! command that is cut off before it has changed nothing, and one that is cut off after it has changed everything.

use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::sleep;

use crate::aws::Written;
use crate::backup::read::{ChainEnd, UpTo};
use crate::backup::{BackupError, choose, configuration, read, rehearsal};
use crate::etcd::EtcdError;
use crate::host::{clock, volume};
use crate::model::charter::{CharterRefusal, Recovery};
use crate::model::fact::chain as words;
use crate::model::machine::client_url;
use crate::model::{
    ChainName, Charter, ClusterUuid, Fact, Founder, Observation, RestorePoint, Stamp, Versioned,
};
use crate::observe::{Depth, Memory, observe};
use crate::reach::{CHARTER, Reach};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum EtcdCommand {
    /// List the members, as a quorum of them tells.
    Members,
    /// Take a snapshot now, and wait until it is in S3 and was read back. The machine that keeps the backups takes it.
    Backup,
    /// List the backups, the newest first, and what came of the last rehearsal.
    Backups {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Read the newest backup through, and say whether it is whole and up to where.
    Verify {
        /// Every backup.
        #[arg(long)]
        all: bool,
    },
    /// Go back to a backup: the cluster begins anew with what it holds, and all that was written since is lost. The
    /// agents do it; each member sets its data aside and joins again.
    Restore {
        /// Up to where: `newest`, a moment such as 2026-11-22T10:00:00Z, a revision, or a backup's name.
        #[arg(long, value_name = "TIME|REVISION|NAME", default_value = "newest")]
        at: String,
        /// Whether to ask.
        #[command(flatten)]
        consent: Consent,
    },
    /// Go on with the data of this machine's member alone, when the others are gone for good. What it had not heard of
    /// is lost.
    Recover {
        /// Whether to ask.
        #[command(flatten)]
        consent: Consent,
    },
}

/// Whether it is to be asked before anything is lost.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Consent {
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    /// A backup was not read or written.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// etcd gave no answer, or refused.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// The charter is not there, or can't be read.
    #[error("there is no charter to go by: {why}")]
    NoCharter {
        /// What was found.
        why: String,
    },
    /// The charter does not allow it.
    #[error("the charter does not allow it")]
    Refused(#[source] CharterRefusal),
    /// The charter was changed by another at the same time.
    #[error("the charter was changed by another at the same time; look at what it says now, and begin again")]
    Raced,
    /// This machine has no slot of the cluster.
    #[error(
        "this machine can't found the next generation: {why}; run this on a control-plane machine that holds a slot"
    )]
    NoSlot {
        /// What is missing.
        why: String,
    },
    /// `--at` can't be understood.
    #[error(
        "--at {found}: expected `newest`, a moment such as 2026-11-22T10:00:00Z, a revision, or a backup's name"
    )]
    At {
        /// What was given.
        found: String,
    },
    /// No snapshot came in time.
    #[error(
        "no snapshot has come within {} minutes; which machine keeps the backups, and why it takes none, is in its \
         `quorate status`",
        BACKUP.as_secs() / 60
    )]
    NoBackup,
    /// At least one backup is not whole.
    #[error("{damaged} of {all} backups are not whole")]
    Damaged {
        /// How many are not.
        damaged: usize,
        /// How many there are.
        all: usize,
    },
    /// Whoever was asked said no.
    #[error("nothing was changed")]
    NoConsent,
    /// The output can't be written, or the answer not be read.
    #[error("writing the output, or reading the answer")]
    Output(#[from] std::io::Error),
    /// A result can't be written as JSON.
    #[error("writing JSON")]
    Json(#[from] serde_json::Error),
}

/// How long a snapshot that was asked for is waited for.
const BACKUP: Duration = Duration::from_mins(15);
const LOOK: Duration = Duration::from_millis(500);

/// Does what was asked. `answers` is where consent is read from.
pub async fn run(
    reach: &Reach,
    command: EtcdCommand,
    output: &mut dyn Write,
    answers: &mut dyn BufRead,
) -> Result<(), VerbError> {
    // In boxes: a look at the whole world has a large future.
    match command {
        EtcdCommand::Members => Box::pin(members(reach, output)).await,
        EtcdCommand::Backup => backup(reach, output).await,
        EtcdCommand::Backups { json } => backups(reach, json, output).await,
        EtcdCommand::Verify { all } => verify(reach, all, output).await,
        EtcdCommand::Restore { at, consent } => Box::pin(restore(reach, &at, consent, output, answers)).await,
        EtcdCommand::Recover { consent } => Box::pin(recover(reach, consent, output, answers)).await,
    }
}

/// One full look at the world.
async fn look(reach: &Reach) -> Observation {
    Box::pin(observe(reach, &mut Memory::default(), Depth::Full, Vec::new())).await
}

async fn charter(reach: &Reach) -> Result<Versioned<Charter>, VerbError> {
    let object = reach.aws.objects.url(CHARTER);
    let stored = reach.aws.objects.get(CHARTER).await.map_err(BackupError::from)?;
    let stored = stored.ok_or_else(|| VerbError::NoCharter { why: format!("{object} is not there") })?;
    let value = serde_json::from_slice(&stored.bytes)
        .map_err(|error| VerbError::NoCharter { why: format!("{object}: {error}") })?;
    Ok(Versioned { value, etag: stored.etag })
}

async fn members(reach: &Reach, output: &mut dyn Write) -> Result<(), VerbError> {
    let seen = look(reach).await;
    let view = match &seen.etcd.cluster {
        Fact::Known(view) => view,
        Fact::Unknown(why) => {
            writeln!(output, "no quorum answers: {why}")?;
            return Ok(());
        }
    };
    writeln!(
        output,
        "{:<8} {:<17} {:<8} {:<8} {:<19} {:<12} PEER URL",
        "NAME", "ID", "ROLE", "HEALTH", "INSTANCE", "SIZE"
    )?;
    for (id, member) in &view.members {
        let record = view.records.values().find(|record| record.member == Some(*id));
        let role = match (view.leader == Some(*id), member.learner) {
            (true, _) => "leader",
            (false, true) => "learner",
            (false, false) => "voter",
        };
        let health = match &member.healthy {
            Fact::Known(true) => "healthy",
            Fact::Known(false) => "ill",
            Fact::Unknown(_) => "silent",
        };
        let size =
            seen.etcd.care.known().and_then(|care| care.members.get(id)?.storage.known().map(|s| s.size));
        let size = size.map_or_else(|| "-".to_owned(), |size| format!("{:.1} MiB", mib(size)));
        let name = if member.name.is_empty() { "-" } else { &member.name };
        let instance = record.map_or("-", |record| record.instance.as_str());
        let urls = member.peer_urls.join(",");
        writeln!(output, "{name:<8} {id:<17} {role:<8} {health:<8} {instance:<19} {size:<12} {urls}")?;
    }
    Ok(())
}

async fn backup(reach: &Reach, output: &mut dyn Write) -> Result<(), VerbError> {
    let charter = charter(reach).await?.value;
    reach.etcd.set_endpoints(vec![client_url(reach.identity.address)]);
    reach.etcd.expect(Some((&charter.uuid, charter.generation)));
    let revision = reach.etcd.want_backup(clock::now_ms()).await?;
    writeln!(output, "asked for, at revision {revision}")?;
    let began = tokio::time::Instant::now();
    let objects = &reach.aws.objects;
    while began.elapsed() < BACKUP {
        let chains = read::chains(objects, charter.generation).await?;
        for chain in chains.iter().rev().take_while(|chain| chain.revision >= revision) {
            if let Some(manifest) = read::manifest(objects, &charter.uuid, chain).await? {
                writeln!(
                    output,
                    "{chain}: {} keys, {:.1} MiB, {:.1} MiB in S3; it was read back",
                    manifest.keys,
                    mib(manifest.size),
                    mib(manifest.stored_size)
                )?;
                return Ok(());
            }
        }
        sleep(LOOK).await;
    }
    Err(VerbError::NoBackup)
}

/// A backup, for a list.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    chain: ChainName,
    taken: i64,
    size: u64,
    keys: u64,
    segments: Option<u32>,
    revision: Option<i64>,
}

async fn backups(reach: &Reach, json: bool, output: &mut dyn Write) -> Result<(), VerbError> {
    let (uuid, objects) = (charter(reach).await?.value.uuid, &reach.aws.objects);
    let mut found = Vec::new();
    let mut odd = Vec::new();
    for chain in read::all_chains(objects).await?.into_iter().rev() {
        match read::manifest(objects, &uuid, &chain).await {
            Ok(Some(manifest)) => {
                let end = choose::end(objects, &uuid, &chain).await?;
                found.push(Listed {
                    chain,
                    taken: manifest.taken,
                    size: manifest.size,
                    keys: manifest.keys,
                    segments: end.as_ref().map(|link| link.segments),
                    revision: end.map(|link| link.revision),
                });
            }
            Ok(None) => odd.push(format!("{chain}: its snapshot is being taken, or was never finished")),
            Err(error) if error.is_about_the_backup() => odd.push(words(&error)),
            Err(error) => return Err(error.into()),
        }
    }
    let rehearsed = rehearsal::last(objects).await?;
    if json {
        let whole = serde_json::json!({ "backups": found, "unfinished": odd, "rehearsal": rehearsed });
        writeln!(output, "{}", serde_json::to_string_pretty(&whole)?)?;
        return Ok(());
    }
    writeln!(
        output,
        "{:<32} {:<20} {:>10} {:>9} {:>8} {:>20}",
        "NAME", "TAKEN", "KEYS", "MIB", "SEGMENTS", "UP TO REVISION"
    )?;
    for one in &found {
        let number = |n: Option<i64>| n.map_or_else(|| "unreadable".to_owned(), |n| n.to_string());
        writeln!(
            output,
            "{:<32} {:<20} {:>10} {:>9.1} {:>8} {:>20}",
            one.chain.to_string(),
            moment(one.taken),
            one.keys,
            mib(one.size),
            number(one.segments.map(i64::from)),
            number(one.revision)
        )?;
    }
    for line in odd {
        writeln!(output, "{line}")?;
    }
    match rehearsed {
        None => writeln!(output, "no backup was ever rehearsed")?,
        Some(rehearsal) => {
            let at = moment(rehearsal.at);
            match rehearsal.error {
                None => writeln!(
                    output,
                    "rehearsed {at}: {} up to revision {}, in {} ms",
                    rehearsal.chain,
                    rehearsal.revision.unwrap_or_default(),
                    rehearsal.took_ms
                )?,
                Some(error) => writeln!(output, "rehearsed {at}: {} FAILED: {error}", rehearsal.chain)?,
            }
        }
    }
    Ok(())
}

async fn verify(reach: &Reach, all: bool, output: &mut dyn Write) -> Result<(), VerbError> {
    let (charter, objects) = (charter(reach).await?.value, &reach.aws.objects);
    if !all {
        let point = choose::newest_whole(objects, &charter.uuid, charter.generation, UpTo::Newest).await?;
        writeln!(output, "{}", described(&point))?;
        let passed_over = point.passed_over.len();
        return if passed_over == 0 {
            Ok(())
        } else {
            Err(VerbError::Damaged { damaged: passed_over, all: passed_over + 1 })
        };
    }
    let (mut damaged, mut count) = (0, 0);
    for chain in read::all_chains(objects).await? {
        let verdict = match verify_one(reach, &charter.uuid, &chain).await {
            Ok(None) => continue,
            Ok(Some(verdict)) => verdict,
            Err(error) if error.is_about_the_backup() => Err(words(&error)),
            Err(error) => return Err(error.into()),
        };
        count += 1;
        match verdict {
            Ok(text) => writeln!(output, "{chain}: {text}")?,
            Err(why) => {
                damaged += 1;
                writeln!(output, "{chain}: NOT WHOLE: {why}")?;
            }
        }
    }
    if damaged > 0 { Err(VerbError::Damaged { damaged, all: count }) } else { Ok(()) }
}

/// The verdict on one chain; `None` when it was never finished.
async fn verify_one(
    reach: &Reach,
    uuid: &ClusterUuid,
    chain: &ChainName,
) -> Result<Option<Result<String, String>>, BackupError> {
    let objects = &reach.aws.objects;
    let Some(manifest) = read::manifest(objects, uuid, chain).await? else { return Ok(None) };
    read::snapshot(objects, &manifest, &mut std::io::sink()).await?;
    configuration::of_backup(objects, &manifest).await?;
    let read = read::follow(objects, manifest, UpTo::Newest).await?;
    Ok(Some(match read.end {
        ChainEnd::Broken(why) => Err(why),
        ChainEnd::Complete | ChainEnd::Wanted => Ok(described(&read.point)),
    }))
}

async fn restore(
    reach: &Reach,
    at: &str,
    consent: Consent,
    output: &mut dyn Write,
    answers: &mut dyn BufRead,
) -> Result<(), VerbError> {
    let versioned = charter(reach).await?;
    let charter = &versioned.value;
    let objects = &reach.aws.objects;
    let point = match at.parse::<ChainName>() {
        Ok(chain) => named(reach, charter, &chain).await?,
        Err(_) => choose::newest_whole(objects, &charter.uuid, charter.generation, up_to(at)?).await?,
    };
    let seen = look(reach).await;
    let founder = founder(reach, &seen, charter)?;
    writeln!(output, "restores   {}", described(&point))?;
    match &seen.etcd.care {
        Fact::Known(care) => {
            let lost = care.revision.saturating_sub(point.revision);
            writeln!(output, "lost       {lost} revisions: the cluster is at revision {}", care.revision)?;
        }
        Fact::Unknown(why) => {
            writeln!(output, "lost       all that was written after it; the cluster does not answer: {why}")?;
        }
    }
    for why in &point.passed_over {
        writeln!(output, "not used   {why}")?;
    }
    match configuration::changed_since(objects, &charter.uuid, &point.chain, &reach.settings).await {
        Ok(changed) => {
            for line in changed {
                writeln!(output, "since then {line}")?;
            }
        }
        // The data are another matter, and whole.
        Err(error) => writeln!(output, "since then what was configured is not known: {}", words(&error))?,
    }
    go_on(reach, &seen, &versioned, founder, Recovery::Backup { point }, consent, (output, answers)).await
}

async fn recover(
    reach: &Reach,
    consent: Consent,
    output: &mut dyn Write,
    answers: &mut dyn BufRead,
) -> Result<(), VerbError> {
    let versioned = charter(reach).await?;
    let charter = &versioned.value;
    let seen = look(reach).await;
    let founder = founder(reach, &seen, charter)?;
    let stamp = own_stamp(reach)?;
    let generation = match stamp.state.life() {
        Some((uuid, generation)) if *uuid == charter.uuid && generation == charter.generation => generation,
        Some((uuid, generation)) => {
            let why = format!(
                "its volume is of generation {generation} of cluster {uuid}, the charter's is {} of {}",
                charter.generation, charter.uuid
            );
            return Err(VerbError::NoSlot { why });
        }
        None => {
            return Err(VerbError::NoSlot { why: "its volume never took part in the cluster".to_owned() });
        }
    };
    writeln!(output, "goes on    with the data on {}, of slot {}", founder.volume, founder.slot)?;
    writeln!(output, "lost       what a majority had accepted, and this member had not heard of")?;
    let recovery = Recovery::Survivor { volume: founder.volume.clone(), generation };
    go_on(reach, &seen, &versioned, founder, recovery, consent, (output, answers)).await
}

/// Says what will happen, asks, and changes the charter.
async fn go_on(
    reach: &Reach,
    seen: &Observation,
    versioned: &Versioned<Charter>,
    founder: Founder,
    recovery: Recovery,
    consent: Consent,
    (output, answers): (&mut dyn Write, &mut dyn BufRead),
) -> Result<(), VerbError> {
    let charter = &versioned.value;
    let slot = founder.slot;
    let nonce = seen.entropy.clone();
    let next = charter.recover(founder, recovery, nonce).map_err(VerbError::Refused)?;
    writeln!(output, "begins     generation {}, on this machine, in slot {slot}", next.generation)?;
    for machine in others(reach, seen, charter) {
        writeln!(output, "stops      etcd on {machine}; its data are set aside, and it joins again")?;
    }
    writeln!(
        output,
        "A machine whose agent does not run, or does not reach S3, does not hear of this: stop its etcd by hand\n\
         (`systemctl stop quorate-etcd`), or a majority of such machines goes on as the cluster that was."
    )?;
    if !consent.yes {
        write!(output, "Type the cluster's name to go on: ")?;
        output.flush()?;
        let mut answer = String::new();
        answers.read_line(&mut answer)?;
        if answer.trim() != charter.cluster.as_str() {
            return Err(VerbError::NoConsent);
        }
    }
    let bytes = serde_json::to_vec_pretty(&next)?;
    match reach.aws.objects.replace(CHARTER, bytes, &versioned.etag).await.map_err(BackupError::from)? {
        Written::Yes(_) => {
            writeln!(output, "The charter says so now. The agents do the rest: see `quorate status`.")?;
            Ok(())
        }
        Written::No => Err(VerbError::Raced),
    }
}

/// The other machines that the charter or the slots' records name.
fn others(reach: &Reach, seen: &Observation, charter: &Charter) -> BTreeSet<String> {
    let view = seen.etcd.cluster.known();
    let recorded = view.into_iter().flat_map(|view| view.records.values().map(|record| &record.instance));
    let published = seen.published.known().and_then(Option::as_ref);
    let published = published.into_iter().flat_map(|members| members.slots.values().map(|r| &r.instance));
    let founders = charter.founders.iter().map(|founder| &founder.instance);
    recorded
        .chain(published)
        .chain(founders)
        .filter(|instance| **instance != reach.identity.instance)
        .map(ToString::to_string)
        .collect()
}

/// This machine, as the founder of the next generation.
fn founder(reach: &Reach, seen: &Observation, charter: &Charter) -> Result<Founder, VerbError> {
    let stamp = own_stamp(reach)?;
    if stamp.cluster != charter.cluster {
        let why = format!("its volume is of cluster {}, not of {}", stamp.cluster, charter.cluster);
        return Err(VerbError::NoSlot { why });
    }
    let held = seen.volumes.known().and_then(|volumes| volumes.get(&stamp.volume)?.holder().cloned());
    if held.as_ref() != Some(&reach.identity.instance) {
        let why = match seen.volumes.why() {
            Some(why) => format!("EC2 does not say who holds {}: {why}", stamp.volume),
            None => format!("EC2 does not say that it holds {}", stamp.volume),
        };
        return Err(VerbError::NoSlot { why });
    }
    Ok(Founder {
        slot: stamp.slot,
        volume: stamp.volume,
        instance: reach.identity.instance.clone(),
        peer_url: reach.identity.peer_url(),
        started: None,
    })
}

fn own_stamp(reach: &Reach) -> Result<Stamp, VerbError> {
    let no_slot = |why: String| VerbError::NoSlot { why };
    let found = volume::contents(&reach.mount_point()).map_err(|error| no_slot(words(&error)))?;
    match found.stamp {
        Fact::Known(Some(stamp)) => Ok(stamp),
        Fact::Known(None) => Err(no_slot("no volume with a stamp is mounted".to_owned())),
        Fact::Unknown(why) => Err(no_slot(why)),
    }
}

/// A backup by its name, as far as it is whole.
async fn named(reach: &Reach, charter: &Charter, chain: &ChainName) -> Result<RestorePoint, VerbError> {
    let objects = &reach.aws.objects;
    let manifest = read::named_manifest(objects, &charter.uuid, chain).await?;
    read::snapshot(objects, &manifest, &mut std::io::sink()).await?;
    let read = read::follow(objects, manifest, UpTo::Newest).await?;
    let passed_over = match read.end {
        ChainEnd::Broken(why) => vec![why],
        ChainEnd::Complete | ChainEnd::Wanted => Vec::new(),
    };
    Ok(RestorePoint { passed_over, ..read.point })
}

fn up_to(at: &str) -> Result<UpTo, VerbError> {
    if at == "newest" {
        return Ok(UpTo::Newest);
    }
    if let Ok(revision) = at.parse::<i64>() {
        return Ok(UpTo::Revision(revision));
    }
    let moment = OffsetDateTime::parse(at, &Rfc3339).map_err(|_| VerbError::At { found: at.to_owned() })?;
    let millis = i64::try_from(moment.unix_timestamp_nanos() / 1_000_000);
    millis.map(UpTo::Moment).map_err(|_| VerbError::At { found: at.to_owned() })
}

fn described(point: &RestorePoint) -> String {
    let RestorePoint { chain, segments, revision, at, .. } = point;
    format!("{chain} with {segments} segments, up to revision {revision}, seen {}", moment(*at))
}

fn moment(at: i64) -> String {
    OffsetDateTime::from_unix_timestamp(at.div_euclid(1000))
        .ok()
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_else(|| at.to_string())
}

#[expect(clippy::cast_precision_loss, reason = "a size to be read by people")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_go_back_to_is_a_word_a_revision_or_a_moment() {
        assert_eq!(up_to("newest").unwrap(), UpTo::Newest);
        assert_eq!(up_to("4711").unwrap(), UpTo::Revision(4711));
        assert_eq!(up_to("2026-11-22T10:00:00Z").unwrap(), UpTo::Moment(1_795_341_600_000));
        assert_eq!(up_to("2026-11-22T11:00:00+01:00").unwrap(), UpTo::Moment(1_795_341_600_000));
        for odd in ["yesterday", "", "2026-11-22", "47.11"] {
            assert!(matches!(up_to(odd), Err(VerbError::At { .. })), "{odd}");
        }
    }
}
