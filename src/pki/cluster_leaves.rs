//! Kubernetes' leaves: the certificates, keys and kubeconfigs of one control-plane node.
//!
//! They are issued as one set into the places that [`files`] lists. Who each of them is:
//!
//! | for | common name | organization | authority |
//! |---|---|---|---|
//! | the API server | `kube-apiserver` | | cluster |
//! | the API server towards kubelets | [`KUBELET_CLIENT_USER`] | | cluster |
//! | the API server towards aggregated ones | [`FRONT_PROXY_USER`] | | front-proxy |
//! | the API server towards etcd | `kube-apiserver` | the cluster's name | etcd |
//! | the controller-manager | `system:kube-controller-manager` | | cluster |
//! | the scheduler | `system:kube-scheduler` | | cluster |
//! | this node's kubelet | `system:node:NODE` | `system:nodes` | cluster |
//! | the administrator on this node | [`ADMIN_USER`] | `system:masters` | cluster |
//!
//! The API server is no member of `system:masters` towards kubelets, as it was in kubeadm's
//! clusters for long: its user there needs the role `system:kubelet-api-admin`, which the cluster
//! has from its first start, and a binding to it.
//!
//! The set is replaced directory by directory and file by file, since programs read them by these
//! names. A crash in between leaves a mixture, which [`inspect`] takes for what it is: a set when
//! every certificate has its key, its authority and its name and all agree, otherwise nothing.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, PublicKeyData as _};

use super::authority::EtcdAuthority;
use super::certificate::{self, Certificate};
use super::cluster::{ClusterAuthorities, MASTERS, fingerprint};

use super::files::{self, ClusterFile, Owners};
use super::{PkiError, Secret};
use crate::host::files::{NewFile, create_dir, create_dir_as, write_set_as};
use crate::kubernetes::kubeconfig::{self, Credential, FoundCredential, Kubeconfig};
use crate::kubernetes::{Owner, encryption_config, encryption_keys};
use crate::model::names::{ClusterLeafNames, ClusterLeafRequest, ClusterLeaves, ServerUrl};

/// As whom the API server asks kubelets. It is to be bound to the role `system:kubelet-api-admin`.
pub const KUBELET_CLIENT_USER: &str = "kube-apiserver-kubelet-client";
/// As whom the API server asks aggregated API servers: what `--requestheader-allowed-names` takes.
pub const FRONT_PROXY_USER: &str = "front-proxy-client";
/// Who the administrator on a node is.
pub const ADMIN_USER: &str = "quorate-admin";

const API_SERVER: &str = "kube-apiserver";
const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";
const NODE: &str = "system:node:";
const NODES: &str = "system:nodes";

const ASKS: [ExtendedKeyUsagePurpose; 1] = [ExtendedKeyUsagePurpose::ClientAuth];

/// Issues a fresh set into `dir` (`/etc/kubernetes` under the root), whose directories are made when
/// they are missing, and says what it is.
///
/// Leaves are valid for 90 days from five minutes ago, but not beyond their authority. With
/// `owners`, each file and directory is given to its component's user; without, they stay the
/// caller's, who must be the one that runs the components.
pub fn issue(
    authorities: &ClusterAuthorities,
    etcd: &EtcdAuthority,
    dir: &Path,
    request: &ClusterLeafRequest,
    now: i64,
    owners: Option<&Owners>,
) -> Result<ClusterLeaves, PkiError> {
    let contents = make(authorities, etcd, request, now)?;
    for place in files::DIRS {
        let path = dir.join(place.path);
        if place == files::KUBERNETES {
            // Kubernetes' own, with more in it than this.
            create_dir(&path, place.mode)?;
        } else {
            create_dir_as(&path, place.mode, owners.map(|owners| owners.id(place.owner)))?;
        }
        let set: Vec<_> = contents.iter().filter(|(file, _)| file.dir == place).collect();
        let set: Vec<_> = set
            .iter()
            .map(|(file, text)| NewFile { name: file.name, bytes: text.expose().as_bytes(), mode: file.mode })
            .collect();
        write_set_as(&path, &set, owners.map(|owners| owners.id(place.owner)))?;
    }
    Look { dir, owners }.read()
}

/// Looks at the set in `dir` (`/etc/kubernetes` under the root): `None` when a part is missing or
/// damaged, has another's key, name or signature, belongs to another (with `owners`), can be read
/// by others, or does not agree with the rest.
///
/// # Errors
/// Only a file that is there and can't be read. That is no answer.
pub fn inspect(dir: &Path, owners: Option<&Owners>) -> Result<Option<ClusterLeaves>, PkiError> {
    match (Look { dir, owners }).read() {
        Ok(leaves) => Ok(Some(leaves)),
        Err(PkiError::Read { source, .. })
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error @ PkiError::Read { .. }) => Err(error),
        Err(error) => {
            tracing::debug!(why = crate::model::fact::chain(&error), "Kubernetes' leaves can't be used");
            Ok(None)
        }
    }
}

/// Makes all that is to be written.
fn make(
    authorities: &ClusterAuthorities,
    etcd: &EtcdAuthority,
    request: &ClusterLeafRequest,
    now: i64,
) -> Result<Vec<(ClusterFile, Secret)>, PkiError> {
    let cluster = authorities.cluster();
    if etcd.cluster() != cluster {
        return Err(PkiError::WrongCluster {
            of: "the etcd authority",
            found: etcd.cluster().to_string(),
            expected: cluster.to_string(),
        });
    }
    let own = authorities.authority().open(now)?;
    let front_proxy = authorities.front_proxy().open(now)?;
    let etcd_signer = etcd.signer().open(now)?;
    let asks = |name: &str, group: Option<&str>| certificate::leaf(name, group, now, &ASKS);

    let server = own.sign("the API server's certificate", api_server(request, now)?)?;
    let kubelets = own.sign("the API server's certificate for kubelets", asks(KUBELET_CLIENT_USER, None)?)?;
    let aggregated = front_proxy.sign("the front proxy's certificate", asks(FRONT_PROXY_USER, None)?)?;
    let store = asks(API_SERVER, Some(cluster.as_str()))?;
    let store = etcd_signer.sign("the API server's certificate for etcd", store)?;
    let controller = own.sign("the controller-manager's certificate", asks(CONTROLLER_MANAGER, None)?)?;
    let scheduler = own.sign("the scheduler's certificate", asks(SCHEDULER, None)?)?;
    let node = format!("{NODE}{}", request.node);
    let kubelet = own.sign("the kubelet's certificate", asks(&node, Some(NODES))?)?;
    let admin = own.sign("the administrator's certificate", asks(ADMIN_USER, Some(MASTERS))?)?;

    let kubeconfig = |of, user, server, credential| {
        let authority = authorities.certificate();
        let kubeconfig = Kubeconfig { cluster: cluster.as_str(), user, server, authority, credential };
        kubeconfig.render().map_err(|source| PkiError::Kubeconfig { of, source })
    };
    let beside = |certificate: ClusterFile, key: ClusterFile| Credential::Files {
        certificate: certificate.name,
        key: key.name,
    };
    let controller_files = beside(files::CONTROLLER_CLIENT, files::CONTROLLER_CLIENT_KEY);
    let scheduler_files = beside(files::SCHEDULER_CLIENT, files::SCHEDULER_CLIENT_KEY);
    let kubelet = Credential::Embedded { certificate: &kubelet.certificate, key: &kubelet.key };
    let admin = Credential::Embedded { certificate: &admin.certificate, key: &admin.key };
    let (local, components) = (&request.local_server, &request.component_server);
    let controller_kubeconfig =
        kubeconfig("the controller-manager", CONTROLLER_MANAGER, components, controller_files)?;
    let scheduler_kubeconfig = kubeconfig("the scheduler", SCHEDULER, components, scheduler_files)?;
    let kubelet_kubeconfig = kubeconfig("the kubelet", &node, local, kubelet)?;
    let admin_kubeconfig = kubeconfig("the administrator", ADMIN_USER, local, admin)?;

    let encryption = encryption_config(authorities.encryption_keys())
        .map_err(|source| PkiError::Encryption(Box::new(source)))?;
    let open = |text: &str| Secret::new(text.to_owned());
    let signing = authorities.service_account_key();
    Ok(vec![
        (files::CA, open(authorities.certificate())),
        (files::FRONT_PROXY_CA, open(authorities.front_proxy_certificate())),
        (files::ETCD_CA, open(etcd.certificate())),
        (files::TLS_KEY, server.key),
        (files::TLS, Secret::new(server.certificate)),
        (files::KUBELET_CLIENT_KEY, kubelets.key),
        (files::KUBELET_CLIENT, Secret::new(kubelets.certificate)),
        (files::FRONT_PROXY_CLIENT_KEY, aggregated.key),
        (files::FRONT_PROXY_CLIENT, Secret::new(aggregated.certificate)),
        (files::ETCD_CLIENT_KEY, store.key),
        (files::ETCD_CLIENT, Secret::new(store.certificate)),
        (files::ENCRYPTION, encryption),
        (files::SERVICE_ACCOUNT_KEY, signing.clone()),
        (files::SERVICE_ACCOUNT_PUBLIC, open(authorities.service_account_public())),
        (files::CA_KEY, authorities.authority().key().clone()),
        (files::CONTROLLER_SERVICE_ACCOUNT_KEY, signing.clone()),
        (files::CONTROLLER_CLIENT_KEY, controller.key),
        (files::CONTROLLER_CLIENT, Secret::new(controller.certificate)),
        (files::CONTROLLER_KUBECONFIG, controller_kubeconfig),
        (files::SCHEDULER_CLIENT_KEY, scheduler.key),
        (files::SCHEDULER_CLIENT, Secret::new(scheduler.certificate)),
        (files::SCHEDULER_KUBECONFIG, scheduler_kubeconfig),
        (files::KUBELET_KUBECONFIG, kubelet_kubeconfig),
        (files::ADMIN_KUBECONFIG, admin_kubeconfig),
    ])
}

fn api_server(request: &ClusterLeafRequest, now: i64) -> Result<CertificateParams, PkiError> {
    let serves = [ExtendedKeyUsagePurpose::ServerAuth];
    let mut params = certificate::leaf(API_SERVER, None, now, &serves)?;
    let names = request
        .names()
        .map_err(certificate::not_a_name("the API server", request.cluster_domain.to_string()))?
        .api_server;
    params.subject_alt_names = names.iter().map(certificate::alternative_name).collect::<Result<_, _>>()?;
    Ok(params)
}

/// A look at one node's set.
struct Look<'a> {
    dir: &'a Path,
    owners: Option<&'a Owners>,
}

/// The dates of the certificates seen so far.
struct Dates {
    not_before: i64,
    not_after: i64,
}

impl Look<'_> {
    /// Reads the whole set and holds every part of it against the others.
    fn read(&self) -> Result<ClusterLeaves, PkiError> {
        for place in files::DIRS.into_iter().filter(|place| *place != files::KUBERNETES) {
            let path = self.dir.join(place.path);
            let found =
                fs::metadata(&path).map_err(|source| PkiError::Read { path: path.clone(), source })?;
            self.must_be_as(&path, &found, place.owner, place.mode)?;
        }
        let (ca_text, ca) = self.authority("the cluster authority", files::CA)?;
        let (_, front_proxy) = self.authority("the front-proxy authority", files::FRONT_PROXY_CA)?;
        let (_, etcd) = self.authority("the etcd authority", files::ETCD_CA)?;
        ca.must_match(&certificate::key_from_pem("the cluster authority", &self.text(files::CA_KEY)?)?)?;

        let encryption = encryption_keys(&self.text(files::ENCRYPTION)?);
        let encryption = encryption.ok_or(PkiError::EncryptionDamaged)?;

        let mut dates = Dates { not_before: i64::MIN, not_after: i64::MAX };
        let server = self.leaf("the API server", files::TLS, files::TLS_KEY)?;
        server.must_be(API_SERVER, &ca, true, &mut dates)?;
        let api_server = server.certificate.host_names()?.into_iter().collect();
        for (of, certificate, key, name, authority) in [
            (
                "the API server towards kubelets",
                files::KUBELET_CLIENT,
                files::KUBELET_CLIENT_KEY,
                KUBELET_CLIENT_USER,
                &ca,
            ),
            (
                "the front proxy",
                files::FRONT_PROXY_CLIENT,
                files::FRONT_PROXY_CLIENT_KEY,
                FRONT_PROXY_USER,
                &front_proxy,
            ),
            ("the API server towards etcd", files::ETCD_CLIENT, files::ETCD_CLIENT_KEY, API_SERVER, &etcd),
            (
                "the controller-manager",
                files::CONTROLLER_CLIENT,
                files::CONTROLLER_CLIENT_KEY,
                CONTROLLER_MANAGER,
                &ca,
            ),
            ("the scheduler", files::SCHEDULER_CLIENT, files::SCHEDULER_CLIENT_KEY, SCHEDULER, &ca),
        ] {
            self.leaf(of, certificate, key)?.must_be(name, authority, false, &mut dates)?;
        }
        let beside = |of, kubeconfig, certificate: ClusterFile, key: ClusterFile| {
            let (server, credential) = self.kubeconfig(of, kubeconfig, &ca_text)?;
            match credential {
                FoundCredential::Files { certificate: named, key: key_named }
                    if named == certificate.name && key_named == key.name =>
                {
                    Ok(server)
                }
                FoundCredential::Files { .. }
                | FoundCredential::Embedded { .. }
                | FoundCredential::Token(_) => {
                    Err(disagree(of, "it does not name the certificate beside it"))
                }
            }
        };
        let controller = beside(
            "the controller-manager",
            files::CONTROLLER_KUBECONFIG,
            files::CONTROLLER_CLIENT,
            files::CONTROLLER_CLIENT_KEY,
        )?;
        let scheduler = beside(
            "the scheduler",
            files::SCHEDULER_KUBECONFIG,
            files::SCHEDULER_CLIENT,
            files::SCHEDULER_CLIENT_KEY,
        )?;
        let (kubelet_server, kubelet) = self.embedded("the kubelet", files::KUBELET_KUBECONFIG, &ca_text)?;
        let node = kubelet.certificate.common_name()?;
        kubelet.must_be(&node, &ca, false, &mut dates)?;
        let (admin_server, admin) = self.embedded("the administrator", files::ADMIN_KUBECONFIG, &ca_text)?;
        admin.must_be(ADMIN_USER, &ca, false, &mut dates)?;
        if controller != scheduler || kubelet_server != admin_server {
            return Err(disagree("this node", "its kubeconfigs name different servers"));
        }
        let node = node.strip_prefix(NODE).and_then(|node| node.parse().ok());
        let node = node.ok_or_else(|| disagree("the kubelet", "its certificate names no node"))?;

        let service_accounts = self.service_accounts()?;
        Ok(ClusterLeaves {
            authorities: fingerprint(
                &ca.fingerprint(),
                &front_proxy.fingerprint(),
                &service_accounts,
                &encryption,
            ),
            etcd_authority: etcd.fingerprint(),
            names: ClusterLeafNames {
                node,
                api_server,
                local_server: kubelet_server,
                component_server: controller,
            },
            not_before: dates.not_before,
            not_after: dates.not_after,
        })
    }

    /// The public keys of the service accounts, the first of which is that of both private ones.
    fn service_accounts(&self) -> Result<String, PkiError> {
        const OF: &str = "the service accounts";
        let key = self.text(files::SERVICE_ACCOUNT_KEY)?;
        let public = self.text(files::SERVICE_ACCOUNT_PUBLIC)?;
        let own = certificate::key_from_pem(OF, &key)?;
        let own = certificate::pem("PUBLIC KEY", &own.subject_public_key_info());
        if self.text(files::CONTROLLER_SERVICE_ACCOUNT_KEY)? != key || !public.starts_with(&own) {
            return Err(PkiError::KeyMismatch { of: OF });
        }
        Ok(public)
    }

    fn authority(&self, of: &'static str, file: ClusterFile) -> Result<(String, Certificate), PkiError> {
        let text = self.text(file)?;
        let certificate = Certificate::from_pem(of, text.as_bytes())?;
        certificate.must_be_an_authority()?;
        Ok((text, certificate))
    }

    fn leaf(&self, of: &'static str, certificate: ClusterFile, key: ClusterFile) -> Result<Leaf, PkiError> {
        Leaf::new(of, &self.text(certificate)?, &self.text(key)?)
    }

    fn embedded(&self, of: &'static str, file: ClusterFile, ca: &str) -> Result<(ServerUrl, Leaf), PkiError> {
        match self.kubeconfig(of, file, ca)? {
            (server, FoundCredential::Embedded { certificate, key }) => {
                Ok((server, Leaf::new(of, &certificate, key.expose())?))
            }
            (_, FoundCredential::Files { .. } | FoundCredential::Token(_)) => {
                Err(disagree(of, "it holds no certificate"))
            }
        }
    }

    fn kubeconfig(
        &self,
        of: &'static str,
        file: ClusterFile,
        ca: &str,
    ) -> Result<(ServerUrl, FoundCredential), PkiError> {
        let found =
            kubeconfig::read(&self.text(file)?).map_err(|source| PkiError::Kubeconfig { of, source })?;
        if found.authority != ca {
            return Err(disagree(of, "its kubeconfig has another cluster authority"));
        }
        Ok((found.server, found.credential))
    }

    fn text(&self, file: ClusterFile) -> Result<String, PkiError> {
        let path = file.path(self.dir);
        let failed = |source| PkiError::Read { path: path.clone(), source };
        // A component's directory is its own: what it may have put there is not waited for.
        let kind = fs::symlink_metadata(&path).map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_dir() {
            return Err(PkiError::Access { path, found: "it is no regular file".to_owned() });
        }
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let mut bytes = Vec::new();
        let found = fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(&path);
        let found = found.and_then(|mut handle| {
            handle.read_to_end(&mut bytes)?;
            handle.metadata()
        });
        let found = found.map_err(failed)?;
        self.must_be_as(&path, &found, file.dir.owner, file.mode)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn must_be_as(&self, path: &Path, found: &fs::Metadata, owner: Owner, mode: u32) -> Result<(), PkiError> {
        let id = self.owners.map(|owners| owners.id(owner));
        if found.mode() & 0o7777 == mode && id.is_none_or(|id| (found.uid(), found.gid()) == (id, id)) {
            return Ok(());
        }
        let found = format!("{}:{} {:04o}", found.uid(), found.gid(), found.mode() & 0o7777);
        Err(PkiError::Access { path: path.to_owned(), found })
    }
}

/// A leaf and its key, as they were found.
struct Leaf {
    of: &'static str,
    certificate: Certificate,
    key: rcgen::KeyPair,
}

impl Leaf {
    fn new(of: &'static str, certificate: &str, key: &str) -> Result<Self, PkiError> {
        let certificate = Certificate::from_pem(of, certificate.as_bytes())?;
        Ok(Self { of, certificate, key: certificate::key_from_pem(of, key)? })
    }

    /// Refuses all but the leaf of this name, for a server or for a client, and takes its dates.
    fn must_be(
        &self,
        name: &str,
        authority: &Certificate,
        serves: bool,
        dates: &mut Dates,
    ) -> Result<(), PkiError> {
        self.certificate.must_be_the_leaf(&self.key, authority, serves, !serves)?;
        let found = self.certificate.common_name()?;
        if found != name {
            let found = format!("it is that of {found}, expected {name}");
            return Err(PkiError::Certificate { of: self.of, found });
        }
        let (begin, end) = self.certificate.validity()?;
        dates.not_before = dates.not_before.max(begin);
        dates.not_after = dates.not_after.min(end);
        Ok(())
    }
}

fn disagree(of: &'static str, found: &str) -> PkiError {
    PkiError::Certificate { of, found: found.to_owned() }
}

#[cfg(test)]
mod tests;
