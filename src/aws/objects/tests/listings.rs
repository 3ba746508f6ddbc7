//! What is listed, and what is removed.

use super::*;
use crate::model::{BackupKey, BackupPart, ChainName, Generation};

const LAST: &str = "<IsTruncated>false</IsTruncated>";
const MORE: &str = "<IsTruncated>true</IsTruncated>";

fn listing(keys: &[&str], truncated: &str, next: &str) -> Reply {
    let object = |key: &&str| {
        format!(
            "<Contents><Key>some/prefix/prod/{key}</Key><Size>7</Size>\
             <LastModified>1970-01-01T00:00:01.500Z</LastModified></Contents>"
        )
    };
    let contents: Vec<_> = keys.iter().map(object).collect();
    let contents = contents.concat();
    answer(
        200,
        format!(
            "<ListBucketResult><Name>bucket</Name>{truncated}{contents}\
             <NextContinuationToken>{next}</NextContinuationToken></ListBucketResult>"
        ),
    )
}

#[tokio::test]
async fn objects_of_all_pages_are_listed_relative_to_the_cluster() {
    let server = Server::start(|request| {
        if request.path.contains("continuation-token=t2") {
            listing(&["backups/1/b"], LAST, "")
        } else {
            listing(&["backups/1/a"], MORE, "t2")
        }
    })
    .await;
    let store = server.clients(1).await.objects;
    assert_eq!(store.list("backups/").await.unwrap(), ["backups/1/a", "backups/1/b"]);
    assert!(store.any("backups/").await.unwrap());
    assert!(server.seen()[0].path.contains("prefix=some%2Fprefix%2Fprod%2Fbackups%2F"));
    let listed = |key: &str| Listed { key: key.to_owned(), size: 7, modified: 1500 };
    assert_eq!(store.objects("backups/").await.unwrap(), [listed("backups/1/a"), listed("backups/1/b")]);
    let before = server.seen().len();
    store.list_after("backups/", "backups/1/").await.unwrap();
    let path = &server.seen()[before].path;
    assert!(path.contains("start-after=some%2Fprefix%2Fprod%2Fbackups%2F1%2F"), "{path}");
}

#[tokio::test]
async fn folders_are_told_without_what_is_in_them() {
    let page = |folder: &str, truncated: &str| {
        answer(
            200,
            format!(
                "<ListBucketResult>{truncated}<CommonPrefixes><Prefix>some/prefix/prod/backups/{folder}/</Prefix>\
                 </CommonPrefixes><NextContinuationToken>t2</NextContinuationToken></ListBucketResult>"
            ),
        )
    };
    let server = Server::start(move |request| {
        if request.path.contains("continuation-token=t2") { page("2", LAST) } else { page("1", MORE) }
    })
    .await;
    let store = server.clients(1).await.objects;
    assert_eq!(store.folders("backups/").await.unwrap(), ["backups/1/", "backups/2/"]);
    assert!(server.seen().iter().all(|request| request.path.contains("delimiter=%2F")));
}

#[tokio::test]
async fn an_empty_listing_is_empty() {
    let (_server, store) = store_that_says(listing(&[], LAST, "")).await;
    assert!(store.list("backups/").await.unwrap().is_empty());
    assert!(store.folders("backups/").await.unwrap().is_empty());
    assert!(!store.any("backups/").await.unwrap());
}

#[tokio::test]
async fn what_is_no_listing_is_not_taken_for_an_empty_one() {
    for reply in [
        answer(200, ""),
        answer(200, "<html>sign in</html>"),
        answer(200, "<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated>"),
        listing(&[], MORE, ""),
        s3_error(403, "AccessDenied"),
        s3_error(404, "NoSuchBucket"),
        s3_error(503, "SlowDown"),
        Reply::Cut,
    ] {
        let (_server, store) = store_that_says(reply.clone()).await;
        assert!(store.any("backups/").await.is_err(), "{reply:?}");
        assert!(store.list("backups/").await.is_err(), "{reply:?}");
        assert!(store.folders("backups/").await.is_err(), "{reply:?}");
        assert!(store.abandoned_uploads("backups/").await.is_err(), "{reply:?}");
    }
}

#[tokio::test]
async fn an_object_without_a_size_or_from_elsewhere_is_no_listing() {
    for object in [
        "<Key>some/prefix/prod/k</Key><LastModified>1970-01-01T00:00:01Z</LastModified>",
        "<Key>some/prefix/prod/k</Key><Size>7</Size>",
        "<Key>other/k</Key><Size>7</Size><LastModified>1970-01-01T00:00:01Z</LastModified>",
    ] {
        let page = format!("<ListBucketResult>{LAST}<Contents>{object}</Contents></ListBucketResult>");
        let (_server, store) = store_that_says(answer(200, page)).await;
        let error = store.objects("").await.unwrap_err();
        assert!(matches!(error, ObjectError::Malformed { .. }), "{object}: {error:?}");
    }
}

#[tokio::test]
async fn uploads_that_nobody_finished_are_listed_by_pages_and_ended() {
    let page = |key: &str, id: &str, truncated: &str| {
        answer(
            200,
            format!(
                "<ListMultipartUploadsResult>{truncated}<NextKeyMarker>some/prefix/prod/{key}</NextKeyMarker>\
                 <NextUploadIdMarker>{id}</NextUploadIdMarker><Upload><Key>some/prefix/prod/{key}</Key>\
                 <UploadId>{id}</UploadId><Initiated>1970-01-01T00:00:02Z</Initiated></Upload>\
                 </ListMultipartUploadsResult>"
            ),
        )
    };
    let server = Server::start(move |request| match request.method.as_str() {
        "DELETE" if request.path.contains("uploadId=u2") => s3_error(404, "NoSuchUpload"),
        "DELETE" => answer(204, ""),
        _ if request.path.contains("upload-id-marker=u1") => page("backups/b", "u2", LAST),
        _ => page("backups/a", "u1", MORE),
    })
    .await;
    let store = server.clients(1).await.objects;
    let uploads = store.abandoned_uploads("backups/").await.unwrap();
    let told: Vec<_> = uploads.iter().map(|upload| (upload.key.as_str(), upload.begun)).collect();
    assert_eq!(told, [("backups/a", 2000), ("backups/b", 2000)]);
    for upload in &uploads {
        store.abort_upload(upload).await.unwrap();
    }
    let (_server, denied) = store_that_says(s3_error(403, "AccessDenied")).await;
    let error = denied.abort_upload(&uploads[0]).await.unwrap_err();
    assert!(error.to_string().contains("allow s3:AbortMultipartUpload"), "{error}");
    let error = denied.abandoned_uploads("backups/").await.unwrap_err();
    assert!(error.to_string().contains("allow s3:ListBucketMultipartUploads"), "{error}");
}

fn segment() -> BackupKey {
    let chain = ChainName::new(Generation(1), 10, "0a1b2c3d").unwrap();
    BackupKey { chain, part: BackupPart::Segment(3) }
}

#[tokio::test]
async fn an_object_of_a_backup_is_removed_versions_or_not() {
    let marker = Reply::Answer(204, vec![("x-amz-delete-marker", "true".to_owned())], Vec::new());
    for reply in [answer(204, ""), marker, s3_error(404, "NoSuchKey")] {
        let (server, store) = store_that_says(reply).await;
        store.remove_backup(&segment()).await.unwrap();
        let seen = server.seen();
        assert_eq!((seen.len(), seen[0].method.as_str()), (1, "DELETE"));
        let path = "/bucket/some/prefix/prod/backups/1/0000000000000000010-0a1b2c3d/changes/0000000003?";
        assert!(seen[0].path.starts_with(path), "{}", seen[0].path);
        assert!(!seen[0].path.contains("versionId"), "what was there stays in a bucket with versions");
    }
}

#[tokio::test]
async fn an_object_that_the_bucket_keeps_is_said_to_stay() {
    let (_server, store) = store_that_says(s3_error(403, "AccessDenied")).await;
    let error = store.remove_backup(&segment()).await.unwrap_err();
    assert!(matches!(error, ObjectError::Kept { .. }) && !error.is_retryable(), "{error:?}");
    assert!(chain(&error).contains("s3:DeleteObject"), "{}", chain(&error));
    for (reply, retryable) in
        [(s3_error(503, "SlowDown"), true), (s3_error(404, "NoSuchBucket"), false), (Reply::Cut, true)]
    {
        let (_server, store) = store_that_says(reply.clone()).await;
        let error = store.remove_backup(&segment()).await.unwrap_err();
        assert!(!matches!(error, ObjectError::Kept { .. }), "{reply:?}: {error:?}");
        assert_eq!(error.is_retryable(), retryable, "{reply:?}");
    }
}
