//! The bucket, and what this role may do in the cluster's place in it.

use serde_json::Value;

use crate::aws::Allowed;
use crate::config::Settings;
use crate::doctor::seen::{BucketSeen, CornerSeen};
use crate::doctor::{Finding, Open};
use crate::model::{Fact, Region, Role};

/// The folders that hold what a worker must not read.
const SECRET: [&str; 2] = ["pki", "backups"];

/// What is found of the bucket's settings.
pub(super) fn settings(wanted: &Settings, region: Option<&Region>, bucket: &BucketSeen) -> Vec<Finding> {
    vec![
        place(region, bucket),
        encryption(wanted, bucket),
        versioning(bucket),
        public_access(bucket),
        policy(bucket),
        tls_only(bucket),
        lifecycle(bucket),
    ]
}

fn place(region: Option<&Region>, bucket: &BucketSeen) -> Finding {
    let here = region.map_or_else(|| "this machine's region".to_owned(), ToString::to_string);
    let open = Finding::of("bucket.region", format!("the bucket {} in {here}", bucket.name));
    match (&bucket.region, region) {
        (Fact::Unknown(why), _) => open.unknown(not_permitted(why)),
        (Fact::Known(found), Some(here)) if found == here.as_str() => open.ok(found),
        (Fact::Known(found), Some(_)) => open.failed(
            found,
            "name a bucket of this region in `bucket`: a cluster does not live in two regions",
        ),
        (Fact::Known(found), None) => open.unknown(format!("{found}; this machine's region is not known")),
    }
}

fn encryption(wanted: &Settings, bucket: &BucketSeen) -> Finding {
    let open = Finding::of("bucket.encryption", "objects are encrypted, the authorities' keys with KMS");
    let by_setting = wanted.kms_key_id.as_ref().map(|key| key.as_str().to_owned());
    match (&bucket.encryption, by_setting) {
        (_, Some(key)) => open.ok(format!("each object is written with the KMS key {key} (`kmsKeyId`)")),
        (Fact::Unknown(why), None) => open.unknown(not_permitted(why)),
        (Fact::Known(None), None) => open.failed(
            "the bucket does not encrypt, and no key is set",
            "set `kmsKeyId`, or the bucket's default encryption: CA keys and Kubernetes' secrets lie there",
        ),
        (Fact::Known(Some(found)), None) if found.algorithm.starts_with("aws:kms") => {
            let key = found.key.as_deref().unwrap_or("AWS' own key for S3");
            open.ok(format!("{} with {key}", found.algorithm))
        }
        (Fact::Known(Some(found)), None) => open.warning(
            format!("{}, a key of S3's own", found.algorithm),
            "let the bucket encrypt with a KMS key, or set `kmsKeyId`: who may use the key is then a second lock on the \
             CA keys",
        ),
    }
}

fn versioning(bucket: &BucketSeen) -> Finding {
    let open =
        Finding::of("bucket.versioning", "versions are kept, so that what is overwritten can come back");
    match &bucket.versioning {
        Fact::Unknown(why) => open.unknown(not_permitted(why)),
        Fact::Known(true) => open.ok("versions are kept"),
        Fact::Known(false) => open.warning(
            "versions are not kept",
            "turn on the bucket's versioning: a lost charter or authority is brought back from an older version",
        ),
    }
}

fn public_access(bucket: &BucketSeen) -> Finding {
    let open = Finding::of("bucket.public-access", "all four blocks on public access are set on the bucket");
    match &bucket.open_to_public {
        Fact::Unknown(why) => open.unknown(not_permitted(why)),
        Fact::Known(missing) if missing.is_empty() => open.ok("all four are set"),
        Fact::Known(missing) => open.warning(
            format!("not set on the bucket: {}", missing.join(", ")),
            "set the bucket's Block Public Access; the account's own, which is not seen here, may do the same",
        ),
    }
}

fn policy(bucket: &BucketSeen) -> Finding {
    let open = Finding::of("bucket.policy", "a policy that is not public, or none");
    match &bucket.policy_is_public {
        Fact::Unknown(why) => open.unknown(not_permitted(why)),
        Fact::Known(false) => open.ok("not public"),
        Fact::Known(true) => open.failed(
            "S3 calls the bucket's policy public",
            "take the public statement out of the bucket's policy at once, and replace the authorities: CA keys may \
             have been read",
        ),
    }
}

fn tls_only(bucket: &BucketSeen) -> Finding {
    let open =
        Finding::of("bucket.tls-only", "the policy denies what comes without TLS (aws:SecureTransport)");
    match &bucket.policy {
        Fact::Unknown(why) => open.unknown(not_permitted(why)),
        Fact::Known(policy) if policy.as_deref().is_some_and(denies_plain) => open.ok("denied without TLS"),
        Fact::Known(_) => open.warning(
            "the policy does not deny it",
            "deny `s3:*` on the bucket and its objects with the condition `\"Bool\": {\"aws:SecureTransport\": \
             \"false\"}`",
        ),
    }
}

fn lifecycle(bucket: &BucketSeen) -> Finding {
    let open = Finding::of(
        "bucket.lifecycle",
        "unfinished uploads are ended and old versions expire; nothing else of the cluster's does",
    );
    let versions = bucket.versioning == Fact::Known(true);
    match &bucket.lifecycle {
        Fact::Unknown(why) => open.unknown(not_permitted(why)),
        Fact::Known(found) if found.expires_objects => open.failed(
            "a rule removes current objects of the cluster after a time",
            "take the rule away, or narrow its prefix: it would remove the charter and the authorities. Backups are \
             removed by the agent, as `backups` in the configuration says",
        ),
        Fact::Known(found) if !found.ends_uploads || (versions && !found.expires_versions) => {
            let missing = [
                (!found.ends_uploads).then_some("no rule ends unfinished uploads"),
                (versions && !found.expires_versions).then_some("no rule expires versions that are not current"),
            ];
            let missing: Vec<&str> = missing.into_iter().flatten().collect();
            open.warning(
                missing.join(", and "),
                "add a rule with AbortIncompleteMultipartUpload, and one with NoncurrentVersionExpiration where versions \
                 are kept: what is removed or left half-way is else paid for for ever",
            )
        }
        Fact::Known(_) => open.ok("rules end unfinished uploads and keep old versions in bounds"),
    }
}

/// Whether a policy denies requests without TLS, to everybody.
fn denies_plain(policy: &str) -> bool {
    let Ok(policy) = serde_json::from_str::<Value>(policy) else { return false };
    let statements = match &policy["Statement"] {
        Value::Array(statements) => statements.clone(),
        one => vec![one.clone()],
    };
    statements.iter().any(|statement| {
        let value = &statement["Condition"]["Bool"]["aws:SecureTransport"];
        let is_plain = value == "false" || value == &Value::Bool(false) || value[0] == "false";
        let everybody = statement["Principal"] == "*" || statement["Principal"]["AWS"] == "*";
        statement["Effect"] == "Deny" && everybody && is_plain
    })
}

/// What this role may do, and what it should.
pub(super) fn corner(role: Role, corner: &CornerSeen) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        corner.read.iter().map(|(folder, may)| read(role, corner, folder, may)).collect();
    findings.push(listing(role, corner));
    findings.push(write(role, corner));
    findings
}

fn read(role: Role, corner: &CornerSeen, folder: &str, may: &Fact<Allowed>) -> Finding {
    let what = format!("{}{folder}/", corner.url);
    let check = format!("role.read.{folder}");
    let must_not = role == Role::Worker && SECRET.contains(&folder);
    let open =
        Finding::of(check, format!("a {role} {} {what}", if must_not { "may not read" } else { "may read" }));
    match (may, must_not) {
        (Fact::Unknown(why), _) => open.unknown(why),
        (Fact::Known(Allowed::Yes), false) => open.ok("it may"),
        (Fact::Known(Allowed::No), true) => open.ok("it may not"),
        (Fact::Known(Allowed::No), false) => open.failed(
            "access denied",
            "allow s3:GetObject there to the instance's role, and the use of the KMS key if there is one \
             (docs/permissions.md)",
        ),
        (Fact::Known(Allowed::Yes), true) => open.failed(
            "S3 lets this worker's role read there",
            "give workers a role of their own that may read workers/ alone (docs/permissions.md): who gets a shell on \
             a worker would have the CA keys, or every secret of the cluster's",
        ),
    }
}

fn listing(role: Role, corner: &CornerSeen) -> Finding {
    let open = Finding::of("role.list", format!("a {role} may list {}", corner.url));
    match &corner.list {
        Fact::Unknown(why) => open.unknown(why),
        Fact::Known(Allowed::Yes) => open.ok("it may"),
        Fact::Known(Allowed::No) => denied_list(role, open),
    }
}

fn denied_list(role: Role, open: Open) -> Finding {
    let todo = "allow s3:ListBucket on the bucket to the instance's role: without it S3 calls forbidden what is only \
                missing";
    match role {
        Role::ControlPlane => open.failed("access denied", todo),
        Role::Worker => open.warning("access denied", todo),
    }
}

fn write(role: Role, corner: &CornerSeen) -> Finding {
    let may = if role == Role::Worker { "may not write" } else { "may write, on condition," };
    let open = Finding::of("role.write", format!("a {role} {may} to {}", corner.url));
    match (&corner.write, role) {
        (Fact::Unknown(why), _) => open.unknown(why),
        (Fact::Known(Allowed::Yes), Role::ControlPlane) => {
            open.ok("it may, and S3 holds a write to its condition")
        }
        (Fact::Known(Allowed::No), Role::Worker) => open.ok("it may not"),
        (Fact::Known(Allowed::No), Role::ControlPlane) => open.failed(
            "access denied",
            "allow s3:PutObject there to the instance's role, and kms:GenerateDataKey if there is a key",
        ),
        (Fact::Known(Allowed::Yes), Role::Worker) => open.failed(
            "S3 lets this worker's role write there",
            "give workers a role of their own (docs/permissions.md): the charter and the authorities are the control \
             plane's",
        ),
    }
}

/// Why a setting is not known: most often, since the optional permission is not given.
fn not_permitted(why: &str) -> String {
    if why.contains("access denied") {
        format!("not permitted, and not needed otherwise: {why}")
    } else {
        why.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_denies_what_comes_without_tls_only_when_it_does_so_to_everybody() {
        let policy = |effect: &str, principal: &str, value: &str| {
            format!(
                r#"{{"Statement":{{"Effect":"{effect}","Principal":{principal},"Condition":{{"Bool":{{"aws:SecureTransport":{value}}}}}}}}}"#
            )
        };
        for (effect, principal, value, denies) in [
            ("Deny", r#""*""#, r#""false""#, true),
            ("Deny", r#"{"AWS":"*"}"#, "false", true),
            ("Allow", r#""*""#, r#""false""#, false),
            ("Deny", r#""*""#, r#""true""#, false),
            ("Deny", r#"{"AWS":"arn:aws:iam::1:role/a"}"#, r#""false""#, false),
        ] {
            assert_eq!(
                denies_plain(&policy(effect, principal, value)),
                denies,
                "{effect} {principal} {value}"
            );
        }
        assert!(!denies_plain("not JSON"));
    }
}
