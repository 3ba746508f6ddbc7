//! Instance refresh: a group's instances are replaced, one after the other.
//!
//! Auto Scaling user guide, "Use an instance refresh to update instances in an Auto Scaling group". Of its batches there
//! is only the smallest, since the groups here are small; checkpoints, rollbacks and skipped instances are left out.

use serde::{Deserialize, Serialize};

use super::compute::InstanceId;
use super::groups::Group;
use super::lifecycle::LifecycleState;
use super::{Refusal, World};

/// How a group is refreshed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RefreshSpec {
    /// How much of the group stays in service, in percent. With less than 100, an instance is terminated first, and
    /// another is launched in its place.
    pub min_healthy_percentage: u32,
    /// How much of the group there may be, in percent. With more than 100, another is launched first, and when it is in
    /// service and warm, the old one is terminated.
    pub max_healthy_percentage: u32,
    /// How long each new one is in service before the next is replaced, in milliseconds.
    pub instance_warmup_ms: u64,
}

impl Default for RefreshSpec {
    fn default() -> Self {
        Self { min_healthy_percentage: 90, max_healthy_percentage: 100, instance_warmup_ms: 0 }
    }
}

impl RefreshSpec {
    fn launches_first(&self) -> bool {
        self.min_healthy_percentage >= 100 || self.max_healthy_percentage > 100
    }
}

/// How far a refresh is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefreshStatus {
    /// It goes on.
    InProgress,
    /// Every instance that there was has been replaced.
    Successful,
}

/// A group's refresh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refresh {
    /// Its id.
    pub id: String,
    /// How it goes.
    pub spec: RefreshSpec,
    /// How far it is.
    pub status: RefreshStatus,
    /// The instances that are still to be replaced, the next one first.
    pub to_replace: Vec<InstanceId>,
    /// The one whose successor is launched before it is terminated, and its zone.
    pub surge: Option<(InstanceId, String)>,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// When it was over.
    pub ended_ms: Option<u64>,
}

impl Refresh {
    /// Whether it goes on.
    pub fn goes_on(&self) -> bool {
        self.status == RefreshStatus::InProgress
    }

    /// The zone in which there is one more than is desired.
    pub(super) fn surge_zone(&self) -> Option<&str> {
        self.surge.as_ref().map(|(_, zone)| zone.as_str())
    }
}

impl World {
    /// Begins to replace every instance of a group; the answer is the refresh's id.
    pub fn start_refresh(&mut self, name: &str, spec: RefreshSpec) -> Result<String, Refusal> {
        let group = self.group(name)?;
        if group.refresh.as_ref().is_some_and(Refresh::goes_on) {
            let message = "An Instance Refresh is already in progress and blocks the execution of this Instance Refresh.";
            return Err(Refusal::bad("InstanceRefreshInProgress", message));
        }
        let (min, max) = (spec.min_healthy_percentage, spec.max_healthy_percentage);
        if min > 100 || !(100..=200).contains(&max) || max - min > 100 {
            let message = format!("{min} to {max} percent: 0 to 100, and 100 to 200, and at most 100 apart");
            return Err(Refusal::bad("ValidationError", message));
        }
        let mut members: Vec<(u64, InstanceId)> = Self::members(&self.view, name)
            .filter(|(_, l)| !l.state.is_leaving())
            .map(|(i, _)| (i.launched_ms, i.id.clone()))
            .collect();
        members.sort();
        let id = [8, 4, 4, 4, 12].map(|n| self.hex(n)).join("-");
        let refresh = Refresh {
            id: id.clone(),
            spec,
            status: RefreshStatus::InProgress,
            to_replace: members.into_iter().map(|(_, id)| id).collect(),
            surge: None,
            started_ms: self.now,
            ended_ms: None,
        };
        self.set_refresh(name, |slot| *slot = Some(refresh));
        self.settle();
        Ok(id)
    }

    /// When an instance is warm, or was long ago.
    fn warm_at(&self, name: &str, refresh: &Refresh) -> Option<u64> {
        let new = Self::members(&self.view, name).filter(|(i, _)| i.launched_ms >= refresh.started_ms);
        let since =
            new.filter(|(i, _)| !refresh.to_replace.contains(&i.id)).filter_map(|(_, l)| l.in_service_ms);
        since.max().map(|at| at + refresh.spec.instance_warmup_ms)
    }

    pub(super) fn refresh_due(&self, group: &Group) -> Option<u64> {
        let refresh = group.refresh.as_ref().filter(|r| r.goes_on())?;
        self.warm_at(&group.spec.name, refresh).filter(|at| *at > self.now)
    }

    /// Takes a refresh one step further, when the group is as it should be for that.
    pub(super) fn step_refresh(&mut self, name: &str) -> bool {
        let Some(group) = self.view.groups.get(name) else { return false };
        let Some(refresh) = group.refresh.clone().filter(Refresh::goes_on) else { return false };
        let counted: Vec<(InstanceId, String, LifecycleState)> = Self::members(&self.view, name)
            .filter(|(_, l)| !l.state.is_leaving())
            .map(|(i, l)| (i.id.clone(), i.zone.clone(), l.state))
            .collect();
        let wanted = group.desired + usize::from(refresh.surge.is_some());
        let all_in_service = counted.iter().all(|(.., state)| *state == LifecycleState::InService);
        let warm = self.warm_at(name, &refresh).is_none_or(|at| at <= self.now);
        if counted.len() != wanted || !all_in_service || !warm {
            return false;
        }
        if let Some((old, _)) = &refresh.surge {
            self.set_refresh(name, |slot| {
                if let Some(refresh) = slot {
                    refresh.surge = None;
                }
            });
            self.begin_termination(old);
            return true;
        }
        // Those that went away by themselves have been replaced, too.
        let next = refresh.to_replace.iter().position(|id| counted.iter().any(|(there, ..)| there == id));
        let now = self.now;
        let Some(index) = next else {
            self.set_refresh(name, |slot| {
                if let Some(refresh) = slot {
                    refresh.status = RefreshStatus::Successful;
                    refresh.to_replace.clear();
                    refresh.ended_ms = Some(now);
                }
            });
            return true;
        };
        let old = refresh.to_replace.get(index).cloned();
        let zone = counted.iter().find(|(id, ..)| Some(id) == old.as_ref()).map(|(_, zone, _)| zone.clone());
        let (Some(old), Some(zone)) = (old, zone) else { return false };
        let launches_first = refresh.spec.launches_first();
        self.set_refresh(name, |slot| {
            if let Some(refresh) = slot {
                refresh.to_replace.drain(..=index);
                refresh.surge = launches_first.then(|| (old.clone(), zone));
            }
        });
        if !launches_first {
            self.begin_termination(&old);
        }
        true
    }

    fn set_refresh(&mut self, name: &str, change: impl FnOnce(&mut Option<Refresh>)) {
        if let Some(group) = self.view_mut().groups.get_mut(name) {
            change(&mut group.refresh);
        }
    }
}
