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
//! ```
//!
//! Each transition here takes the charter that was read and gives the one to write, or says why
//! not. Writing it under the condition that nobody else did is the executor's work. These very
//! functions are what the model checker runs.

use serde::{Deserialize, Serialize};

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
        Ok(Self { cluster, uuid, region, generation: Generation(1), zones, founders, nonce })
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
    /// The slot is no founder with that volume, is still at that address, or has no mark.
    pub fn withdraw(
        &self,
        slot: Slot,
        volume: &VolumeId,
        peer_url: &str,
        nonce: Nonce,
    ) -> Result<Self, CharterRefusal> {
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

    /// The next generation, with other founders, in place of one that never had a quorum.
    ///
    /// # Errors
    /// A majority has started, or the new founders are fewer than a majority of the slots.
    pub fn refound(&self, founders: Vec<Founder>, nonce: Nonce) -> Result<Self, CharterRefusal> {
        if self.established() {
            return Err(CharterRefusal::Established {
                started: self.started(),
                founders: self.founders.len(),
                generation: self.generation,
            });
        }
        check_founders(&founders, self.size())?;
        Ok(Self { generation: self.generation.next(), founders, nonce, ..self.clone() })
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
mod tests {
    use super::*;

    fn slot(n: u8) -> Slot {
        Slot::try_from(n).unwrap()
    }

    fn volume(n: u8) -> VolumeId {
        format!("vol-0000000{n}").parse().unwrap()
    }

    fn url(n: u8) -> String {
        format!("https://10.0.0.{n}:2380")
    }

    fn nonce() -> Nonce {
        "again".parse().unwrap()
    }

    fn founder(n: u8) -> Founder {
        let instance = format!("i-0000000{n}").parse().unwrap();
        Founder { slot: slot(n), volume: volume(n), instance, peer_url: url(n), started: None }
    }

    fn found(size: u8, founders: &[u8]) -> Result<Charter, CharterRefusal> {
        Charter::found(
            "demo".parse().unwrap(),
            "00000000-0000-0000-0000-000000000001".parse().unwrap(),
            "eu-west-1".parse().unwrap(),
            (0..size).map(|_| "eu-west-1a".parse().unwrap()).collect(),
            founders.iter().map(|n| founder(*n)).collect(),
            "first".parse().unwrap(),
        )
    }

    fn marked(mut charter: Charter, slots: &[u8]) -> Charter {
        for n in slots {
            charter = charter.mark_started(slot(*n), &volume(*n), &url(*n), nonce()).unwrap();
        }
        charter
    }

    #[test]
    fn a_founding_needs_a_majority_of_the_slots_each_once() {
        for (size, founders) in [(1, &[1][..]), (3, &[1, 2]), (3, &[1, 2, 3]), (5, &[1, 3, 5])] {
            assert!(found(size, founders).is_ok(), "{founders:?} of {size}");
        }
        for (size, founders) in
            [(1, &[][..]), (3, &[1]), (3, &[1, 1]), (3, &[1, 2, 2]), (3, &[1, 4]), (5, &[1, 2])]
        {
            assert!(found(size, founders).is_err(), "{founders:?} of {size}");
        }
    }

    #[test]
    fn marks_are_numbered_in_the_order_of_starting() {
        let charter = marked(found(3, &[1, 2, 3]).unwrap(), &[2, 1]);
        let places: Vec<_> = charter.founders.iter().map(|founder| founder.started).collect();
        assert_eq!(places, [Some(2), Some(1), None]);
        assert_eq!(charter.nonce, nonce());
    }

    #[test]
    fn a_majority_of_the_founders_establishes_the_cluster() {
        let charter = found(3, &[1, 2, 3]).unwrap();
        assert!(!marked(charter.clone(), &[1]).established());
        assert!(marked(charter, &[1, 2]).established());
        // Of two founders both are needed: they are the whole of the first members.
        let charter = found(3, &[1, 2]).unwrap();
        assert!(!marked(charter, &[1]).established());
    }

    #[test]
    fn only_the_volume_and_address_that_were_named_start_and_only_once() {
        let charter = found(3, &[1, 2]).unwrap();
        let refused =
            |n: u8, v: u8, u: u8| charter.mark_started(slot(n), &volume(v), &url(u), nonce()).unwrap_err();
        for refusal in [refused(1, 2, 1), refused(1, 1, 2), refused(3, 3, 3)] {
            assert!(matches!(refusal, CharterRefusal::NotAFounder { .. }), "{refusal}");
        }
        let again = marked(charter, &[1]).mark_started(slot(1), &volume(1), &url(1), nonce());
        assert!(matches!(again, Err(CharterRefusal::AlreadyStarted { .. })));
    }

    #[test]
    fn a_mark_is_withdrawn_only_from_another_address_and_only_when_it_is_set() {
        let charter = marked(found(3, &[1, 2, 3]).unwrap(), &[1, 2]);
        let withdrawn = charter.withdraw(slot(1), &volume(1), &url(9), nonce()).unwrap();
        assert_eq!((withdrawn.started(), withdrawn.established()), (1, false));
        let here = charter.withdraw(slot(1), &volume(1), &url(1), nonce());
        assert!(matches!(here, Err(CharterRefusal::SameAddress { .. })));
        let other = charter.withdraw(slot(1), &volume(9), &url(9), nonce());
        assert!(matches!(other, Err(CharterRefusal::NotAFounder { .. })));
        let unmarked = charter.withdraw(slot(3), &volume(3), &url(9), nonce());
        assert!(matches!(unmarked, Err(CharterRefusal::NotStarted { .. })));
    }

    #[test]
    fn a_new_generation_is_founded_only_while_no_majority_has_started() {
        let charter = marked(found(3, &[1, 2, 3]).unwrap(), &[1]);
        let next = charter.refound(vec![founder(2), founder(3)], nonce()).unwrap();
        assert_eq!((next.generation, next.started(), &next.uuid), (Generation(2), 0, &charter.uuid));
        let few = charter.refound(vec![founder(2)], nonce());
        assert!(matches!(few, Err(CharterRefusal::TooFewFounders { .. })));
        let started = vec![founder(2), Founder { started: Some(1), ..founder(3) }];
        assert!(charter.refound(started, nonce()).is_err());
        let established = marked(charter, &[2]).refound(vec![founder(2), founder(3)], nonce());
        assert!(matches!(established, Err(CharterRefusal::Established { started: 2, founders: 3, .. })));
    }

    #[test]
    fn a_slot_is_moved_only_in_an_established_cluster_and_only_elsewhere() {
        let (here, there): (Zone, Zone) = ("eu-west-1a".parse().unwrap(), "eu-west-1b".parse().unwrap());
        let charter = marked(found(3, &[1, 2, 3]).unwrap(), &[1]);
        let early = charter.move_slot(slot(3), &there, nonce());
        assert!(matches!(early, Err(CharterRefusal::NotEstablished { started: 1, founders: 3, .. })));
        let charter = marked(charter, &[2]);
        let moved = charter.move_slot(slot(3), &there, nonce()).unwrap();
        assert_eq!(moved.zones, [here.clone(), here.clone(), there.clone()]);
        assert_eq!(moved.zone_of(slot(3)), Some(&there));
        assert_eq!(
            Charter { zones: charter.zones.clone(), ..moved.clone() },
            Charter { nonce: nonce(), ..charter.clone() }
        );
        for (n, zone) in [(3, &there), (4, &here)] {
            let refused = moved.move_slot(slot(n), zone, nonce()).unwrap_err();
            assert!(matches!(refused, CharterRefusal::NoMove { .. }), "{refused}");
        }
        let told = moved.move_slot(slot(4), &here, nonce()).unwrap_err().to_string();
        assert_eq!(
            told,
            "slot 4 can't be moved to eu-west-1a: the slots are in eu-west-1a, eu-west-1a, eu-west-1b"
        );
    }

    #[test]
    fn a_refusal_changes_nothing_and_says_what_was_found() {
        let charter = found(3, &[1, 2]).unwrap();
        let refusal = charter.mark_started(slot(1), &volume(1), &url(7), nonce()).unwrap_err();
        let told =
            "slot 1 with volume vol-00000001 at https://10.0.0.7:2380 is not a founder of generation 1";
        assert_eq!(refusal.to_string(), told);
        assert_eq!(charter, found(3, &[1, 2]).unwrap());
    }

    #[test]
    fn prints_and_parses_back_and_refuses_what_it_does_not_know() {
        let charter = marked(found(3, &[1, 2, 3]).unwrap(), &[3]);
        let mut text = serde_json::to_value(&charter).unwrap();
        assert_eq!(serde_json::from_value::<Charter>(text.clone()).unwrap(), charter);
        text["later"] = serde_json::Value::Bool(true);
        assert!(serde_json::from_value::<Charter>(text).is_err());
    }
}
