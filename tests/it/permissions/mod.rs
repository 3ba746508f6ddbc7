//! The template's roles: every call that the agents of a laboratory make is allowed, nothing is allowed that none
//! makes, and what must not be is not.
//!
//! Laboratories record what their agents' calls need ([`Authorization`]); here it is held against the policies of
//! `packaging/cloudformation/cluster.yaml`. [`judge`] is called wherever a laboratory ends.

mod policy;
pub mod template;

use std::collections::BTreeSet;

use quorate::lab::drill::{Drill, Report};
use quorate::lab::kubelet::Programs;
use quorate::lab::region::Authorization;
use serde_json::{Value, json};

use self::policy::{Policies, Verdict, asked};
use self::template::{ACCOUNT, BUCKET, KEY, REGION, Template, role_arn};
use crate::docs::read;

const CONTROL_PLANE: &str = "control-plane";
const WORKER: &str = "worker";

/// Where an action of a policy is seen to be needed.
enum By {
    /// In this drill, always.
    Drill(Drill),
    /// In this drill, when volumes outlive their machines.
    Kept(Drill),
    /// In this drill, where Kubernetes' programs are.
    Kubernetes(Drill),
    /// In no drill, but by `quorate doctor bucket`.
    Doctor,
    /// In no drill, and why it is allowed all the same.
    Reason(&'static str),
}

/// Each action that a policy allows.
const NEEDED: [(&str, &str, By); 41] = [
    (CONTROL_PLANE, "ec2:DescribeInstances", By::Drill(Drill::Form)),
    (CONTROL_PLANE, "ec2:DescribeVolumes", By::Drill(Drill::Form)),
    (CONTROL_PLANE, "ec2:AttachVolume", By::Drill(Drill::Form)),
    (CONTROL_PLANE, "ec2:DetachVolume", By::Kept(Drill::ReplaceAllRolling)),
    (CONTROL_PLANE, "ec2:CreateTags", By::Drill(Drill::Form)),
    (CONTROL_PLANE, "ec2:CreateVolume", By::Drill(Drill::LoseZoneForGood)),
    (CONTROL_PLANE, "autoscaling:DescribeAutoScalingGroups", By::Drill(Drill::Form)),
    (CONTROL_PLANE, "autoscaling:DescribeAutoScalingInstances", By::Drill(Drill::ReplaceAllRolling)),
    (CONTROL_PLANE, "autoscaling:DescribeLifecycleHooks", By::Drill(Drill::ReplaceAllRolling)),
    (CONTROL_PLANE, "autoscaling:RecordLifecycleActionHeartbeat", By::Drill(Drill::ReplaceAllRolling)),
    (CONTROL_PLANE, "autoscaling:CompleteLifecycleAction", By::Drill(Drill::ReplaceAllRolling)),
    (
        CONTROL_PLANE,
        "autoscaling:SetInstanceHealth",
        By::Reason(
            "an etcd that is wedged and stays so after its restart: a quarter of an hour, which no drill waits",
        ),
    ),
    (CONTROL_PLANE, "elasticloadbalancing:DescribeLoadBalancers", By::Kubernetes(Drill::ControlPlane)),
    (CONTROL_PLANE, "elasticloadbalancing:DescribeListeners", By::Kubernetes(Drill::ControlPlane)),
    (CONTROL_PLANE, "elasticloadbalancing:DescribeTargetGroups", By::Kubernetes(Drill::ControlPlane)),
    (
        CONTROL_PLANE,
        "elasticloadbalancing:DescribeTargetGroupAttributes",
        By::Kubernetes(Drill::ControlPlane),
    ),
    (
        CONTROL_PLANE,
        "elasticloadbalancing:DescribeTags",
        By::Reason("while the group names no target group, the load balancer is looked for by its tag"),
    ),
    (CONTROL_PLANE, "elasticloadbalancing:DescribeTargetHealth", By::Kubernetes(Drill::ControlPlane)),
    (
        CONTROL_PLANE,
        "elasticloadbalancing:RegisterTargets",
        By::Reason("a machine that is back after it had left: its group registers it only once"),
    ),
    (CONTROL_PLANE, "elasticloadbalancing:DeregisterTargets", By::Kubernetes(Drill::ReplaceAllRolling)),
    (CONTROL_PLANE, "s3:GetObject", By::Drill(Drill::Form)),
    (CONTROL_PLANE, "s3:PutObject", By::Drill(Drill::Form)),
    (CONTROL_PLANE, "s3:ListBucket", By::Drill(Drill::Form)),
    (
        CONTROL_PLANE,
        "s3:DeleteObject",
        By::Reason(
            "backups that their retention has outlived: the shortest is a day; tests/it/etcd/backup.rs does it",
        ),
    ),
    (
        CONTROL_PLANE,
        "s3:AbortMultipartUpload",
        By::Reason("an upload that failed: tests/it/contract/transfers.rs does it"),
    ),
    (CONTROL_PLANE, "s3:ListBucketMultipartUploads", By::Drill(Drill::LoseEverything)),
    (CONTROL_PLANE, "s3:GetBucketLocation", By::Doctor),
    (CONTROL_PLANE, "s3:GetEncryptionConfiguration", By::Doctor),
    (CONTROL_PLANE, "s3:GetBucketVersioning", By::Doctor),
    (CONTROL_PLANE, "s3:GetBucketPublicAccessBlock", By::Doctor),
    (CONTROL_PLANE, "s3:GetBucketPolicyStatus", By::Doctor),
    (CONTROL_PLANE, "s3:GetBucketPolicy", By::Doctor),
    (CONTROL_PLANE, "s3:GetLifecycleConfiguration", By::Doctor),
    (
        CONTROL_PLANE,
        "cloudwatch:PutMetricData",
        By::Reason("where `monitoring.cloudwatch` is on: tests/it/cloudwatch.rs does it"),
    ),
    (WORKER, "s3:GetObject", By::Kubernetes(Drill::Workers)),
    (
        WORKER,
        "s3:ListBucket",
        By::Reason("never called: with it S3 says of a missing object that it is missing"),
    ),
    (WORKER, "autoscaling:DescribeAutoScalingInstances", By::Kubernetes(Drill::ScaleWorkers)),
    (WORKER, "autoscaling:DescribeLifecycleHooks", By::Kubernetes(Drill::ScaleWorkers)),
    (WORKER, "autoscaling:RecordLifecycleActionHeartbeat", By::Kubernetes(Drill::ScaleWorkers)),
    (WORKER, "autoscaling:CompleteLifecycleAction", By::Kubernetes(Drill::ScaleWorkers)),
    (WORKER, "kms:Decrypt", By::Kubernetes(Drill::Workers)),
];

/// Which volumes the agents use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volumes {
    PerZone,
    Created,
}

fn template(volumes: Volumes) -> Template {
    Template::with(&[("EtcdVolumes", if volumes == Volumes::Created { "Created" } else { "PerZone" })])
}

/// The policy of this name, of a role's.
fn document(template: &Template, role: &str, name: &str) -> Value {
    let resource = if role == CONTROL_PLANE { "ControlPlaneRole" } else { "WorkerRole" };
    let policies = template.properties(resource)["Policies"].clone();
    let found = policies.as_array().unwrap().iter().find(|policy| policy["PolicyName"] == name);
    found.unwrap_or_else(|| panic!("{resource} has no policy {name}"))["PolicyDocument"].clone()
}

/// What holds for the agent of a role: its policy, and the bucket's.
fn policies(template: &Template, role: &str) -> Policies {
    let bucket = template.properties("BucketPolicy")["PolicyDocument"].clone();
    Policies::new(role_arn(role), &[document(template, role, "quorate")], &[bucket])
}

/// What S3 asks of the bucket's key, in the caller's name.
/// Source: "Using server-side encryption with AWS KMS keys", Amazon S3 user guide.
fn of_the_key(asked: &Authorization) -> Vec<Authorization> {
    let actions: &[&str] = match asked.action.as_str() {
        // An upload in parts is decrypted to be put together.
        "s3:PutObject" => &["kms:GenerateDataKey", "kms:Decrypt"],
        "s3:GetObject" => &["kms:Decrypt"],
        _ => &[],
    };
    let via = format!("s3.{REGION}.amazonaws.com");
    let one = |action: &&str| policy::asked(&asked.role, action, KEY, &[("kms:ViaService", &via)]);
    actions.iter().map(one).collect()
}

/// Everything that was asked in a laboratory, with what S3 asks of the key.
fn all(authorizations: &BTreeSet<Authorization>) -> BTreeSet<Authorization> {
    authorizations.iter().flat_map(|asked| of_the_key(asked).into_iter().chain([asked.clone()])).collect()
}

/// Fails unless the policies allow everything that the agents of a laboratory asked for.
pub fn judge(authorizations: &BTreeSet<Authorization>, volumes: Volumes) {
    let template = template(volumes);
    let stranger =
        authorizations.iter().find(|asked| ![CONTROL_PLANE, WORKER].contains(&asked.role.as_str()));
    assert!(stranger.is_none(), "nobody's policy is held to {stranger:?}");
    for role in [CONTROL_PLANE, WORKER] {
        let policies = policies(&template, role);
        let refused: Vec<(Verdict, Authorization)> = all(authorizations)
            .into_iter()
            .filter(|asked| asked.role == role)
            .map(|asked| (policies.judge(&asked), asked))
            .filter(|(verdict, _)| *verdict != Verdict::Allowed)
            .collect();
        assert!(refused.is_empty(), "{}: the policy of {role} does not allow {refused:#?}", template::PATH);
    }
}

/// Fails unless all that a drill's agents asked for is allowed, and they asked for all that [`NEEDED`] says of it.
pub fn judge_drill(drill: Drill, report: &Report) {
    judge(&report.authorizations, if report.creates_volumes { Volumes::Created } else { Volumes::PerZone });
    let asked = all(&report.authorizations);
    let kubernetes = Programs::find().is_ok();
    for (role, action, by) in &NEEDED {
        let by_this = match by {
            By::Drill(by) => *by == drill,
            By::Kept(by) => *by == drill && !report.creates_volumes,
            By::Kubernetes(by) => kubernetes && *by == drill,
            By::Doctor | By::Reason(_) => false,
        };
        let was = asked.iter().any(|asked| asked.role == *role && asked.action == *action);
        assert!(was || !by_this, "{drill:?} is to show that {role} needs {action}, and does not call it");
    }
}

/// Fails unless all that `quorate doctor bucket` asked for on the control plane is allowed, and it asked for all that
/// [`NEEDED`] says of it. The machine's role may have another name in the region.
pub fn judge_doctor(authorizations: &BTreeSet<Authorization>) {
    let ours = |asked: &Authorization| Authorization { role: CONTROL_PLANE.to_owned(), ..asked.clone() };
    let authorizations: BTreeSet<Authorization> = authorizations.iter().map(ours).collect();
    judge(&authorizations, Volumes::PerZone);
    for (role, action, _) in NEEDED.iter().filter(|(_, _, by)| matches!(by, By::Doctor)) {
        let was = authorizations.iter().any(|asked| asked.role == *role && asked.action == *action);
        assert!(was, "the doctor is to show that {role} needs {action}, and does not call it");
    }
}

#[test]
fn the_policies_allow_nothing_that_no_drill_needs() {
    for role in [CONTROL_PLANE, WORKER] {
        let allowed = policies(&template(Volumes::Created), role).allowed_actions();
        // The key is asked by S3, for what is read and written.
        let allowed: BTreeSet<&str> =
            allowed.iter().map(String::as_str).filter(|action| !action.starts_with("kms:")).collect();
        let needed = NEEDED.iter().filter(|(of, action, _)| *of == role && !action.starts_with("kms:"));
        assert_eq!(allowed, needed.map(|(_, action, _)| *action).collect(), "{role}");
    }
    for (role, action, by) in NEEDED {
        if let By::Reason(why) = by {
            assert!(why.len() > 20, "{role} {action}: {why}");
        }
    }
    let of_the_key = |role| -> Vec<String> {
        let allowed = policies(&template(Volumes::PerZone), role).allowed_actions();
        allowed.into_iter().filter(|action| action.starts_with("kms:")).collect()
    };
    assert_eq!(of_the_key(CONTROL_PLANE), ["kms:GenerateDataKey", "kms:Decrypt"]);
    assert_eq!(of_the_key(WORKER), ["kms:Decrypt"]);
}

#[test]
fn volumes_are_created_only_where_that_was_chosen() {
    let role = |volumes| policies(&template(volumes), CONTROL_PLANE).allowed_actions();
    assert!(!role(Volumes::PerZone).contains(&"ec2:CreateVolume".to_owned()));
    assert!(role(Volumes::Created).contains(&"ec2:CreateVolume".to_owned()));
}

fn object(key: &str) -> String {
    format!("arn:aws:s3:::{BUCKET}/{key}")
}

#[test]
fn what_must_not_be_is_not_allowed() {
    let ours = ("aws:ResourceTag/quorate:cluster", "demo");
    let others = ("aws:ResourceTag/quorate:cluster", "other");
    let ec2 = |what: &str| format!("arn:aws:ec2:{REGION}:{ACCOUNT}:{what}");
    let group = format!("arn:aws:autoscaling:{REGION}:{ACCOUNT}:autoScalingGroup:1:autoScalingGroupName/x");
    let via_s3 = ("kms:ViaService", "s3.eu-west-1.amazonaws.com");
    let template = template(Volumes::Created);
    let judge = |role, action: &str, resource: &str, context: &[(&str, &str)]| {
        policies(&template, role).judge(&asked(role, action, resource, context))
    };

    // A worker reads what it is told, and nothing else, whatever else is attached to its role one day.
    for secret in ["demo/pki/etcd.json", "demo/pki/kubernetes.json", "demo/backups/1/2-abcdefgh/snapshot.zst"]
    {
        for action in ["s3:GetObject", "s3:GetObjectVersion", "s3:PutObject", "s3:DeleteObject"] {
            assert_eq!(judge(WORKER, action, &object(secret), &[]), Verdict::Denied, "{action} {secret}");
        }
    }
    for other in ["demo/charter.json", "demo/members.json", "other/workers/join.json", "demo/rehearsal.json"]
    {
        assert_eq!(judge(WORKER, "s3:GetObject", &object(other), &[]), Verdict::NotAllowed, "{other}");
    }
    assert_eq!(judge(WORKER, "s3:GetObject", &object("demo/workers/join.json"), &[]), Verdict::Allowed);
    assert_eq!(judge(WORKER, "s3:PutObject", &object("demo/workers/join.json"), &[]), Verdict::NotAllowed);

    // Of the bucket, the control plane deletes backups alone, and no version of anything.
    for key in ["demo/charter.json", "demo/pki/etcd.json", "demo/workers/join.json", "demo/members.json"] {
        assert_eq!(judge(CONTROL_PLANE, "s3:DeleteObject", &object(key), &[]), Verdict::NotAllowed, "{key}");
    }
    let backup = object("demo/backups/1/2-abcdefgh/manifest.json");
    assert_eq!(judge(CONTROL_PLANE, "s3:DeleteObject", &backup, &[]), Verdict::Allowed);
    for action in ["s3:DeleteObjectVersion", "s3:BypassGovernanceRetention", "s3:PutObjectAcl"] {
        assert_eq!(judge(CONTROL_PLANE, action, &backup, &[]), Verdict::NotAllowed, "{action}");
    }
    // Another cluster of the same bucket is not its own.
    for action in ["s3:GetObject", "s3:PutObject"] {
        let verdict = judge(CONTROL_PLANE, action, &object("other/charter.json"), &[]);
        assert_eq!(verdict, Verdict::NotAllowed, "{action}");
    }
    let bucket = format!("arn:aws:s3:::{BUCKET}");
    for action in
        ["s3:DeleteBucket", "s3:PutBucketPolicy", "s3:PutBucketVersioning", "s3:PutLifecycleConfiguration"]
    {
        assert_eq!(judge(CONTROL_PLANE, action, &bucket, &[]), Verdict::NotAllowed, "{action}");
    }
    // Nobody comes without TLS.
    let in_clear = [("aws:SecureTransport", "false")];
    for role in [CONTROL_PLANE, WORKER] {
        let verdict = judge(role, "s3:GetObject", &object("demo/workers/join.json"), &in_clear);
        assert_eq!(verdict, Verdict::Denied, "{role}");
    }

    // Volumes: those of the cluster; and none is deleted.
    for action in ["ec2:AttachVolume", "ec2:DetachVolume", "ec2:CreateTags"] {
        for what in ["volume/vol-1", "instance/i-1"] {
            assert_eq!(
                judge(CONTROL_PLANE, action, &ec2(what), &[ours]),
                Verdict::Allowed,
                "{action} {what}"
            );
            for tags in [&[others][..], &[]] {
                let verdict = judge(CONTROL_PLANE, action, &ec2(what), tags);
                assert_eq!(verdict, Verdict::NotAllowed, "{action} {what} {tags:?}");
            }
        }
    }
    let untagged = judge(CONTROL_PLANE, "ec2:CreateVolume", &ec2("volume/*"), &[]);
    assert_eq!(untagged, Verdict::NotAllowed);
    for action in [
        "ec2:DeleteVolume",
        "ec2:TerminateInstances",
        "ec2:StopInstances",
        "ec2:RunInstances",
        "ec2:ModifyVolume",
        "ec2:CreateSnapshot",
        "ec2:DeleteTags",
        "iam:PassRole",
        "sts:AssumeRole",
    ] {
        for role in [CONTROL_PLANE, WORKER] {
            for what in ["volume/vol-1", "instance/i-1"] {
                assert_eq!(judge(role, action, &ec2(what), &[ours]), Verdict::NotAllowed, "{role} {action}");
            }
        }
    }
    // A worker has no say over any machine or volume.
    for action in ["ec2:AttachVolume", "ec2:DetachVolume", "ec2:CreateTags", "ec2:DescribeInstances"] {
        assert_eq!(judge(WORKER, action, &ec2("volume/vol-1"), &[ours]), Verdict::NotAllowed, "{action}");
    }

    // Groups: their hooks, those of the cluster; sizes are for people.
    for action in ["autoscaling:CompleteLifecycleAction", "autoscaling:RecordLifecycleActionHeartbeat"] {
        for role in [CONTROL_PLANE, WORKER] {
            assert_eq!(judge(role, action, &group, &[ours]), Verdict::Allowed, "{role} {action}");
            assert_eq!(judge(role, action, &group, &[others]), Verdict::NotAllowed, "{role} {action}");
        }
    }
    for action in [
        "autoscaling:TerminateInstanceInAutoScalingGroup",
        "autoscaling:SetDesiredCapacity",
        "autoscaling:UpdateAutoScalingGroup",
        "autoscaling:DeleteLifecycleHook",
    ] {
        for role in [CONTROL_PLANE, WORKER] {
            assert_eq!(judge(role, action, &group, &[ours]), Verdict::NotAllowed, "{role} {action}");
        }
    }
    assert_eq!(judge(WORKER, "autoscaling:SetInstanceHealth", &group, &[ours]), Verdict::NotAllowed);

    // The key, through S3 alone.
    for (role, action) in [(CONTROL_PLANE, "kms:Decrypt"), (WORKER, "kms:Decrypt")] {
        assert_eq!(judge(role, action, KEY, &[via_s3]), Verdict::Allowed);
        assert_eq!(judge(role, action, KEY, &[]), Verdict::NotAllowed);
    }
    assert_eq!(judge(WORKER, "kms:GenerateDataKey", KEY, &[via_s3]), Verdict::NotAllowed);
    assert_eq!(judge(CONTROL_PLANE, "kms:ScheduleKeyDeletion", KEY, &[via_s3]), Verdict::NotAllowed);
}

#[test]
fn the_cloud_controller_may_route_and_nothing_that_touches_data() {
    let template = template(Volumes::PerZone);
    let document = document(&template, CONTROL_PLANE, "cloud-controller-manager");
    let policies = Policies::new(role_arn(CONTROL_PLANE), &[document], &[]);
    for action in policies.allowed_actions() {
        let harmless = action.starts_with("ec2:Describe")
            || ["ec2:CreateRoute", "ec2:DeleteRoute", "ec2:ModifyInstanceAttribute"]
                .contains(&action.as_str());
        assert!(harmless, "{action}");
    }
    let table = format!("arn:aws:ec2:{REGION}:{ACCOUNT}:route-table/rtb-1");
    let judge =
        |tags: &[(&str, &str)]| policies.judge(&asked(CONTROL_PLANE, "ec2:CreateRoute", &table, tags));
    assert_eq!(judge(&[("aws:ResourceTag/KubernetesCluster", "demo")]), Verdict::Allowed);
    assert_eq!(judge(&[]), Verdict::NotAllowed);
}

/// The page shows the template's policies as they are for the cluster `demo`.
#[test]
fn the_page_on_permissions_shows_the_templates_policies() {
    let page = read("docs/permissions.md");
    for (role, number) in [(CONTROL_PLANE, 1), (WORKER, 3)] {
        let shown = page.split("```json").nth(number).and_then(|rest| rest.split("```").next()).unwrap();
        let shown: Value = serde_json::from_str(shown).unwrap();
        let document = document(&template(Volumes::Created), role, "quorate");
        let should = serde_json::to_string_pretty(&document).unwrap();
        assert_eq!(shown, document, "{role}: docs/permissions.md should have\n{should}");
    }
}

#[test]
fn an_unknown_call_is_told_by_the_judge() {
    let asked = policy::asked(WORKER, "ec2:DescribeInstances", "*", &[]);
    let judged = std::panic::catch_unwind(|| judge(&BTreeSet::from([asked]), Volumes::PerZone));
    assert!(judged.is_err(), "a worker that calls EC2 is not let pass");
    assert_eq!(json!(all(&BTreeSet::new())), json!([]));
}
