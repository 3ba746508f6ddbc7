//! A machine that leaves in bad weather.

use quorate::execute::execute;
use quorate::lab::region::{FaultKind, ImdsFaults, MaintenanceCode, MaintenanceSpec, Service};
use quorate::model::departure::{Cause, MaintenanceCode as Code};
use quorate::model::{Phase, Plan, Step};
use quorate::observe::{Depth, Memory};
use quorate::reach::Reach;

use super::sky::{Sky, look, look_again};

#[tokio::test]
async fn a_departure_that_can_not_be_written_down_has_begun_all_the_same() {
    let sky = Sky::with_bucket().await;
    let reach = sky.reach().await;
    sky.file("var/lib/quorate/leave", &sky.instance);
    // As whatever keeps the file from being written.
    std::fs::create_dir_all(reach.departure().join("in the way")).unwrap();
    let mut memory = Memory::default();
    let (_, plan) = look_again(&reach, &mut memory, Depth::Full).await;
    let [step @ Step::BeginDeparture { departure }] = &plan.steps[..] else { panic!("{:?}", plan.steps) };
    execute(&reach, step).await.unwrap_err();
    // Nothing keeps it here but that EC2 does not say what is attached; what it said before does not serve when it
    // refuses.
    sky.fault(Service::Ec2, FaultKind::AccessDenied);
    let (seen, plan) = look_again(&reach, &mut memory, Depth::Full).await;
    assert_eq!(seen.departure.begun.known(), Some(&Some(departure.clone())), "and its time goes on");
    assert_eq!(plan.report.phase, Phase::Leaving, "{:#?}", plan.report);
    assert!(!plan.steps.contains(step), "{:?}", plan.steps);
}

/// What the machine does next, which must be one step; it is done.
async fn does(reach: &Reach) -> Step {
    let (_, Plan { steps, report }) = look(reach).await;
    let [step] = &steps[..] else { panic!("{steps:?} {report:#?}") };
    execute(reach, step).await.unwrap();
    step.clone()
}

#[tokio::test]
async fn maintenance_that_ec2_schedules_begins_a_departure_and_one_that_it_calls_off_takes_it_back() {
    let sky = Sky::with_bucket().await;
    let reach = sky.reach().await;
    let schedule = |in_ms| {
        let spec = MaintenanceSpec {
            code: MaintenanceCode::SystemReboot,
            in_ms,
            for_ms: 60_000,
            ..MaintenanceSpec::default()
        };
        sky.region.change(|w| w.schedule_maintenance(&sky.instance, &spec)).unwrap()
    };
    schedule(3 * 3_600_000);
    let (_, plan) = look(&reach).await;
    assert_ne!(plan.report.phase, Phase::Leaving, "it is too early");
    let event = schedule(60_000);
    let Step::BeginDeparture { departure } = does(&reach).await else { panic!("it does not leave") };
    let Cause::Maintenance { event: told, code: Code::SystemReboot, .. } = &departure.cause else {
        panic!("{:?}", departure.cause)
    };
    assert_eq!(*told, event);
    let (seen, plan) = look(&reach).await;
    assert_eq!(plan.report.phase, Phase::Left, "nothing of it has to be taken down");
    assert_eq!(seen.departure.begun.known(), Some(&Some(departure)));
    // An agent that begins anew, and can't ask, goes on.
    let again = sky.reach().await;
    let mute = |reach: &Reach, mute: bool| {
        let faults = ImdsFaults { absent: mute, ..ImdsFaults::default() };
        sky.region.change(|w| w.set_imds_faults(reach.identity.instance.as_str(), &faults)).unwrap();
    };
    mute(&again, true);
    let heard = async || look(&again).await.0.departure.maintenance.is_known();
    while heard().await {}
    let (_, plan) = look(&again).await;
    assert_eq!(plan.report.phase, Phase::Left, "{:#?}", plan.report);
    mute(&again, false);
    while !heard().await {}
    sky.region.change(|w| w.cancel_maintenance(&sky.instance, &event)).unwrap();
    assert_eq!(does(&again).await, Step::EndDeparture);
    let (_, plan) = look(&again).await;
    assert!(!matches!(plan.report.phase, Phase::Leaving | Phase::Left), "{:#?}", plan.report);
}
