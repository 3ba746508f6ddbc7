//! What EC2 tells an instance of its own end, and the end that follows.
//!
//! Interruptions of spot instances, recommendations to rebalance, and scheduled events, with the forms of the EC2 user
//! guide ("Spot Instance interruption notices", "EC2 instance rebalance recommendations", "Scheduled events for your
//! instances"). An instance that EC2 stops or hibernates is ended here: its group takes a stopped one for unhealthy and
//! terminates it. Reboots are announced and not made.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::compute::{Instance, InstanceId};
use super::{Refusal, World};
use crate::lab::region::clock;

/// What becomes of a spot instance that is interrupted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpotAction {
    /// It is terminated.
    #[default]
    Terminate,
    /// It is stopped.
    Stop,
    /// It is hibernated.
    Hibernate,
}

impl SpotAction {
    /// The name in the notice.
    pub fn name(self) -> &'static str {
        match self {
            Self::Terminate => "terminate",
            Self::Stop => "stop",
            Self::Hibernate => "hibernate",
        }
    }
}

/// The notice of a spot instance's interruption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Interruption {
    /// What becomes of it.
    pub action: SpotAction,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// The kinds of scheduled events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaintenanceCode {
    /// The instance is rebooted.
    InstanceReboot,
    /// Its host is rebooted.
    SystemReboot,
    /// Its network or power may be cut for a moment.
    SystemMaintenance,
    /// It is stopped or terminated: its host is retired.
    #[default]
    InstanceRetirement,
    /// It is stopped.
    InstanceStop,
}

impl MaintenanceCode {
    /// The code on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::InstanceReboot => "instance-reboot",
            Self::SystemReboot => "system-reboot",
            Self::SystemMaintenance => "system-maintenance",
            Self::InstanceRetirement => "instance-retirement",
            Self::InstanceStop => "instance-stop",
        }
    }

    /// Whether the instance ends with it.
    fn ends_it(self) -> bool {
        match self {
            Self::InstanceReboot | Self::SystemReboot | Self::SystemMaintenance => false,
            Self::InstanceRetirement | Self::InstanceStop => true,
        }
    }
}

/// A scheduled event to be announced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MaintenanceSpec {
    /// Its kind.
    pub code: MaintenanceCode,
    /// What people read; empty means the code's usual words.
    pub description: String,
    /// When it begins, in milliseconds from now.
    pub in_ms: u64,
    /// How long its window is, in milliseconds.
    pub for_ms: u64,
}

/// How far a scheduled event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MaintenanceState {
    /// To come, or going on.
    Active,
    /// Over.
    Completed,
    /// Called off.
    Canceled,
}

/// A scheduled event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Maintenance {
    /// Such as `instance-event-0d59937288b749b32`.
    pub id: String,
    /// Its kind.
    pub code: MaintenanceCode,
    /// What people read.
    pub description: String,
    /// When it begins, in milliseconds since 1970.
    pub not_before_ms: u64,
    /// When it is over at the latest, in milliseconds since 1970.
    pub not_after_ms: u64,
    /// How far it is.
    pub state: MaintenanceState,
}

impl Maintenance {
    /// As the metadata service shows it. What is over says so in its description, too.
    fn shown(&self) -> Value {
        let (mark, state) = match self.state {
            MaintenanceState::Active => ("", "active"),
            MaintenanceState::Completed => ("[Completed] ", "completed"),
            MaintenanceState::Canceled => ("[Canceled] ", "canceled"),
        };
        json!({
            "NotBefore": clock::event_date(self.not_before_ms),
            "Code": self.code.name(),
            "Description": format!("{mark}{}", self.description),
            "EventId": self.id,
            "NotAfter": clock::event_date(self.not_after_ms),
            "State": state,
        })
    }
}

/// What an instance has been told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Notices {
    /// That it will be interrupted.
    pub interruption: Option<Interruption>,
    /// Since when it is at an elevated risk of that, in milliseconds since 1970.
    pub rebalance_ms: Option<u64>,
    /// Its scheduled events, those that are over included.
    pub maintenance: Vec<Maintenance>,
}

impl Notices {
    /// When something becomes due for an instance that runs.
    fn due(&self) -> Option<u64> {
        let active = self.maintenance.iter().filter(|m| m.state == MaintenanceState::Active);
        let events = active.map(|m| if m.code.ends_it() { m.not_before_ms } else { m.not_after_ms });
        events.chain(self.interruption.as_ref().map(|i| i.at_ms)).min()
    }

    /// What the metadata service answers below `spot/` and `events/`; `None` for what is not set.
    pub(super) fn answer(&self, path: &str) -> Option<String> {
        let list = |fits: fn(&MaintenanceState) -> bool| {
            let events = self.maintenance.iter().filter(|m| fits(&m.state)).map(Maintenance::shown);
            events.collect::<Value>().to_string()
        };
        match path {
            "spot/instance-action" => self.interruption.as_ref().map(|i| {
                json!({ "action": i.action.name(), "time": clock::iso8601_seconds(i.at_ms) }).to_string()
            }),
            // Only of those that are terminated.
            "spot/termination-time" => self
                .interruption
                .as_ref()
                .filter(|i| i.action == SpotAction::Terminate)
                .map(|i| clock::iso8601_seconds(i.at_ms)),
            "events/recommendations/rebalance" => {
                self.rebalance_ms.map(|at| json!({ "noticeTime": clock::iso8601_seconds(at) }).to_string())
            }
            "events/maintenance/scheduled" => Some(list(|state| *state == MaintenanceState::Active)),
            "events/maintenance/history" => Some(list(|state| *state != MaintenanceState::Active)),
            _ => None,
        }
    }
}

impl World {
    /// Interrupts a spot instance: it is told now, and ended when the time is over, whatever its group's hooks say. EC2
    /// gives two minutes (none before a hibernation).
    pub fn interrupt_spot(&mut self, id: &str, action: SpotAction, in_ms: u64) -> Result<(), Refusal> {
        let at_ms = self.now + in_ms;
        self.spot(id)?.notices.interruption = Some(Interruption { action, at_ms });
        self.settle();
        Ok(())
    }

    /// Tells a spot instance that it is at an elevated risk of interruption.
    pub fn recommend_rebalance(&mut self, id: &str) -> Result<(), Refusal> {
        let now = self.now;
        self.spot(id)?.notices.rebalance_ms = Some(now);
        self.settle();
        Ok(())
    }

    /// Announces a scheduled event; the answer is its id.
    pub fn schedule_maintenance(&mut self, id: &str, spec: &MaintenanceSpec) -> Result<String, Refusal> {
        let event = format!("instance-event-{}", self.hex(17));
        let not_before_ms = self.now + spec.in_ms;
        let usual = match spec.code {
            MaintenanceCode::InstanceReboot | MaintenanceCode::SystemReboot => "scheduled reboot",
            MaintenanceCode::SystemMaintenance => "scheduled maintenance",
            MaintenanceCode::InstanceRetirement => "The instance is running on degraded hardware",
            MaintenanceCode::InstanceStop => "scheduled stop",
        };
        let maintenance = Maintenance {
            id: event.clone(),
            code: spec.code,
            description: if spec.description.is_empty() { usual.into() } else { spec.description.clone() },
            not_before_ms,
            not_after_ms: not_before_ms + spec.for_ms,
            state: MaintenanceState::Active,
        };
        self.living(id)?.notices.maintenance.push(maintenance);
        self.settle();
        Ok(event)
    }

    /// Calls a scheduled event off.
    pub fn cancel_maintenance(&mut self, id: &str, event: &str) -> Result<(), Refusal> {
        let instance = self.living(id)?;
        let active = |m: &&mut Maintenance| m.id == event && m.state == MaintenanceState::Active;
        let Some(found) = instance.notices.maintenance.iter_mut().find(active) else {
            let message = format!("The event '{event}' does not exist");
            return Err(Refusal::bad("InvalidInstanceEventID.NotFound", message));
        };
        found.state = MaintenanceState::Canceled;
        self.settle();
        Ok(())
    }

    fn living(&mut self, id: &str) -> Result<&mut Instance, Refusal> {
        let id = self.instance_id(id)?;
        let instance = self.view_mut().instances.get_mut(&id).filter(|i| i.exists());
        instance.ok_or_else(|| {
            let message = format!("The instance '{id}' is not in a state in which this can be done");
            Refusal::bad("IncorrectInstanceState", message)
        })
    }

    fn spot(&mut self, id: &str) -> Result<&mut Instance, Refusal> {
        let instance = self.living(id)?;
        if instance.spec.spot {
            return Ok(instance);
        }
        let message = format!("The instance '{}' is not a Spot Instance", instance.id);
        Err(Refusal::bad("UnsupportedOperation", message))
    }

    pub(super) fn notices_due(instance: &Instance) -> Option<u64> {
        instance.notices.due().filter(|_| instance.exists())
    }

    /// Ends the instances whose time is over, and the events that are.
    pub(super) fn step_notices(&mut self) -> bool {
        let now = self.now;
        let due = |i: &&Instance| Self::notices_due(i).is_some_and(|at| at <= now);
        let told: Vec<InstanceId> = self.view.instances.values().filter(due).map(|i| i.id.clone()).collect();
        for id in &told {
            let Some(instance) = self.view_mut().instances.get_mut(id) else { continue };
            let mut ends = instance.notices.interruption.as_ref().is_some_and(|i| i.at_ms <= now);
            for event in &mut instance.notices.maintenance {
                let at = if event.code.ends_it() { event.not_before_ms } else { event.not_after_ms };
                if event.state == MaintenanceState::Active && at <= now {
                    event.state = MaintenanceState::Completed;
                    ends |= event.code.ends_it();
                }
            }
            if ends {
                self.shut_down(id);
            }
        }
        !told.is_empty()
    }
}
