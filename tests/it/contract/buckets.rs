//! What the doctor asks: a bucket's settings, and what EC2 and S3 would let it do.

use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, BucketVersioningStatus, ExpirationStatus,
    LifecycleRule, LifecycleRuleFilter, NoncurrentVersionExpiration, PublicAccessBlockConfiguration,
    ServerSideEncryption, ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration,
    ServerSideEncryptionRule, VersioningConfiguration,
};
use quorate::aws::{Allowed, BucketLifecycle};
use quorate::lab::region::BucketSettings;
use quorate::model::tags;

use super::endpoints::{Endpoints, REGION, ZONES, tags as tagged};

const KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/0a1b2c3d-0000-0000-0000-000000000000";

fn policy(bucket: &str) -> String {
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::{bucket}/*"}}]}}"#
    )
}

pub async fn a_bucket_s_settings_are_told_and_missing_ones_are_no_error(e: &Endpoints) {
    let store = e.store("plain").await;
    assert_eq!(store.bucket_region().await.unwrap(), REGION);
    // moto has another root around this answer than S3.
    if e.is_simulated() {
        assert!(!store.bucket_versioning().await.unwrap());
    }
    assert_eq!(store.bucket_open_to_public().await.unwrap().len(), 4);
    assert!(!store.bucket_policy_is_public().await.unwrap());
    assert_eq!(store.bucket_policy().await.unwrap(), None);
    assert_eq!(store.bucket_lifecycle().await.unwrap(), BucketLifecycle::default());
    // S3 has encrypted every bucket by itself since 2023; moto has not.
    let by_itself = store.bucket_encryption().await.unwrap();
    assert!(by_itself.is_none_or(|found| found.algorithm == "AES256" && found.key.is_none()));

    let store = e.store("settled").await;
    set_up(e, "settled").await;
    if e.is_simulated() {
        assert!(store.bucket_versioning().await.unwrap());
    }
    assert_eq!(store.bucket_open_to_public().await.unwrap(), [""; 0]);
    assert!(store.bucket_policy_is_public().await.unwrap());
    let told: serde_json::Value =
        serde_json::from_str(&store.bucket_policy().await.unwrap().unwrap()).unwrap();
    assert_eq!(told, serde_json::from_str::<serde_json::Value>(&policy("settled")).unwrap());
    let found = store.bucket_encryption().await.unwrap().unwrap();
    assert_eq!((found.algorithm.as_str(), found.key.as_deref()), ("aws:kms", Some(KEY)));
    let lifecycle = BucketLifecycle { ends_uploads: true, expires_versions: true, expires_objects: false };
    assert_eq!(store.bucket_lifecycle().await.unwrap(), lifecycle);

    let error = e.agents().await.objects.bucket_encryption().await.unwrap_err();
    assert!(error.to_string().contains("there is no such bucket"), "{error}");
    let now = quorate::host::clock::now_ms();
    assert!((store.server_time().await.unwrap() - now).abs() < 120_000);
}

async fn set_up(e: &Endpoints, bucket: &str) {
    if e.is_simulated() {
        let rule = quorate::lab::region::LifecycleRule {
            ends_uploads: Some(1),
            expires_versions: Some(30),
            ..Default::default()
        };
        let settings = BucketSettings {
            kms_key: Some(KEY.to_owned()),
            versioning: true,
            blocks_public: true,
            policy: Some(policy(bucket)),
            lifecycle: vec![rule],
            ..BucketSettings::default()
        };
        e.region().change(|w| w.set_up_bucket(bucket, settings));
        return;
    }
    let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    e.s3.put_bucket_versioning().bucket(bucket).versioning_configuration(enabled).send().await.unwrap();
    e.s3.put_bucket_policy().bucket(bucket).policy(policy(bucket)).send().await.unwrap();
    let block = PublicAccessBlockConfiguration::builder()
        .block_public_acls(true)
        .ignore_public_acls(true)
        .block_public_policy(true)
        .restrict_public_buckets(true)
        .build();
    let put = e.s3.put_public_access_block().bucket(bucket).public_access_block_configuration(block);
    put.send().await.unwrap();
    let kms = ServerSideEncryptionByDefault::builder()
        .sse_algorithm(ServerSideEncryption::AwsKms)
        .kms_master_key_id(KEY)
        .build()
        .unwrap();
    let rule = ServerSideEncryptionRule::builder().apply_server_side_encryption_by_default(kms).build();
    let encryption = ServerSideEncryptionConfiguration::builder().rules(rule).build().unwrap();
    let put = e.s3.put_bucket_encryption().bucket(bucket).server_side_encryption_configuration(encryption);
    put.send().await.unwrap();
    let rule = LifecycleRule::builder()
        .id("bounds")
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix("").build())
        .abort_incomplete_multipart_upload(
            AbortIncompleteMultipartUpload::builder().days_after_initiation(1).build(),
        )
        .noncurrent_version_expiration(NoncurrentVersionExpiration::builder().noncurrent_days(30).build())
        .build()
        .unwrap();
    let rules = BucketLifecycleConfiguration::builder().rules(rule).build().unwrap();
    let put = e.s3.put_bucket_lifecycle_configuration().bucket(bucket).lifecycle_configuration(rules);
    put.send().await.unwrap();
}

pub async fn what_a_role_may_do_is_tried_without_doing_it(e: &Endpoints) {
    let store = e.store("tried").await;
    assert_eq!(store.may_read("pki/none").await.unwrap(), Allowed::Yes);
    for key in ["none", "there"] {
        assert_eq!(store.may_write(key).await.unwrap(), Allowed::Yes);
        assert_eq!(store.get("none").await.unwrap(), None);
        if key == "none" {
            store.put("there", b"kept".to_vec()).await.unwrap();
        }
    }
    assert_eq!(store.get("there").await.unwrap().unwrap().bytes, b"kept");

    let ec2 = e.agents().await.ec2.clone();
    let zone = ZONES[0].parse().unwrap();
    let created = e.ec2.create_volume().availability_zone(ZONES[0]).size(1).send().await.unwrap();
    let volume = created.volume_id().unwrap().parse().unwrap();
    let instance = e.instance(ZONES[0], &tagged(&[])).await.parse().unwrap();
    assert!(ec2.may_attach(&volume, &instance).await.unwrap());
    assert!(ec2.may_tag(volume.as_str(), &[(tags::STAMP, "x")]).await.unwrap());
    assert!(ec2.may_create(&zone, &[(tags::CLUSTER, "c1")]).await.unwrap());
    let volumes = e.ec2.describe_volumes().volume_ids(volume.as_str()).send().await.unwrap();
    assert!(volumes.volumes()[0].attachments().is_empty() && volumes.volumes()[0].tags().is_empty());
    let options = ec2.metadata_options(&instance).await.unwrap();
    assert!(options.tokens_required.is_some() || !e.is_simulated(), "{options:?}");
}
