//! Auto Scaling groups: as many instances as are desired, spread over the zones.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::compute::{Instance, InstanceId, InstanceSpec};
use super::lifecycle::{HookSpec, LifecycleState};
use super::refresh::Refresh;
use super::{Refusal, World};

/// What a group is like.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct GroupSpec {
    /// Its name.
    pub name: String,
    /// Its zones; empty means all of the region's.
    pub zones: Vec<String>,
    /// How many instances it begins with.
    pub desired: usize,
    /// Never fewer desired than this.
    pub min: usize,
    /// Never more desired than this; 0 means as many as are desired.
    pub max: usize,
    /// Tags of the group, all of which are propagated to its instances.
    pub tags: BTreeMap<String, String>,
    /// What its instances are launched from; the zone is the group's choice.
    pub template: InstanceSpec,
    /// Its lifecycle hooks.
    pub hooks: Vec<HookSpec>,
    /// The pools that it registers its instances with: target groups' ARNs, and those of classic
    /// load balancers.
    pub pools: Vec<String>,
}

/// A group.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// What it is like.
    #[serde(flatten)]
    pub spec: GroupSpec,
    /// How many instances it should have now.
    #[serde(rename = "desiredNow")]
    pub desired: usize,
    /// Its ARN.
    pub arn: String,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// Its instance refresh: the one that goes on, or the last.
    pub refresh: Option<Refresh>,
    #[serde(skip)]
    rebalancing: bool,
    #[serde(skip)]
    pub(super) retry_at: Option<u64>,
}

impl World {
    /// Makes a group, which launches its instances at once.
    pub fn create_group(&mut self, mut spec: GroupSpec) -> Result<(), Refusal> {
        if self.view.groups.contains_key(&spec.name) {
            let message = "AutoScalingGroup by this name already exists";
            return Err(Refusal::bad("AlreadyExists", message));
        }
        if spec.zones.is_empty() {
            spec.zones.clone_from(&self.config.zones);
        }
        for zone in &spec.zones {
            self.zone_index(zone)?;
        }
        if spec.max == 0 {
            spec.max = spec.desired.max(spec.min);
        }
        check_desired(&spec, spec.desired)?;
        for pool in &spec.pools {
            self.pool(pool)?;
        }
        let unique = [8, 4, 4, 4, 12].map(|n| self.hex(n)).join("-");
        let group = Group {
            arn: format!(
                "arn:aws:autoscaling:{}:{}:autoScalingGroup:{unique}:autoScalingGroupName/{}",
                self.config.region, self.config.account, spec.name
            ),
            desired: spec.desired,
            created_ms: self.now,
            refresh: None,
            rebalancing: false,
            retry_at: None,
            spec,
        };
        self.view_mut().groups.insert(group.spec.name.clone(), group);
        self.settle();
        Ok(())
    }

    /// Asks for another number of instances, within the group's limits.
    pub fn set_desired_capacity(&mut self, name: &str, desired: usize) -> Result<(), Refusal> {
        check_desired(&self.group(name)?.spec, desired)?;
        if let Some(group) = self.view_mut().groups.get_mut(name) {
            group.desired = desired;
            group.retry_at = None;
        }
        self.settle();
        Ok(())
    }

    /// Says of an instance of a group whether it is healthy. One that is not is ended, through the
    /// hooks, and replaced. (Groups here give new instances no grace.)
    pub fn set_instance_health(&mut self, instance: &str, healthy: bool) -> Result<(), Refusal> {
        let Some(lifecycle) = self.lifecycle_mut(&InstanceId(instance.to_owned())) else {
            let message =
                format!("Instance Id not found - No managed instance found for instance ID {instance}");
            return Err(Refusal::bad("ValidationError", message));
        };
        lifecycle.healthy = healthy;
        self.settle();
        Ok(())
    }

    pub(super) fn group(&self, name: &str) -> Result<&Group, Refusal> {
        self.view.groups.get(name).ok_or_else(|| {
            Refusal::bad("ValidationError", format!("AutoScalingGroup name not found - {name}"))
        })
    }

    /// The group's instances, those on their way out included.
    pub fn members<'a>(
        view: &'a super::View,
        group: &'a str,
    ) -> impl Iterator<Item = (&'a Instance, &'a super::Lifecycle)> {
        let mine = view.instances.values().filter(move |i| i.group.as_deref() == Some(group));
        mine.filter_map(|i| i.lifecycle.as_ref().map(|l| (i, l)))
    }

    pub(super) fn step_groups(&mut self) -> bool {
        let mut changed = self.expire_holds() | self.end_draining();
        let names: Vec<String> = self.view.groups.keys().cloned().collect();
        for name in names {
            changed |= self.replace_the_dead(&name) || self.step_refresh(&name) || self.scale(&name);
        }
        changed
    }

    /// A group finds its dead by health checks, each some time after the death. What EC2 is already
    /// ending needs no check: its end is announced. Nor does what it was told.
    fn replace_the_dead(&mut self, name: &str) -> bool {
        let patience = self.config.timings.health_check_ms;
        let dead: Vec<InstanceId> = Self::members(&self.view, name)
            .filter(|(_, l)| !l.state.is_leaving())
            .filter(|(i, l)| {
                !l.healthy || !i.exists() || i.died_ms.is_some_and(|at| at + patience <= self.now)
            })
            .map(|(i, _)| i.id.clone())
            .collect();
        for id in &dead {
            if let Some(lifecycle) = self.lifecycle_mut(id) {
                lifecycle.healthy = false;
            }
            self.begin_termination(id);
        }
        !dead.is_empty()
    }

    fn scale(&mut self, name: &str) -> bool {
        let now = self.now;
        if self.view.groups.get(name).is_some_and(|g| g.retry_at.is_some_and(|at| at <= now)) {
            self.set_group(name, |g| g.retry_at = None);
        }
        let Some(group) = self.view.groups.get(name) else { return false };
        let surge = group.refresh.as_ref().and_then(Refresh::surge_zone).map(str::to_owned);
        let refreshes = group.refresh.as_ref().is_some_and(Refresh::goes_on);
        let desired = group.desired + usize::from(surge.is_some());
        let (rebalancing, retry_at) = (group.rebalancing, group.retry_at);
        let counted: Vec<(InstanceId, String, u64, LifecycleState)> = Self::members(&self.view, name)
            .filter(|(_, l)| !l.state.is_leaving())
            .map(|(i, l)| (i.id.clone(), i.zone.clone(), i.launched_ms, l.state))
            .collect();
        let in_zone = |zone: &str| counted.iter().filter(|(_, z, ..)| z == zone).count();
        let all_in_service = counted.iter().all(|(.., state)| *state == LifecycleState::InService);
        let open: Vec<&String> = group.spec.zones.iter().filter(|z| !self.zone_stopped(z)).collect();
        // What a refresh launches comes up beside what it replaces.
        let wanted = surge.filter(|zone| open.contains(&zone));
        let smallest = open.iter().min_by_key(|z| in_zone(z)).map(|z| (*z).clone());
        let largest = open.iter().map(|z| in_zone(z)).max().unwrap_or(0);
        let least = smallest.as_deref().map_or(0, in_zone);

        if counted.len() > desired {
            if rebalancing && !all_in_service {
                return false;
            }
            // The default policy: the fullest zone first, and there the oldest.
            let victim = counted.iter().max_by_key(|(_, zone, at, _)| (in_zone(zone), Reverse(*at)));
            let Some(id) = victim.map(|v| v.0.clone()) else { return false };
            self.set_group(name, |g| g.rebalancing = false);
            self.begin_termination(&id);
            return true;
        }
        // New instances come up in the wanting zone before surplus ones elsewhere are ended
        // (Auto Scaling user guide, "Rebalancing activities").
        let uneven = counted.len() == desired && all_in_service && !refreshes && largest >= least + 2;
        if counted.len() == desired && !uneven {
            return false;
        }
        if retry_at.is_some() {
            return false;
        }
        let retry = self.now + self.config.timings.launch_retry_ms;
        let Some(zone) = wanted.or(smallest) else {
            self.set_group(name, |g| g.retry_at = Some(retry));
            return true;
        };
        let mut template = group.spec.template.clone();
        let tags = group.spec.tags.clone();
        template.tags.extend(tags);
        template.zone = zone;
        if let Err(refusal) = self.launch(template, Some(name)) {
            tracing::warn!(group = name, %refusal, "a group can't launch");
            self.set_group(name, |g| g.retry_at = Some(retry));
            return true;
        }
        self.set_group(name, |g| {
            g.rebalancing |= uneven;
            g.retry_at = None;
        });
        true
    }

    fn set_group(&mut self, name: &str, change: impl FnOnce(&mut Group)) {
        if let Some(group) = self.view_mut().groups.get_mut(name) {
            change(group);
        }
    }
}

fn check_desired(spec: &GroupSpec, desired: usize) -> Result<(), Refusal> {
    if (spec.min..=spec.max).contains(&desired) {
        Ok(())
    } else {
        let message = format!("{desired} instances is not between {} and {}", spec.min, spec.max);
        Err(Refusal::bad("ValidationError", message))
    }
}
