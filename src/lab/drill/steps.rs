//! The agent, aborted after every single step of founding, of joining and of leaving.
//!
//! Which steps there are is not written down here: an undisturbed run shows them. Then the agent is
//! aborted after each step that it does, in every one of its lives, on one node and on all at
//! once. A step that came up undisturbed and did not then, as when another machine was quicker, is
//! aborted after by name, wherever it is done. None is skipped: if one can't be reached, the drill
//! fails.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs;
use std::time::Duration;

use serde_json::json;
use tokio::time::{sleep, timeout};

use super::stage::{FORM, HEAL};
use super::{Options, Report, Stage, Unmet};
use crate::lab::LabError;
use crate::lab::machine::{FailPoint, Lives, Machine};
use crate::lab::settings::Start;
use crate::lab::status::Status;

type Steps = BTreeSet<String>;

/// How long lies between two looks at the agents' logs.
const LOOK: Duration = Duration::from_millis(10);

/// The steps that an agent has done, in order, by its log: whether or not it was aborted after.
pub(super) fn executed(machine: &Machine) -> Result<Vec<String>, Unmet> {
    steps_in(machine, &["step done", CUT_OFF])
}

/// The steps after which an agent was aborted.
pub(super) fn cut_off(machine: &Machine) -> Result<Vec<String>, Unmet> {
    steps_in(machine, &[CUT_OFF])
}

/// The same of all of these machines.
fn cut_off_anywhere(machines: &[Machine]) -> Result<Steps, Unmet> {
    let mut steps = Steps::new();
    for machine in machines {
        steps.extend(cut_off(machine)?);
    }
    Ok(steps)
}

const CUT_OFF: &str = "cut off by a fail point";

fn steps_in(machine: &Machine, messages: &[&str]) -> Result<Vec<String>, Unmet> {
    let path = machine.log();
    let log = fs::read_to_string(&path).map_err(LabError::file("reading", &path))?;
    let lines = log.lines().filter(|line| messages.iter().any(|message| line.contains(message)));
    Ok(lines.filter_map(step_of).collect())
}

/// The value of the field `step` in a line of the log.
fn step_of(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("step=")?;
    let rest = rest.trim_start_matches('"');
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
    Some(rest[..end].to_owned()).filter(|step| !step.is_empty())
}

/// Whose agents are aborted, and where.
#[derive(Clone, Debug)]
pub(super) enum Arm {
    Nobody,
    One,
    All,
    /// All, after this step, once each.
    Step(String),
}

impl Arm {
    fn point(&self, is_the_one: bool) -> Option<FailPoint> {
        let any = || Some(FailPoint { step: "*".to_owned(), lives: Lives::Every });
        match self {
            Self::Nobody => None,
            Self::One => any().filter(|_| is_the_one),
            Self::All => any(),
            Self::Step(step) => Some(FailPoint { step: step.clone(), lives: Lives::One }),
        }
    }
}

/// What a run has shown.
#[derive(Default)]
struct Shown {
    executed: Steps,
    cut: Steps,
}

pub(super) async fn crash_steps(options: &Options, report: &mut Report) -> Result<(), Unmet> {
    everywhere("founding", report, async |arm, report| found(options, report, arm).await).await?;
    let mut stage = build(options, false).await?;
    let result = async {
        stage.start_all().await?;
        stage.formed(FORM).await?;
        everywhere("joining", report, async |arm, _| join(&mut stage, arm).await).await
    }
    .await;
    stage.close(result, report).await?;
    let mut stage = build(options, true).await?;
    let result = async {
        stage.start_all().await?;
        stage.formed(FORM).await?;
        everywhere("leaving", report, async |arm, _| leave(&mut stage, arm).await).await
    }
    .await;
    stage.close(result, report).await
}

async fn build(options: &Options, hooks: bool) -> Result<Stage, Unmet> {
    Stage::build("crash-steps", options, |settings| {
        settings.restart_ms = 20;
        settings.hooks = hooks;
        settings.configuration.insert("tick".into(), json!("1s"));
    })
    .await
}

/// Aborts the agent after every step that an undisturbed run shows, on one machine and on all.
async fn everywhere(
    what: &str,
    report: &mut Report,
    mut run: impl AsyncFnMut(&Arm, &mut Report) -> Result<Shown, Unmet>,
) -> Result<(), Unmet> {
    let wanted = run(&Arm::Nobody, report).await?.executed;
    for (scope, arm) in [("one", Arm::One), ("all", Arm::All)] {
        let mut cut = run(&arm, report).await?.cut;
        let missing: Vec<String> = wanted.difference(&cut).cloned().collect();
        for step in missing {
            cut.extend(run(&Arm::Step(step), report).await?.cut);
        }
        note(report, what, scope, &wanted, &cut)?;
    }
    Ok(())
}

/// Founds a cluster; the first machine that starts is the one.
async fn found(options: &Options, report: &mut Report, arm: &Arm) -> Result<Shown, Unmet> {
    let mut stage = build(options, false).await?;
    let mut shown = Shown::default();
    let result = async {
        let mut machines = stage.lab.control_plane();
        stage.rng.shuffle(&mut machines);
        for (n, machine) in machines.iter().enumerate() {
            machine.fail_at(arm.point(n == 0));
            stage.start(machine);
        }
        let armed = machines.iter().enumerate().filter(|(n, _)| arm.point(*n == 0).is_some());
        let armed = armed.map(|(_, machine)| machine.clone()).collect();
        tokio::select! {
            formed = stage.formed(FORM) => drop(formed?),
            never = get_on(armed, arm) => match never {},
        }
        if let Arm::Step(step) = arm {
            // Some steps keep up what is, and may come after the cluster is formed. Whether this one came is told by
            // what is read, so a wait in vain is no error here.
            let came = async {
                while !cut_off_anywhere(&machines)?.contains(step) {
                    sleep(LOOK).await;
                }
                Ok::<(), Unmet>(())
            };
            timeout(FORM, came).await.unwrap_or(Ok(()))?;
        }
        read(&machines, &mut shown)
    }
    .await;
    stage.close(result, report).await?;
    Ok(shown)
}

/// Lets agents that are cut off in every life get on: a plan that begins with what must be renewed
/// each time, as a lock, would never come to its second step. The longer an agent was cut off after
/// nothing but steps that it was cut off after before, the more steps it has in its next life.
pub(super) async fn get_on(machines: Vec<Machine>, arm: &Arm) -> Infallible {
    if matches!(arm, Arm::Nobody | Arm::Step(_)) {
        return std::future::pending().await;
    }
    loop {
        for machine in &machines {
            // A log that can't be read is an error where the drill reads it.
            let cut = cut_off(machine).unwrap_or_default();
            let step = format!("*:{}", 1 + since_news(&cut) / 2);
            machine.fail_at(Some(FailPoint { step, lives: Lives::Every }));
        }
        sleep(LOOK).await;
    }
}

/// How many there are after the last step that came up for the first time.
fn since_news(steps: &[String]) -> usize {
    let news = (0..steps.len()).rev().find(|n| !steps[..*n].contains(&steps[*n]));
    news.map_or(0, |n| steps.len() - 1 - n)
}

fn read(machines: &[Machine], shown: &mut Shown) -> Result<(), Unmet> {
    for machine in machines {
        shown.executed.extend(executed(machine)?);
        shown.cut.extend(cut_off(machine)?);
    }
    Ok(())
}

/// Replaces a machine and its volume; the successor is the one.
async fn join(stage: &mut Stage, arm: &Arm) -> Result<Shown, Unmet> {
    let mut machines = stage.lab.control_plane();
    stage.rng.shuffle(&mut machines);
    let victim = machines.pop().ok_or_else(|| Unmet::Broken("no machines".into()))?;
    let volume = stage.lab.volume_of(&victim);
    let volume = volume.ok_or_else(|| Unmet::Broken("a member without a volume".into()))?;
    let slot = stage.lab.slot_of(&volume).unwrap_or_default();
    // What they were aborted after before is no part of this.
    let before = machines.iter().map(|m| Ok(cut_off(m)?.len())).collect::<Result<Vec<_>, Unmet>>()?;
    for machine in &machines {
        machine.fail_at(arm.point(false));
        if !matches!(arm, Arm::Nobody) {
            machine.kill_agent();
        }
    }
    stage.lab.set_start(Start::Held);
    stage.writes_go_on().await?;
    stage.fault();
    let id = &victim.identity().instance;
    stage.lab.happen(format!("the death of {id}"), |world| world.kill_instance(id)).await?;
    stage.lab.happen("the loss of a volume", |world| world.lose_volume(&volume)).await?;
    stage.lab.create_volume(slot)?;
    let successor = stage.lab.successor(&victim, HEAL).await?;
    successor.fail_at(arm.point(true));
    successor.start();
    stage.lab.set_start(Start::AtOnce);
    let mut armed = vec![successor.clone()];
    if matches!(arm, Arm::All) {
        armed.extend(machines.iter().cloned());
    }
    tokio::select! {
        healed = stage.healed(HEAL) => drop(healed?),
        never = get_on(armed, arm) => match never {},
    }
    let mut shown = Shown::default();
    read(std::slice::from_ref(&successor), &mut shown)?;
    for (machine, before) in machines.iter().zip(before) {
        shown.cut.extend(cut_off(machine)?.into_iter().skip(before));
        machine.fail_at(None);
    }
    successor.fail_at(None);
    Ok(shown)
}

/// The group ends the machine that leads etcd, whose departure has the most steps; that one is the one. Its successor
/// is the same member.
async fn leave(stage: &mut Stage, arm: &Arm) -> Result<Shown, Unmet> {
    let health = stage.healthy().await?;
    let mut machines = stage.lab.control_plane();
    let leads = |machine: &Machine| {
        let status = Status::of(&machine.root()).ok().flatten();
        let member = status.and_then(|status| u64::from_str_radix(status.member?.as_str()?, 16).ok());
        member == Some(health.leader)
    };
    let leader = machines.iter().position(leads).ok_or_else(|| Unmet::Broken("nobody leads".into()))?;
    let parting = machines.remove(leader);
    let before = machines.iter().map(|m| Ok(cut_off(m)?.len())).collect::<Result<Vec<_>, Unmet>>()?;
    let own_before = executed(&parting)?.len();
    for machine in &machines {
        machine.fail_at(arm.point(false));
        if !matches!(arm, Arm::Nobody) {
            machine.kill_agent();
        }
    }
    parting.fail_at(arm.point(true));
    if !matches!(arm, Arm::Nobody) {
        parting.kill_agent();
    }
    stage.writes_go_on().await?;
    stage.fault();
    let id = &parting.identity().instance;
    stage.lab.happen(format!("the end of {id}"), |world| world.terminate_in_group(id, false)).await?;
    let mut armed = vec![parting.clone()];
    if matches!(arm, Arm::All) {
        armed.extend(machines.iter().cloned());
    }
    let ended = async {
        stage
            .lab
            .wait("the end of a machine that leaves", HEAL, |lab| {
                let there = lab.machines().iter().any(|machine| machine.identity().instance == *id);
                if there { Err(format!("{id} is still there")) } else { Ok(()) }
            })
            .await?;
        stage.healed(HEAL).await
    };
    let after = tokio::select! {
        healed = ended => healed?,
        never = get_on(armed, arm) => match never {},
    };
    if after.members != health.members {
        let why = format!("the members were {:x?} and are {:x?}", health.members, after.members);
        return Err(Unmet::Broken(why));
    }
    let mut shown = Shown::default();
    shown.executed.extend(executed(&parting)?.into_iter().skip(own_before));
    shown.cut.extend(cut_off(&parting)?);
    for (machine, before) in machines.iter().zip(before) {
        shown.cut.extend(cut_off(machine)?.into_iter().skip(before));
        machine.fail_at(None);
    }
    Ok(shown)
}

/// Tells which steps were cut off, and fails when one was not.
fn note(report: &mut Report, what: &str, scope: &str, wanted: &Steps, cut: &Steps) -> Result<(), Unmet> {
    let name = format!("{what}{}{}", scope[..1].to_uppercase(), &scope[1..]);
    report.tell(&name, json!(cut));
    let skipped: Vec<&String> = wanted.difference(cut).collect();
    if wanted.is_empty() || !skipped.is_empty() {
        let broken =
            format!("of {} steps of {what}, the agent was not aborted after {skipped:?}", wanted.len());
        return Err(Unmet::Broken(broken));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::drill::Drill;

    #[test]
    fn a_step_is_read_from_a_line_of_the_log() {
        let line = r#"2026-01-31T12:00:00Z  INFO step done step="attachVolume" took_ms=3"#;
        assert_eq!(step_of(line), Some("attachVolume".to_owned()));
        assert_eq!(step_of("INFO step done step=mount"), Some("mount".to_owned()));
        assert_eq!(step_of("INFO step done"), None);
    }

    #[test]
    fn an_agent_that_does_not_get_on_is_given_more_steps() {
        let since = |steps: &[&str]| since_news(&steps.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(since(&[]), 0);
        assert_eq!(since(&["lock", "add"]), 0);
        assert_eq!(since(&["lock", "add", "lock", "add", "lock"]), 3);
    }

    #[test]
    fn a_step_that_was_skipped_fails_the_drill() {
        let steps = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Steps>();
        let mut report = Report::new(Drill::CrashSteps, 1);
        assert!(note(&mut report, "founding", "one", &steps(&["a", "b"]), &steps(&["a", "b", "c"])).is_ok());
        assert!(note(&mut report, "founding", "all", &steps(&["a", "b"]), &steps(&["a"])).is_err());
        assert!(note(&mut report, "joining", "all", &steps(&[]), &steps(&[])).is_err());
        assert_eq!(report.more["foundingOne"], json!(["a", "b", "c"]));
    }
}
