//! Stage three, settings: inputs are merged, later ones win key by key, defaults fill the rest, and rules that
//! tie keys together are checked.

use std::fmt::Display;
use std::str::FromStr;

use super::Completeness;
use super::errors::{ConfigError, Origin, Problem, Source};
use super::inputs::{Input, Value};
use super::keys::{self, Default, KEYS, Key};
use super::kubernetes::{PodSubnet, ServiceSubnet, node_range_length, pods_of_a_range};
use super::node::PodNetwork;
use super::settings::{
    Additions, ApiServerSettings, AuditLogSettings, AutoCompaction, BackupSettings,
    ControllerManagerSettings, DefragmentSettings, EtcdSettings, FoundingSettings, KubeletSettings,
    KubernetesSettings, LaunchSettings, LeaderElectionSettings, LeavingSettings, LogSettings,
    MonitoringSettings, SchedulerSettings, Settings, VolumeSettings,
};
use super::units::{ByteSize, TimeSpan};
use super::values::{CompactionMode, VolumeSource, VolumeType};
use crate::model::ids::{Region, Zone};

/// The effective value of every key that has one, in the order of the keys.
#[derive(Debug, Clone)]
pub(super) struct Effective {
    values: Vec<Input>,
}

impl Effective {
    /// Merges inputs, the last one for a key winning, over the defaults.
    pub fn merge(inputs: &[Input]) -> Self {
        let mut values: Vec<Input> = Vec::new();
        for key in KEYS {
            let set = inputs.iter().rev().find(|input| input.key.path == key.path).cloned();
            values.extend(set.or_else(|| default(key)));
        }
        Self { values }
    }

    /// The values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = &Input> {
        self.values.iter()
    }

    fn input(&self, path: &str) -> Option<&Input> {
        self.values.iter().find(|input| input.key.path == path)
    }

    fn texts(&self, path: &str) -> &[String] {
        match self.input(path).map(|input| &input.value) {
            Some(Value::One(text)) => std::slice::from_ref(text),
            Some(Value::Many(texts)) => texts,
            None => &[],
        }
    }

    fn get<T: FromStr>(&self, path: &str) -> Option<T> {
        self.texts(path).first()?.parse().ok()
    }

    fn origin(&self, path: &str) -> Origin {
        self.input(path).map_or(Source::Default.into(), |input| input.origin.clone())
    }

    fn is_set(&self, path: &str) -> bool {
        self.origin(path).source != Source::Default
    }

    /// Checks the whole: adds required keys that no source sets, and values that do not go together, to what is
    /// wrong already. Where a value was refused, or a source lost, no error is made up from its default.
    pub fn check(&self, completeness: Completeness, errors: &mut Vec<ConfigError>) {
        let refused: Vec<String> =
            errors.iter().filter_map(|error| error.problem.refused_key()).map(str::to_owned).collect();
        let refused = |path: &str| refused.iter().any(|key| key == path);
        let whole =
            completeness == Completeness::Whole && !errors.iter().any(|error| error.problem.loses_source());
        if whole {
            errors.extend(self.missing().filter(|key| !refused(key.path)).map(missing));
        }
        let rules = [
            self.election(),
            self.retention(),
            self.zones(),
            self.quota(),
            self.lease(),
            self.renewal(),
            self.subnets(),
            self.pod_network(),
            self.max_pods(),
        ];
        let broken = rules.into_iter().flatten().chain(self.volume()).filter(|rule| {
            let known = |path: &&str| !refused(path) && (whole || self.is_set(path));
            rule.involved.iter().all(known)
        });
        errors.extend(broken.map(|rule| rule.error(self)));
    }

    /// Required keys that no source sets.
    fn missing(&self) -> impl Iterator<Item = &'static Key> {
        KEYS.iter().filter(|key| key.default == Default::Required && self.input(key.path).is_none())
    }

    fn election(&self) -> Option<Conflict> {
        let heartbeat: TimeSpan = self.get("etcd.heartbeatInterval")?;
        let election: TimeSpan = self.get("etcd.electionTimeout")?;
        let least = TimeSpan::from_millis(heartbeat.as_millis() * keys::HEARTBEATS_PER_ELECTION);
        (election < least).then(|| Conflict {
            involved: vec!["etcd.electionTimeout", "etcd.heartbeatInterval"],
            found: format!("{election} while `etcd.heartbeatInterval` is {heartbeat}"),
            expected: format!("at least {} heartbeats: {least}", keys::HEARTBEATS_PER_ELECTION),
            hint: "raise the one or lower the other; ten heartbeats are usual".to_owned(),
        })
    }

    fn retention(&self) -> Option<Conflict> {
        let mode: CompactionMode = self.get("etcd.autoCompaction.mode")?;
        let retention: String = self.get("etcd.autoCompaction.retention")?;
        let (fits, expected, example) = match mode {
            CompactionMode::Periodic => (retention.parse::<TimeSpan>().is_ok(), "a duration", "1h"),
            CompactionMode::Revision => (retention.parse::<u64>().is_ok(), "a number of revisions", "10000"),
        };
        (!fits).then(|| Conflict {
            involved: vec!["etcd.autoCompaction.retention", "etcd.autoCompaction.mode"],
            found: format!("{retention} while `etcd.autoCompaction.mode` is {mode}"),
            expected: expected.to_owned(),
            hint: format!("for example `retention: {example}`"),
        })
    }

    fn zones(&self) -> Option<Conflict> {
        let region: Region = self.get("region")?;
        let zones = self.texts("etcd.zones");
        let stranger = zones.iter().find(|zone| {
            !zone
                .strip_prefix(region.as_str())
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '-'))
        })?;
        Some(Conflict {
            involved: vec!["etcd.zones", "region"],
            found: format!("{stranger} while `region` is {region}"),
            expected: format!("zones of {region} only"),
            hint: "a cluster lives in one region".to_owned(),
        })
    }

    fn quota(&self) -> Option<Conflict> {
        let source: VolumeSource = self.get("etcd.volume.source")?;
        let quota: ByteSize = self.get("etcd.quota")?;
        let size: ByteSize = self.get("etcd.volume.size")?;
        (source == VolumeSource::Created && quota >= size).then(|| Conflict {
            involved: vec!["etcd.quota", "etcd.volume.size"],
            found: format!("{quota} while `etcd.volume.size` is {size}"),
            expected: "less than the volume holds".to_owned(),
            hint: "leave room for the log, snapshots and defragmentation: twice the quota is usual"
                .to_owned(),
        })
    }

    /// What leader election takes: see `NewLeaderElector` in client-go's `leaderelection`.
    fn lease(&self) -> Option<Conflict> {
        let lease: TimeSpan = self.get("kubernetes.leaderElection.leaseDuration")?;
        let deadline: TimeSpan = self.get("kubernetes.leaderElection.renewDeadline")?;
        (lease <= deadline).then(|| Conflict {
            involved: vec![
                "kubernetes.leaderElection.leaseDuration",
                "kubernetes.leaderElection.renewDeadline",
            ],
            found: format!("{lease} while `kubernetes.leaderElection.renewDeadline` is {deadline}"),
            expected: "longer than the deadline".to_owned(),
            hint: "a leader has to give up before another one begins; half as long again is usual".to_owned(),
        })
    }

    fn renewal(&self) -> Option<Conflict> {
        let deadline: TimeSpan = self.get("kubernetes.leaderElection.renewDeadline")?;
        let retry: TimeSpan = self.get("kubernetes.leaderElection.retryPeriod")?;
        let least = TimeSpan::from_millis(retry.as_millis() * keys::RETRY_JITTER_TENTHS / 10);
        (deadline <= least).then(|| Conflict {
            involved: vec![
                "kubernetes.leaderElection.renewDeadline",
                "kubernetes.leaderElection.retryPeriod",
            ],
            found: format!("{deadline} while `kubernetes.leaderElection.retryPeriod` is {retry}"),
            expected: format!("longer than 1.2 retry periods: {least}"),
            hint: "raise the one or lower the other; five retry periods are usual".to_owned(),
        })
    }

    fn subnets(&self) -> Option<Conflict> {
        let services: ServiceSubnet = self.get("kubernetes.serviceSubnet")?;
        let pods: PodSubnet = self.get("kubernetes.podSubnet")?;
        pods.range().overlaps(services.range()).then(|| Conflict {
            involved: vec!["kubernetes.podSubnet", "kubernetes.serviceSubnet"],
            found: format!("{pods} while `kubernetes.serviceSubnet` is {services}"),
            expected: "no address in both".to_owned(),
            hint: "for example `podSubnet: 10.244.0.0/16` beside `serviceSubnet: 10.96.0.0/12`".to_owned(),
        })
    }

    fn pod_network(&self) -> Option<Conflict> {
        let network: PodNetwork = self.get("kubernetes.podNetwork")?;
        let pods: Option<PodSubnet> = self.get("kubernetes.podSubnet");
        let (found, expected, hint) = match (network, pods) {
            (PodNetwork::Routed, None) => (
                "not set".to_owned(),
                "a range of addresses, of which each node is given a part",
                "for example `podSubnet: 10.244.0.0/16`",
            ),
            (PodNetwork::VpcCni, Some(pods)) => (
                pods.to_string(),
                "not set: pods have the VPC's addresses",
                "remove `podSubnet`, or set `podNetwork: routed`",
            ),
            (PodNetwork::Routed, Some(_)) | (PodNetwork::VpcCni, None) | (PodNetwork::Other, _) => {
                return None;
            }
        };
        Some(Conflict {
            involved: vec!["kubernetes.podSubnet", "kubernetes.podNetwork"],
            found: format!("{found} while `kubernetes.podNetwork` is {network}"),
            expected: expected.to_owned(),
            hint: hint.to_owned(),
        })
    }

    fn max_pods(&self) -> Option<Conflict> {
        let pods: u32 = self.get("kubernetes.kubelet.maxPods")?;
        self.get::<PodSubnet>("kubernetes.podSubnet")?;
        let arguments = self.all("kubernetes.controllerManager.extraArgs").ok()?;
        let most = pods_of_a_range(node_range_length(&arguments));
        (pods > most).then(|| Conflict {
            involved: vec!["kubernetes.kubelet.maxPods", "kubernetes.podSubnet"],
            found: format!("{pods} while `kubernetes.podSubnet` gives each node a /{}", node_range_length(&arguments)),
            expected: format!("at most {most}"),
            hint: "lower it, or give each node more: `controllerManager: {extraArgs: [--node-cidr-mask-size=23]}`"
                .to_owned(),
        })
    }

    /// What the types of EBS volumes take, by "Amazon EBS volume types" in the EBS user guide.
    fn volume(&self) -> Vec<Conflict> {
        let Some(kind) = self.get::<VolumeType>("etcd.volume.type") else { return Vec::new() };
        let iops: Option<u32> = self.get("etcd.volume.iops");
        let throughput: Option<u32> = self.get("etcd.volume.throughput");
        let size: Option<ByteSize> = self.get("etcd.volume.size");
        let created = self.get("etcd.volume.source") == Some(VolumeSource::Created);
        let mut conflicts = Vec::new();
        let mut conflict = |path: &'static str, found: String, expected: String, hint: &str| {
            conflicts.push(Conflict {
                involved: vec![path, "etcd.volume.type"],
                found: format!("{found} while `etcd.volume.type` is {kind}"),
                expected,
                hint: hint.to_owned(),
            });
        };
        let range = match kind {
            VolumeType::Gp3 => Some((3_000, 80_000)),
            VolumeType::Io1 => Some((100, 64_000)),
            VolumeType::Io2 => Some((100, 256_000)),
            VolumeType::Gp2 => None,
        };
        let needs_iops = matches!(kind, VolumeType::Io1 | VolumeType::Io2);
        match (iops, range) {
            (Some(iops), None) => {
                let hint = "remove it, or take type `gp3`";
                conflict("etcd.volume.iops", iops.to_string(), "no iops".to_owned(), hint);
            }
            (Some(iops), Some((min, max))) if !(min..=max).contains(&iops) => {
                let expected = format!("{min} to {max}");
                conflict("etcd.volume.iops", iops.to_string(), expected, "take another type or number");
            }
            (None, _) if needs_iops && created => {
                let hint = "set it, for example `iops: 3000`, or take type `gp3`";
                conflict("etcd.volume.iops", "not set".to_owned(), "a number of iops".to_owned(), hint);
            }
            (None | Some(_), _) => {}
        }
        if let Some(throughput) = throughput
            && kind != VolumeType::Gp3
        {
            let hint = "remove it, or take type `gp3`";
            conflict("etcd.volume.throughput", throughput.to_string(), "no throughput".to_owned(), hint);
        }
        if let Some(size) = size
            && needs_iops
            && size < ByteSize::from_gib(4)
        {
            conflict("etcd.volume.size", size.to_string(), "at least 4GiB".to_owned(), "enlarge it");
        }
        conflicts
    }

    /// The settings. Called once nothing is missing and nothing conflicts; a value that its type refuses all the
    /// same is named, since the check of a key and the type of its setting are meant to be one.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        Ok(Settings {
            cluster: self.need("cluster")?,
            bucket: self.need("bucket")?,
            prefix: self.need("prefix")?,
            role: self.need("role")?,
            region: self.optional("region")?,
            kms_key_id: self.optional("kmsKeyId")?,
            groups: self.all("groups")?,
            etcd: EtcdSettings {
                size: self.need("etcd.size")?,
                zones: self.all::<Zone>("etcd.zones")?,
                binary: self.need("etcd.binary")?,
                heartbeat_interval: self.need("etcd.heartbeatInterval")?,
                election_timeout: self.need("etcd.electionTimeout")?,
                quota: self.need("etcd.quota")?,
                auto_compaction: match self.need("etcd.autoCompaction.mode")? {
                    CompactionMode::Periodic => {
                        AutoCompaction::Periodic { retention: self.need("etcd.autoCompaction.retention")? }
                    }
                    CompactionMode::Revision => {
                        AutoCompaction::Revision { retention: self.need("etcd.autoCompaction.retention")? }
                    }
                },
                snapshot_count: self.need("etcd.snapshotCount")?,
                log_level: self.need("etcd.logLevel")?,
                hash_interval: self.need("etcd.hashInterval")?,
                defragment: DefragmentSettings {
                    min_free: self.need("etcd.defragment.minFree")?,
                    min_share: self.need("etcd.defragment.minShare")?,
                },
                volume: VolumeSettings {
                    source: self.need("etcd.volume.source")?,
                    device: self.need("etcd.volume.device")?,
                    filesystem: self.need("etcd.volume.filesystem")?,
                    size: self.need("etcd.volume.size")?,
                    volume_type: self.need("etcd.volume.type")?,
                    iops: self.optional("etcd.volume.iops")?,
                    throughput: self.optional("etcd.volume.throughput")?,
                    kms_key_id: self.optional("etcd.volume.kmsKeyId")?,
                    wait: self.need("etcd.volume.wait")?,
                    takeover: self.need("etcd.volume.takeover")?,
                },
            },
            kubernetes: self.kubernetes()?,
            founding: FoundingSettings { patience: self.need("founding.patience")? },
            backups: BackupSettings {
                snapshots: self.need("backups.snapshots")?,
                changes: self.need("backups.changes")?,
                rehearsal: self.need("backups.rehearsal")?,
                keep_all: self.need("backups.keepAll")?,
                keep_hourly: self.need("backups.keepHourly")?,
                keep_daily: self.need("backups.keepDaily")?,
            },
            recovery: self.need("recovery")?,
            launch: LaunchSettings {
                hook: self.optional("launch.hook")?,
                patience: self.need("launch.patience")?,
            },
            leaving: LeavingSettings {
                hook: self.need("leaving.hook")?,
                patience: self.need("leaving.patience")?,
                drain: self.need("leaving.drain")?,
                pod_grace: self.optional("leaving.podGrace")?,
                result: self.need("leaving.result")?,
                maintenance: self.need("leaving.maintenance")?,
                maintenance_lead: self.need("leaving.maintenanceLead")?,
                rebalance: self.need("leaving.rebalance")?,
            },
            tick: self.need("tick")?,
            monitoring: MonitoringSettings {
                listen: self.need("monitoring.listen")?,
                port: self.need("monitoring.port")?,
                console: self.need("monitoring.console")?,
                cloudwatch: self.need("monitoring.cloudwatch")?,
            },
            log: LogSettings { level: self.need("log.level")? },
        })
    }

    fn kubernetes(&self) -> Result<KubernetesSettings, ConfigError> {
        Ok(KubernetesSettings {
            control_plane: self.need("kubernetes.controlPlane")?,
            version: self.optional("kubernetes.version")?,
            image_repository: self.need("kubernetes.imageRepository")?,
            kubelet_binary: self.need("kubernetes.kubelet.binary")?,
            kube_proxy_binary: self.need("kubernetes.kubeProxy.binary")?,
            service_subnet: self.need("kubernetes.serviceSubnet")?,
            pod_subnet: self.optional("kubernetes.podSubnet")?,
            pod_network: self.need("kubernetes.podNetwork")?,
            cluster_domain: self.need("kubernetes.clusterDomain")?,
            addons: self.all("kubernetes.addons")?,
            endpoint: self.optional("kubernetes.endpoint")?,
            extra_names: self.all("kubernetes.extraNames")?,
            component_endpoint: self.need("kubernetes.componentEndpoint")?,
            service_account_issuer: self.optional("kubernetes.serviceAccountIssuer")?,
            ready_patience: self.need("kubernetes.readyPatience")?,
            leader_election: LeaderElectionSettings {
                lease_duration: self.need("kubernetes.leaderElection.leaseDuration")?,
                renew_deadline: self.need("kubernetes.leaderElection.renewDeadline")?,
                retry_period: self.need("kubernetes.leaderElection.retryPeriod")?,
            },
            api_server: ApiServerSettings {
                shutdown_delay: self.need("kubernetes.apiServer.shutdownDelay")?,
                goaway_chance: self.need("kubernetes.apiServer.goawayChance")?,
                tls_min_version: self.need("kubernetes.apiServer.tlsMinVersion")?,
                audit_log: AuditLogSettings {
                    max_age: self.need("kubernetes.apiServer.auditLog.maxAge")?,
                    max_backups: self.need("kubernetes.apiServer.auditLog.maxBackups")?,
                    max_size: self.need("kubernetes.apiServer.auditLog.maxSize")?,
                },
                additions: Additions {
                    image: self.optional("kubernetes.apiServer.image")?,
                    extra_args: self.all("kubernetes.apiServer.extraArgs")?,
                    extra_env: self.all("kubernetes.apiServer.extraEnv")?,
                    extra_volumes: self.all("kubernetes.apiServer.extraVolumes")?,
                },
            },
            controller_manager: ControllerManagerSettings {
                additions: Additions {
                    image: self.optional("kubernetes.controllerManager.image")?,
                    extra_args: self.all("kubernetes.controllerManager.extraArgs")?,
                    extra_env: self.all("kubernetes.controllerManager.extraEnv")?,
                    extra_volumes: self.all("kubernetes.controllerManager.extraVolumes")?,
                },
            },
            scheduler: SchedulerSettings {
                config: self.optional("kubernetes.scheduler.config")?,
                additions: Additions {
                    image: self.optional("kubernetes.scheduler.image")?,
                    extra_args: self.all("kubernetes.scheduler.extraArgs")?,
                    extra_env: self.all("kubernetes.scheduler.extraEnv")?,
                    extra_volumes: self.all("kubernetes.scheduler.extraVolumes")?,
                },
            },
            node_name: self.need("kubernetes.nodeName")?,
            node_labels: self.all("kubernetes.nodeLabels")?,
            node_taints: self.all("kubernetes.nodeTaints")?,
            kubelet: KubeletSettings { max_pods: self.optional("kubernetes.kubelet.maxPods")? },
        })
    }

    fn all<T: FromStr<Err: Display>>(&self, path: &'static str) -> Result<Vec<T>, ConfigError> {
        self.texts(path)
            .iter()
            .map(|text| {
                text.parse().map_err(|rule: T::Err| {
                    let problem = Problem::Invalid {
                        key: path.to_owned(),
                        value: text.clone(),
                        expected: rule.to_string(),
                    };
                    ConfigError::new(self.origin(path), problem)
                })
            })
            .collect()
    }

    fn optional<T: FromStr<Err: Display>>(&self, path: &'static str) -> Result<Option<T>, ConfigError> {
        Ok(self.all(path)?.into_iter().next())
    }

    fn need<T: FromStr<Err: Display>>(&self, path: &'static str) -> Result<T, ConfigError> {
        self.optional(path)?.ok_or_else(|| ConfigError::new(Source::Merged, Problem::Missing { key: path }))
    }
}

fn missing(key: &'static Key) -> ConfigError {
    let hint = match key.path {
        "role" => "tag the instance `quorate:role`: `control-plane` or `worker`".to_owned(),
        "cluster" => "set `cluster: NAME`, or tag the instance `quorate:cluster`".to_owned(),
        path => format!("set `{path}` in /etc/quorate/config.d/*.yaml or in user data"),
    };
    ConfigError::new(Source::Merged, Problem::Missing { key: key.path }).hint(hint)
}

fn default(key: &'static Key) -> Option<Input> {
    match key.default {
        Default::Value(text) => {
            Some(Input { key, value: Value::One(text.to_owned()), origin: Source::Default.into() })
        }
        Default::Unset(_) | Default::Required => None,
    }
}

/// A rule between keys that is broken. The first key involved is the one that has to give way.
struct Conflict {
    involved: Vec<&'static str>,
    found: String,
    expected: String,
    hint: String,
}

impl Conflict {
    /// The error stands where the first of the involved keys was set that was set at all.
    fn error(self, effective: &Effective) -> ConfigError {
        let set = self.involved.iter().find(|path| effective.is_set(path));
        let origin = set.map_or(Source::Merged.into(), |path| effective.origin(path));
        let key = self.involved.first().copied().unwrap_or_default();
        ConfigError::new(origin, Problem::Conflict { key, found: self.found, expected: self.expected })
            .hint(self.hint)
    }
}
