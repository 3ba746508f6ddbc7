//! The laboratory end to end: the agent as it is shipped, real etcd, the simulated region.
//!
//! Each test is a drill, in directories and on addresses of its own. What a drill demands is
//! written where the drill is; here it must pass.

use std::path::PathBuf;

use quorate::lab::drill::{self, Drill, Options, Report};
use quorate::lab::kubelet::Programs;
use tokio::sync::Semaphore;

use crate::permissions;

/// Several laboratories at once share the processors, and what is then slow is not the agent.
static AT_ONCE: Semaphore = Semaphore::const_new(2);

async fn run(drill: Drill, seed: u64, weather: bool) -> Report {
    // A whole control plane is enough at a time.
    let share = match drill {
        Drill::ControlPlane
        | Drill::ControlPlaneWeather
        | Drill::Workers
        | Drill::ReplaceAllRolling
        | Drill::ScaleWorkers
        | Drill::SpotStorm => 2,
        // They wait, mostly.
        Drill::LoseEverything
        | Drill::DamagedBackup
        | Drill::RestoreYesterday
        | Drill::LoseQuorum
        | Drill::BucketAway => 0,
        _ => 1,
    };
    let _turn = AT_ONCE.acquire_many(share).await.unwrap();
    let agent = PathBuf::from(env!("CARGO_BIN_EXE_quorate"));
    let report = drill::run(drill, &Options { seed, weather, short: true, keep: false, agent }).await;
    assert!(report.passed, "{}", serde_json::to_string_pretty(&report).unwrap());
    assert!(report.writes_acknowledged > 0);
    assert_eq!(report.writes_lost, 0);
    assert!(report.operations_checked > 0);
    permissions::judge_drill(drill, &report);
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn three_machines_become_one_cluster() {
    let report = run(Drill::Form, 1, false).await;
    assert!(report.form_ms.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn three_machines_become_one_cluster_with_lost_answers_and_stale_reads() {
    for seed in [2, 3] {
        run(Drill::Form, seed, true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_majority_founds_when_one_machine_never_comes() {
    run(Drill::FormMissing, 1, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_replaced_with_its_volume_is_the_same_member() {
    // One of the two kills the leader, the other a follower.
    for seed in [1, 2] {
        let report = run(Drill::ReplaceOne, seed, false).await;
        assert!(report.heal_ms.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_replaced_with_a_blank_volume_is_a_new_member() {
    run(Drill::LoseVolume, 1, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_after_an_election_when_the_leader_is_lost() {
    let report = run(Drill::LoseLeader, 1, false).await;
    assert!(report.more["leaderGapMs"].as_u64() > Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_when_the_leaders_zone_is_lost_and_the_gap_is_told_beside_bare_etcds() {
    let report = run(Drill::LoseZone, 1, false).await;
    assert!(report.more["zoneGapMs"].as_u64() > Some(0) && report.more["bareGapMs"].as_u64() > Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_the_slot_of_a_zone_that_stays_away() {
    let report = run(Drill::LoseZoneForGood, 1, false).await;
    assert!(report.more["takeoverMs"].as_u64() > Some(0) && report.more["balancedMs"].as_u64() > Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_forms_and_its_machines_are_replaced_while_aws_hardly_answers() {
    let report = run(Drill::ThrottledDay, 1, false).await;
    assert!(report.more["callsThrottled"].as_u64() > Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_crash_do_not_disturb_etcd() {
    run(Drill::CrashAgents, 1, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_cut_off_after_any_step_carries_on() {
    run(Drill::CrashSteps, 1, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_charter_is_repaired_by_a_quorum_and_founds_nothing_without() {
    run(Drill::LostCharter, 1, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_machines_serve_one_kubernetes_api_through_the_loss_of_a_leader_and_a_zone() {
    if let Err(why) = Programs::find() {
        eprintln!("SKIPPED: {why}");
        return;
    }
    let report = run(Drill::ControlPlane, 1, false).await;
    assert!(report.more["apiWrites"].as_u64() > Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_goes_on_in_bad_weather_and_says_what_is_wrong() {
    if let Err(why) = Programs::find() {
        eprintln!("SKIPPED: {why}");
        return;
    }
    let report = run(Drill::ControlPlaneWeather, 1, false).await;
    assert!(report.more["apiWrites"].as_u64() > Some(0));
    assert!(report.more["loadBalancingFaults"].as_u64() > Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_join_by_themselves_and_leave_no_node_behind() {
    if let Err(why) = Programs::find() {
        eprintln!("SKIPPED: {why}");
        return;
    }
    let report = run(Drill::Workers, 1, false).await;
    assert!(report.more["workersReadyMs"].as_u64() > Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_replaced_in_bad_weather() {
    run(Drill::Weather, 1, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_refresh_replaces_the_whole_control_plane() {
    // With Kubernetes where its programs are, etcd alone elsewhere.
    let report = run(Drill::ReplaceAllRolling, 1, false).await;
    assert!(report.more["refreshMs"].as_u64() > Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_refresh_replaces_every_member_whose_volume_goes_with_its_machine() {
    let report = run(Drill::ReplaceAllRolling, 3, false).await;
    assert!(report.more["refreshMs"].as_u64() > Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_leave_are_drained_within_the_budget_of_their_pods() {
    if let Err(why) = Programs::find() {
        eprintln!("SKIPPED: {why}");
        return;
    }
    let report = run(Drill::ScaleWorkers, 1, false).await;
    assert!(report.more["scaledInMs"].as_u64() > Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn spot_instances_have_left_before_they_are_taken() {
    if let Err(why) = Programs::find() {
        eprintln!("SKIPPED: {why}");
        return;
    }
    let report = run(Drill::SpotStorm, 1, false).await;
    assert!(report.more["leftMs"].as_u64() > Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_while_all_runs() {
    let report = run(Drill::CertificateYear, 1, false).await;
    assert!(report.more["renewals"].as_u64() >= Some(24));
}

/// At once, since most of it is waiting for EC2 to say twice, a minute apart, that a volume is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_comes_back_from_its_backups_and_is_not_disturbed_by_them() {
    // With seed 8 every agent is aborted after it has restored data, with seed 2 after every step.
    let (whole, restored, aborted, damaged, back, away, ()) = tokio::join!(
        run(Drill::LoseEverything, 1, false),
        run(Drill::LoseEverything, 8, false),
        run(Drill::LoseEverything, 2, false),
        run(Drill::DamagedBackup, 1, false),
        run(Drill::RestoreYesterday, 1, false),
        run(Drill::BucketAway, 1, false),
        async { drop(run(Drill::LoseQuorum, 1, false).await) },
    );
    assert!(whole.more["acknowledgedBefore"].as_u64() > Some(0));
    assert_eq!(restored.more["abortedAfter"], serde_json::json!(["restoreData"]));
    assert!(aborted.more["abortedAfter"].as_array().is_some_and(|steps| steps.len() > 5));
    assert!(damaged.more["passedOver"].as_array().is_some_and(|reasons| !reasons.is_empty()));
    assert!(back.more["kept"].as_u64() > Some(0) && back.more["goneBack"].as_u64() > Some(0));
    assert!(away.more["awayMs"].as_u64() > Some(0));
}
