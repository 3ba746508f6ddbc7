//! `quorate kubeconfig`: a way to the API for a person, for some hours.
//!
//! The certificate is signed here by the cluster authority, which this machine's role may read in
//! S3. So whoever runs this can already do everything, and what is given to them or to somebody
//! else is written down in the journal, without the key. A certificate can't be taken back: it ends
//! within a day.
//!
//! What must not live here: how certificates are made ([`crate::pki`]), and where the output goes.

use std::ffi::OsString;
use std::str::FromStr as _;

use nix::errno::Errno;
use nix::unistd::{Uid, User, getuid};

use crate::aws::ObjectError;
use crate::config::settings::{ControlPlaneKind, TimeSpan};
use crate::host::clock::{self, ClockError};
use crate::host::files::{FileError, read_optional};
use crate::kubernetes::kubeconfig::{Credential, Kubeconfig, KubeconfigError};
use crate::kubernetes::paths;
use crate::model::Role;
use crate::model::names::ServerUrl;
use crate::pki::cluster::MASTERS;
use crate::pki::{ClusterAuthorities, PkiError, Secret};
use crate::reach::{CLUSTER_AUTHORITIES, Reach};
use crate::telemetry::journal::NOTED;
use crate::telemetry::messages;

/// The lifetime when none is given: a working day.
const TTL: TimeSpan = TimeSpan::from_millis(8 * 3_600_000);
/// The shortest lifetime, and the longest.
const TTLS: [TimeSpan; 2] = [TimeSpan::from_millis(60_000), TimeSpan::from_millis(24 * 3_600_000)];

/// For whom, for how long, and to where.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Wanted {
    /// The person's name, by which roles are bound to them and the audit log knows them.
    /// Without --user and --group: whoever runs this, in the group system:masters.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// A group that the person is in; may be given several times.
    #[arg(long = "group", value_name = "GROUP")]
    pub groups: Vec<String>,
    /// How long it is valid: 1m to 24h.
    #[arg(long, value_name = "DURATION", default_value_t = TTL, value_parser = lifetime)]
    pub ttl: TimeSpan,
    /// Where the API is reached, as https://HOST:PORT; without, by the load balancer.
    #[arg(long, value_name = "URL")]
    pub server: Option<ServerUrl>,
}

/// Why there is no kubeconfig.
#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    /// The machine may not read the authority.
    #[error("this machine is a {role}: only control-plane nodes can give access; run this on one of them")]
    Role {
        /// What it is.
        role: Role,
    },
    /// The machine has no control plane.
    #[error("this machine has no control plane: `kubernetes.controlPlane` is `none`")]
    NoControlPlane,
    /// Nobody says who runs this.
    #[error("user {uid} has no name on this machine: give one by --user")]
    NoCaller {
        /// The user's number.
        uid: Uid,
    },
    /// Who runs this can't be asked for.
    #[error("asking for the name of user {uid}; give one by --user")]
    Caller {
        /// The user's number.
        uid: Uid,
        /// Why.
        #[source]
        source: Errno,
    },
    /// Nobody can say whether the clock is synchronised.
    #[error("asking whether the clock is synchronised")]
    Clock(#[source] ClockError),
    /// The clock is not synchronised.
    #[error(
        "the clock is not synchronised: a certificate would begin and end at the wrong time; see \
         `timedatectl`, or `chronyc tracking`"
    )]
    ClockNotSynchronised,
    /// A file of this machine's was not read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Where the API is reached is not known yet.
    #[error(
        "where the API is reached is not known on this machine yet: see `quorate status` for what it waits \
         for, or give --server"
    )]
    NoEndpoint,
    /// The endpoint makes no URL.
    #[error("{endpoint:?} is no host and port that a kubeconfig can name")]
    Endpoint {
        /// The endpoint.
        endpoint: String,
    },
    /// S3 gave no answer.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// There are no authorities.
    #[error("{url} is not there: the cluster has no authorities yet, or has lost them; see `quorate status`")]
    NoAuthorities {
        /// Where they should be.
        url: String,
    },
    /// S3 holds other authorities than this machine's API server goes by.
    #[error(
        "the cluster authority in {url} is not the one in {path}: what it signs would be refused; see \
         `quorate status`"
    )]
    OtherAuthority {
        /// The authorities in S3.
        url: String,
        /// The certificate on this machine.
        path: &'static str,
    },
    /// The authorities can't be used, or sign nothing for this name.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The kubeconfig can't be written.
    #[error("making the kubeconfig")]
    Kubeconfig(#[source] KubeconfigError),
}

/// Makes a kubeconfig, and notes it in the journal.
pub async fn make(reach: &Reach, wanted: &Wanted) -> Result<Secret, VerbError> {
    let settings = &reach.settings;
    match settings.role {
        Role::ControlPlane => {}
        role @ Role::Worker => return Err(VerbError::Role { role }),
    }
    match settings.kubernetes.control_plane {
        ControlPlaneKind::StaticPods => {}
        ControlPlaneKind::None => return Err(VerbError::NoControlPlane),
    }
    let person = Person::of(wanted, || caller(std::env::var_os("SUDO_USER")))?;
    if !clock::synchronised(&reach.root).await.map_err(VerbError::Clock)? {
        return Err(VerbError::ClockNotSynchronised);
    }
    let server = match &wanted.server {
        Some(server) => server.clone(),
        None => balancer(reach)?,
    };
    let authorities = authorities(reach).await?;
    let groups: Vec<&str> = person.groups.iter().map(String::as_str).collect();
    let ttl = wanted.ttl.as_duration();
    let client = authorities.sign_client(&person.user, &groups, ttl, clock::now_ms())?;
    let kubeconfig = Kubeconfig {
        cluster: settings.cluster.as_str(),
        user: &person.user,
        server: &server,
        authority: authorities.certificate(),
        credential: Credential::Embedded { certificate: &client.certificate, key: &client.key },
    };
    let text = kubeconfig.render().map_err(VerbError::Kubeconfig)?;
    tracing::info!(
        target: NOTED,
        message_id = messages::KUBECONFIG_MADE,
        user = person.user, groups = groups.join(","), ttl = %wanted.ttl, not_after = client.not_after,
        fingerprint = client.fingerprint, server = %server, "made a kubeconfig"
    );
    Ok(text)
}

/// Who is let in.
#[derive(Debug, PartialEq, Eq)]
struct Person {
    user: String,
    groups: Vec<String>,
}

impl Person {
    /// Whoever names nobody gets access themselves, and all of it, which they have already. Whoever
    /// names a person or a group gives that, and nothing beside.
    fn of(wanted: &Wanted, caller: impl FnOnce() -> Result<String, VerbError>) -> Result<Self, VerbError> {
        let groups = match (&wanted.user, wanted.groups.as_slice()) {
            (None, []) => vec![MASTERS.to_owned()],
            (_, groups) => {
                let mut once: Vec<String> = Vec::with_capacity(groups.len());
                for group in groups {
                    if !once.contains(group) {
                        once.push(group.clone());
                    }
                }
                once
            }
        };
        let user = wanted.user.clone().map_or_else(caller, Ok)?;
        Ok(Self { user, groups })
    }
}

/// Who runs this: behind sudo, who called it.
fn caller(sudo_user: Option<OsString>) -> Result<String, VerbError> {
    if let Some(name) = sudo_user.and_then(|name| name.into_string().ok()).filter(|name| !name.is_empty()) {
        return Ok(name);
    }
    let uid = getuid();
    match User::from_uid(uid) {
        Ok(Some(user)) => Ok(user.name),
        Ok(None) => Err(VerbError::NoCaller { uid }),
        Err(source) => Err(VerbError::Caller { uid, source }),
    }
}

/// Where this machine's files say that the API is reached from outside.
fn balancer(reach: &Reach) -> Result<ServerUrl, VerbError> {
    let endpoint = reach.last_endpoint()?.ok_or(VerbError::NoEndpoint)?;
    ServerUrl::from_str(&endpoint.url()).map_err(|_| VerbError::Endpoint { endpoint: endpoint.to_string() })
}

/// The authorities in S3, which must be those that this machine's API server goes by, where it does.
async fn authorities(reach: &Reach) -> Result<ClusterAuthorities, VerbError> {
    let url = || reach.aws.objects.url(CLUSTER_AUTHORITIES);
    let stored = reach.aws.objects.get(CLUSTER_AUTHORITIES).await?;
    let stored = stored.ok_or_else(|| VerbError::NoAuthorities { url: url() })?;
    let authorities = ClusterAuthorities::parse(&stored.bytes, &reach.settings.cluster)?;
    match read_optional(&reach.root.path(paths::CA))? {
        Some(here) if here != authorities.certificate().as_bytes() => {
            Err(VerbError::OtherAuthority { url: url(), path: paths::CA })
        }
        Some(_) | None => Ok(authorities),
    }
}

/// Why a text is no lifetime.
#[derive(Debug, thiserror::Error)]
#[error("a duration of {} to {}, like `8h` or `30m`", TTLS[0], TTLS[1])]
struct NoLifetime;

fn lifetime(text: &str) -> Result<TimeSpan, NoLifetime> {
    let [shortest, longest] = TTLS;
    text.parse().ok().filter(|ttl| (shortest..=longest).contains(ttl)).ok_or(NoLifetime)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        wanted: Wanted,
    }

    fn parsed(arguments: &[&str]) -> Wanted {
        Line::try_parse_from([&["kubeconfig"], arguments].concat()).unwrap().wanted
    }

    fn person(arguments: &[&str]) -> (String, Vec<String>) {
        let Person { user, groups } = Person::of(&parsed(arguments), || Ok("caller".to_owned())).unwrap();
        (user, groups)
    }

    fn is(user: &str, groups: &[&str]) -> (String, Vec<String>) {
        (user.to_owned(), groups.iter().map(|group| (*group).to_owned()).collect())
    }

    #[test]
    fn who_names_nobody_is_meant_themselves_and_who_names_somebody_gives_nothing_beside() {
        assert_eq!(person(&[]), is("caller", &[MASTERS]));
        assert_eq!(person(&["--user", "ada"]), is("ada", &[]));
        assert_eq!(person(&["--group", "ops"]), is("caller", &["ops"]));
        let several = ["--user", "ada", "--group", "ops", "--group", MASTERS, "--group", "ops"];
        assert_eq!(person(&several), is("ada", &["ops", MASTERS]));
    }

    #[test]
    fn a_caller_without_a_name_is_asked_for_one_only_where_none_is_given() {
        let uid = Uid::from_raw(4_000_000_000);
        let nobody = || Err(VerbError::NoCaller { uid });
        assert!(matches!(Person::of(&parsed(&[]), nobody), Err(VerbError::NoCaller { .. })));
        Person::of(&parsed(&["--user", "ada"]), nobody).unwrap();
    }

    #[test]
    fn behind_sudo_the_caller_is_who_called_it() {
        assert_eq!(caller(Some("ada".into())).unwrap(), "ada");
        let own = User::from_uid(getuid()).unwrap().unwrap().name;
        assert_eq!(caller(None).unwrap(), own);
        assert_eq!(caller(Some("".into())).unwrap(), own);
    }

    #[test]
    fn a_lifetime_is_a_working_day_and_a_day_at_most() {
        assert_eq!(parsed(&[]).ttl.to_string(), "8h");
        for fits in ["1m", "90m", "24h"] {
            assert_eq!(parsed(&["--ttl", fits]).ttl, fits.parse().unwrap());
        }
        for text in ["59s", "24h1ms", "1d", "8", "-1h", ""] {
            let error = Line::try_parse_from(["kubeconfig", &format!("--ttl={text}")]).unwrap_err();
            assert!(error.to_string().contains("a duration of 1m to 24h"), "{error}");
        }
    }

    #[test]
    fn a_server_is_https_with_a_port() {
        assert_eq!(parsed(&["--server", "https://10.0.0.1:6443"]).server.unwrap().port, 6443);
        for text in ["http://10.0.0.1:6443", "10.0.0.1:6443", "https://api"] {
            Line::try_parse_from(["kubeconfig", "--server", text]).unwrap_err();
        }
    }
}
