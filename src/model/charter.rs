//! The charter: the one object that says that the cluster exists and who founded it.
//!
//! It is a small state machine in one S3 object, changed only by compare-and-set, so that every
//! decision about founding is linearised through it:
//!
//! ```text
//! absent ──found──▶ Founding(1) ──mark_started ×majority──▶ established
//!                     │      ▲
//!                     │      └─ withdraw (a volume that never took part)
//!                     └─refound, only while no majority has started──▶ Founding(2) …
//!
//! established ──move_slot──▶ established: the slot has another zone
//!     │
//!     └─recover──▶ Recovering(g+1) ──mark_started, of its one founder──▶ established
//!                     │      ▲
//!                     └──────┴─ recover or refound: another founder, generation g+2 …
//! ```
//!
//! **Recovering** is a founding that begins with what there was: it has one founder, whose etcd data are made from a
//! backup or from a surviving member's ([`Recovery`]) before it is marked as started. There is no way back from it, or
//! from an established generation, to a founding that begins with nothing: `refound` is refused to the one and keeps
//! the other's [`Recovery`], `recover` always names one, and a founder's mark in a recovery is never withdrawn. So once a
//! generation was established, no later one starts etcd as `new`.
//!
//! Each transition here takes the charter that was read and gives the one to write, or says why
//! not. Writing it under the condition that nobody else did is the executor's work. These very
//! functions are what the model checker runs.

use serde::{Deserialize, Serialize};

use super::backup::RestorePoint;
use super::ids::{ClusterName, ClusterUuid, Generation, InstanceId, Nonce, Region, Slot, VolumeId, Zone};

/// The charter, as `charter.json`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Charter {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// The cluster's UUID: the same in all generations.
    pub uuid: ClusterUuid,
    /// The region: peers elsewhere are refused.
    pub region: Region,
    /// Which founding this is.
    pub generation: Generation,
    /// The zone of each slot, slot 1 first; its length is the cluster's size.
    pub zones: Vec<Zone>,
    /// The slots that form this generation.
    pub founders: Vec<Founder>,
    /// What this generation begins with; nothing, in a founding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// The last writer's mark, by which a write whose answer was lost is recognised.
    pub nonce: Nonce,
}

/// A slot that takes part in a founding.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Founder {
    /// The slot.
    pub slot: Slot,
    /// Its volume.
    pub volume: VolumeId,
    /// The instance that held the volume when the founding was proposed.
    pub instance: InstanceId,
    /// Where its member will be reached, `https://ADDRESS:2380`.
    pub peer_url: String,
    /// Its place in the order of starting, from 1; `null` until its holder is about to start etcd.
    pub started: Option<u8>,
}

/// What a generation begins with that follows an established one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "from", deny_unknown_fields)]
pub enum Recovery {
    /// A backup.
    Backup {
        /// How much of which.
        point: RestorePoint,
    },
    /// The data of a member of an earlier generation.
    Survivor {
        /// The volume that they are on, which is the founder's.
        volume: VolumeId,
        /// Their generation.
        generation: Generation,
    },
}

/// What an amendment of the charter changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CharterChange {
    /// A founder is about to start.
    MarkStarted,
    /// A founder's mark is taken back.
    Withdraw,
    /// A new generation is founded.
    Refound,
    /// A slot has another zone.
    MoveSlot,
    /// A new generation begins with a backup, or with a survivor's data.
    Recover,
}

/// A transition that the charter does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CharterRefusal {
    /// The slot is not a founder, or not with this volume and address.
    #[error("slot {slot} with volume {volume} at {peer_url} is not a founder of generation {generation}")]
    NotAFounder {
        /// The slot.
        slot: Slot,
        /// The volume that is held.
        volume: VolumeId,
        /// The address that is held.
        peer_url: String,
        /// The generation asked about.
        generation: Generation,
    },
    /// The founder has started already.
    #[error("slot {slot} has already started in generation {generation}")]
    AlreadyStarted {
        /// The slot.
        slot: Slot,
        /// The generation asked about.
        generation: Generation,
    },
    /// The founder has not started, so there is no mark to withdraw.
    #[error("slot {slot} has not started in generation {generation}")]
    NotStarted {
        /// The slot.
        slot: Slot,
        /// The generation asked about.
        generation: Generation,
    },
    /// The address is still the one named: the founder may simply start.
    #[error("slot {slot} is still at {peer_url}")]
    SameAddress {
        /// The slot.
        slot: Slot,
        /// The address.
        peer_url: String,
    },
    /// A majority of the founders has started: the generation may have accepted writes.
    #[error("{started} of {founders} founders of generation {generation} have started: it may hold data")]
    Established {
        /// How many have started.
        started: usize,
        /// How many there are.
        founders: usize,
        /// The generation.
        generation: Generation,
    },
    /// In a recovery a founder's mark stays: it had its data before it was marked.
    #[error("slot {slot} had its data restored before it was marked in generation {generation}")]
    Restored {
        /// The slot.
        slot: Slot,
        /// The generation.
        generation: Generation,
    },
    /// There is nothing to recover: no generation of this cluster ever had a quorum.
    #[error(
        "{started} of {founders} founders of generation {generation} have started: there is nothing to recover, \
         and it may yet be founded"
    )]
    NeverEstablished {
        /// How many have started.
        started: usize,
        /// How many there are.
        founders: usize,
        /// The generation.
        generation: Generation,
    },
    /// A recovery has one founder that has not started, in a slot of the cluster, and on the survivor's volume where
    /// there is one.
    #[error("{found} can't found a recovery{}", on_volume(.expected.as_ref()))]
    NotTheFounder {
        /// Whoever was given.
        found: String,
        /// The volume that it must hold, in a recovery from a survivor.
        expected: Option<VolumeId>,
    },
    /// Only an established cluster moves its slots.
    #[error(
        "slot {slot} stays in its zone: {started} of {founders} founders of generation {generation} have started"
    )]
    NotEstablished {
        /// The slot.
        slot: Slot,
        /// How many have started.
        started: usize,
        /// How many there are.
        founders: usize,
        /// The generation.
        generation: Generation,
    },
    /// The cluster has no such slot, or it is in that zone already.
    #[error("slot {slot} can't be moved to {zone}: the slots are in {}", zones_of(.zones))]
    NoMove {
        /// The slot.
        slot: Slot,
        /// The zone that it was to be moved to.
        zone: Zone,
        /// The zone of each slot.
        zones: Vec<Zone>,
    },
    /// A founding needs a majority of the slots, each once.
    #[error("{found} founders for a cluster of {size}")]
    TooFewFounders {
        /// Distinct slots among the founders given.
        found: usize,
        /// The cluster's size.
        size: usize,
    },
}

fn zones_of(zones: &[Zone]) -> String {
    zones.iter().map(Zone::as_str).collect::<Vec<_>>().join(", ")
}

fn on_volume(volume: Option<&VolumeId>) -> String {
    volume.map_or_else(String::new, |volume| format!(" from volume {volume}"))
}

/// The majority of `n` voters.
pub fn majority(n: usize) -> usize {
    n / 2 + 1
}

impl Charter {
    /// The first founding of a cluster.
    ///
    /// # Errors
    /// Fewer founders than a majority of the slots, or a slot named twice or out of range.
    pub fn found(
        cluster: ClusterName,
        uuid: ClusterUuid,
        region: Region,
        zones: Vec<Zone>,
        founders: Vec<Founder>,
        nonce: Nonce,
    ) -> Result<Self, CharterRefusal> {
        check_founders(&founders, zones.len())?;
        Ok(Self { cluster, uuid, region, generation: Generation(1), zones, founders, recovery: None, nonce })
    }

    /// How many slots the cluster has.
    pub fn size(&self) -> usize {
        self.zones.len()
    }

    /// The founder in a slot.
    pub fn founder(&self, slot: Slot) -> Option<&Founder> {
        self.founders.iter().find(|founder| founder.slot == slot)
    }

    /// The zone of a slot.
    pub fn zone_of(&self, slot: Slot) -> Option<&Zone> {
        self.zones.get(usize::from(slot.number()).checked_sub(1)?)
    }

    /// How many founders have started.
    pub fn started(&self) -> usize {
        self.founders.iter().filter(|founder| founder.started.is_some()).count()
    }

    /// How many founders make a quorum of this generation.
    pub fn quorum(&self) -> usize {
        majority(self.founders.len())
    }

    /// Whether a majority has started. From then on etcd's own member list is the authority.
    pub fn established(&self) -> bool {
        self.started() >= self.quorum()
    }

    /// The charter in which `slot`, held with this volume at this address, is about to start etcd.
    ///
    /// # Errors
    /// The slot is no founder with that volume and address, or has started before.
    pub fn mark_started(
        &self,
        slot: Slot,
        volume: &VolumeId,
        peer_url: &str,
        nonce: Nonce,
    ) -> Result<Self, CharterRefusal> {
        let place = u8::try_from(self.started()).unwrap_or(u8::MAX).saturating_add(1);
        self.change(slot, volume, peer_url, nonce, |founder, generation| {
            if founder.peer_url != peer_url {
                return Err(CharterRefusal::NotAFounder {
                    slot,
                    volume: volume.clone(),
                    peer_url: peer_url.to_owned(),
                    generation,
                });
            }
            if founder.started.is_some() {
                return Err(CharterRefusal::AlreadyStarted { slot, generation });
            }
            founder.started = Some(place);
            Ok(())
        })
    }

    /// The charter in which the mark of `slot` is taken back, since its volume, now held at another
    /// address and without etcd data, never took part.
    ///
    /// # Errors
    /// The slot is no founder with that volume, is still at that address, or has no mark; or this is a recovery, where
    /// the data were there before the mark.
    pub fn withdraw(
        &self,
        slot: Slot,
        volume: &VolumeId,
        peer_url: &str,
        nonce: Nonce,
    ) -> Result<Self, CharterRefusal> {
        if self.recovery.is_some() {
            return Err(CharterRefusal::Restored { slot, generation: self.generation });
        }
        self.change(slot, volume, peer_url, nonce, |founder, generation| {
            if founder.peer_url == peer_url {
                return Err(CharterRefusal::SameAddress { slot, peer_url: peer_url.to_owned() });
            }
            if founder.started.take().is_none() {
                return Err(CharterRefusal::NotStarted { slot, generation });
            }
            Ok(())
        })
    }

    /// The next generation, with other founders, in place of one that never had a quorum. It begins with what that one
    /// was to begin with.
    ///
    /// # Errors
    /// A majority has started, or the new founders are fewer than a majority of the slots; in a recovery, they are not
    /// the one that it needs.
    pub fn refound(&self, founders: Vec<Founder>, nonce: Nonce) -> Result<Self, CharterRefusal> {
        if self.established() {
            return Err(CharterRefusal::Established {
                started: self.started(),
                founders: self.founders.len(),
                generation: self.generation,
            });
        }
        match &self.recovery {
            None => check_founders(&founders, self.size())?,
            Some(recovery) => check_recoverer(&founders, recovery, self.size())?,
        }
        Ok(Self { generation: self.generation.next(), founders, nonce, ..self.clone() })
    }

    /// The next generation, which begins with a backup or with a survivor's data, in place of an established one or of
    /// a recovery that has not begun.
    ///
    /// It says nothing about whether the present generation still lives: that is for whoever makes the move to know.
    ///
    /// # Errors
    /// No generation ever had a quorum, or the founder is not one that can begin.
    pub fn recover(
        &self,
        founder: Founder,
        recovery: Recovery,
        nonce: Nonce,
    ) -> Result<Self, CharterRefusal> {
        if !self.established() && self.recovery.is_none() {
            return Err(CharterRefusal::NeverEstablished {
                started: self.started(),
                founders: self.founders.len(),
                generation: self.generation,
            });
        }
        let founders = vec![founder];
        check_recoverer(&founders, &recovery, self.size())?;
        let generation = self.generation.next();
        Ok(Self { generation, founders, recovery: Some(recovery), nonce, ..self.clone() })
    }

    /// The charter in which a slot has another zone. It says where the slot's next volume is to be, and nothing
    /// about its member: that changes as in any other replacement.
    ///
    /// # Errors
    /// The cluster is not established, has no such slot, or the slot is in that zone already.
    pub fn move_slot(&self, slot: Slot, zone: &Zone, nonce: Nonce) -> Result<Self, CharterRefusal> {
        if !self.established() {
            return Err(CharterRefusal::NotEstablished {
                slot,
                started: self.started(),
                founders: self.founders.len(),
                generation: self.generation,
            });
        }
        let mut charter = Self { nonce, ..self.clone() };
        let place = usize::from(slot.number()).checked_sub(1).and_then(|index| charter.zones.get_mut(index));
        match place {
            Some(now) if now != zone => now.clone_from(zone),
            Some(_) | None => {
                let (zone, zones) = (zone.clone(), self.zones.clone());
                return Err(CharterRefusal::NoMove { slot, zone, zones });
            }
        }
        Ok(charter)
    }

    fn change(
        &self,
        slot: Slot,
        volume: &VolumeId,
        peer_url: &str,
        nonce: Nonce,
        change: impl FnOnce(&mut Founder, Generation) -> Result<(), CharterRefusal>,
    ) -> Result<Self, CharterRefusal> {
        let mut charter = self.clone();
        charter.nonce = nonce;
        let generation = self.generation;
        match charter.founders.iter_mut().find(|founder| founder.slot == slot && founder.volume == *volume) {
            Some(founder) => change(founder, generation)?,
            None => {
                return Err(CharterRefusal::NotAFounder {
                    slot,
                    volume: volume.clone(),
                    peer_url: peer_url.to_owned(),
                    generation,
                });
            }
        }
        Ok(charter)
    }
}

fn check_recoverer(founders: &[Founder], recovery: &Recovery, size: usize) -> Result<(), CharterRefusal> {
    let expected = match recovery {
        Recovery::Backup { .. } => None,
        Recovery::Survivor { volume, .. } => Some(volume),
    };
    match founders {
        [one]
            if one.started.is_none()
                && usize::from(one.slot.number()) <= size
                && expected.is_none_or(|volume| *volume == one.volume) =>
        {
            Ok(())
        }
        other => {
            let found: Vec<String> =
                other.iter().map(|one| format!("slot {} with volume {}", one.slot, one.volume)).collect();
            let found = if found.is_empty() { "nobody".to_owned() } else { found.join(", ") };
            Err(CharterRefusal::NotTheFounder { found, expected: expected.cloned() })
        }
    }
}

fn check_founders(founders: &[Founder], size: usize) -> Result<(), CharterRefusal> {
    let mut slots: Vec<_> = founders
        .iter()
        .filter(|founder| founder.started.is_none() && usize::from(founder.slot.number()) <= size)
        .map(|founder| founder.slot)
        .collect();
    slots.sort_unstable();
    slots.dedup();
    if slots.len() < majority(size) || slots.len() != founders.len() {
        return Err(CharterRefusal::TooFewFounders { found: slots.len(), size });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
