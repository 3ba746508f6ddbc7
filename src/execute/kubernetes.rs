//! Does the steps of Kubernetes' control plane.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{StepError, authority, must_be_expected};
use crate::aws::Written;
use crate::cluster_api::ApiClient;
use crate::config::settings::ApiEndpoint;
use crate::host::clock;
use crate::host::files::{self, NewFile};
use crate::host::manifests::Manifests;
use crate::kubernetes::paths::Place;
use crate::kubernetes::{Component, Owner, RenderedFile, objects, paths};
use crate::model::fact::chain;
use crate::model::names::ClusterLeafRequest;
use crate::model::{InstanceId, Role};
use crate::pki::{ClusterAuthorities, cluster_leaves};
use crate::reach::{CLUSTER_AUTHORITIES, Reach};

pub(super) async fn create_authorities(reach: &Reach) -> Result<(), StepError> {
    let authorities = ClusterAuthorities::create(&reach.settings.cluster, clock::now_ms())?;
    match reach.aws.objects.create(CLUSTER_AUTHORITIES, authorities.bundle()?).await? {
        Written::Yes(_) => tracing::info!("created Kubernetes' authorities"),
        // Another machine was first: its authorities are the ones.
        Written::No => tracing::info!("another machine created Kubernetes' authorities"),
    }
    Ok(())
}

/// The authorities in S3, if they are those that were decided on.
async fn cluster_authorities(reach: &Reach, expected: &str) -> Result<ClusterAuthorities, StepError> {
    let stored = reach.aws.objects.get(CLUSTER_AUTHORITIES).await?.ok_or(StepError::NoClusterAuthorities)?;
    let authorities = ClusterAuthorities::parse(&stored.bytes, &reach.settings.cluster)?;
    must_be_expected(CLUSTER_AUTHORITIES, authorities.fingerprint().to_owned(), expected)?;
    Ok(authorities)
}

pub(super) async fn issue(
    reach: &Reach,
    request: &ClusterLeafRequest,
    expected: &str,
    etcd_expected: &str,
) -> Result<(), StepError> {
    let (authorities, etcd) =
        tokio::try_join!(cluster_authorities(reach, expected), authority(reach, etcd_expected))?;
    let dir = reach.root.path(paths::KUBERNETES);
    cluster_leaves::issue(&authorities, &etcd, &dir, request, clock::now_ms(), reach.owners().as_ref())?;
    Ok(())
}

/// Writes the files, those of a directory as one set, and then what they were made for.
pub(super) fn write_files(
    reach: &Reach,
    files: &[RenderedFile],
    endpoint: &ApiEndpoint,
) -> Result<(), StepError> {
    let directories: &[Place] = match reach.settings.role {
        Role::ControlPlane => &paths::DIRECTORIES,
        Role::Worker => &paths::WORKER_DIRECTORIES,
    };
    for place in directories {
        files::create_dir_as(&reach.root.path(place.path), place.mode, owner(reach, place.owner))?;
    }
    let mut sets: BTreeMap<(PathBuf, Owner), Vec<&RenderedFile>> = BTreeMap::new();
    for file in files {
        let dir = Path::new(&file.path).parent().unwrap_or(Path::new("/"));
        sets.entry((dir.to_owned(), file.owner)).or_default().push(file);
    }
    let sets: Vec<_> = sets
        .iter()
        .map(|((dir, whose), set)| {
            (reach.root.path(dir), set.iter().copied().map(new_file).collect(), owner(reach, *whose))
        })
        .collect();
    files::write_sets(&sets)?;
    let remembered = reach.remembered_endpoint();
    if let Some(parent) = remembered.parent() {
        files::create_dir(parent, 0o755)?;
    }
    Ok(files::write_durably(&remembered, format!("{endpoint}\n").as_bytes(), 0o644)?)
}

fn new_file(file: &RenderedFile) -> NewFile<'_> {
    let name = file.path.rsplit('/').next().unwrap_or(&file.path);
    NewFile { name, bytes: file.content.as_bytes(), mode: file.mode }
}

/// Where no kubelet runs, it is the only one of its files.
pub(super) fn write_logind_file(reach: &Reach, file: &RenderedFile) -> Result<(), StepError> {
    let path = reach.root.path(&file.path);
    if let Some(parent) = path.parent() {
        files::create_dir(parent, 0o755)?;
    }
    Ok(files::write_durably(&path, file.content.as_bytes(), file.mode)?)
}

pub(super) fn roll_out(
    reach: &Reach,
    component: Component,
    files: &[RenderedFile],
    manifest: &RenderedFile,
) -> Result<(), StepError> {
    let owner = owner(reach, component.owner());
    Ok(Manifests::of(&reach.root).roll_out(component, files, owner, manifest, clock::now_ms())?)
}

pub(super) fn roll_back(reach: &Reach, component: Component) -> Result<(), StepError> {
    let owner = owner(reach, component.owner());
    Ok(Manifests::of(&reach.root).roll_back(component, owner, clock::now_ms())?)
}

pub(super) async fn api(reach: &Reach) -> Result<ApiClient, StepError> {
    Ok(ApiClient::connect(&reach.root.path(paths::ADMIN_KUBECONFIG)).await?)
}

pub(super) async fn take_lease(
    reach: &Reach,
    instance: &InstanceId,
    duration_s: i32,
    version: Option<&str>,
) -> Result<(), StepError> {
    let taken = api(reach).await?.take_lease(instance, version, clock::now_ms(), duration_s).await?;
    if taken { Ok(()) } else { Err(StepError::Overtaken) }
}

pub(super) async fn renew_lease(reach: &Reach, version: &str) -> Result<(), StepError> {
    let kept = api(reach).await?.renew_lease(version, clock::now_ms()).await?;
    if kept { Ok(()) } else { Err(StepError::Overtaken) }
}

/// Applies those of the first things that are named; one that is refused does not stop the others.
pub(super) async fn apply(reach: &Reach, titles: &[String], endpoint: &ApiEndpoint) -> Result<(), StepError> {
    let authority = files::read_optional(&reach.root.path(paths::CA))?;
    let authority = authority.ok_or(StepError::NoCertificate { path: paths::CA })?;
    let authority = String::from_utf8_lossy(&authority);
    let all = objects::first_things(&reach.settings.cluster, &endpoint.url().parse()?, &authority)?;
    let api = api(reach).await?;
    let mut first = Ok(());
    for object in all.iter().filter(|object| titles.contains(&object.title())) {
        match api.apply(object).await {
            Ok(()) => tracing::info!(object = object.title(), "applied an object to the API"),
            Err(error) if first.is_ok() => first = Err(error),
            Err(error) => tracing::warn!(why = chain(&error), "an object was not applied to the API"),
        }
    }
    Ok(first?)
}

fn owner(reach: &Reach, of: Owner) -> Option<u32> {
    reach.gives_files_away().then(|| of.id())
}
