//! One machine in a region, as far as its agent's questions go: no device and no program.

use std::time::Duration;

use quorate::agent::setup::{Setup, SetupError, learn};
use quorate::aws::{Access, Endpoints};
use quorate::host::Root;
use quorate::lab::region::{
    FaultKind, FaultSpec, InstanceSpec, InstanceState, Region, RegionConfig, Service, VolumeSpec, World,
};
use quorate::model::fact::chain;
use quorate::model::{Observation, Plan};
use quorate::observe::{Depth, Memory, observe};
use quorate::plan::plan;
use quorate::reach::Reach;

use crate::contract::endpoints::{SOON, ZONES, tags};

pub const BUCKET: &str = "demo-quorate";

/// A machine whose image brings the smallest configuration.
pub struct Sky {
    pub region: Region,
    pub instance: String,
    pub root: tempfile::TempDir,
    pub access: Access,
}

/// A control-plane machine whose tags are published.
pub fn machine() -> InstanceSpec {
    InstanceSpec {
        zone: ZONES[0].into(),
        tags: tags(&[("quorate:cluster", "demo"), ("quorate:role", "control-plane")]),
        metadata_tags: true,
        ..InstanceSpec::default()
    }
}

impl Sky {
    pub async fn new(spec: InstanceSpec) -> Self {
        let region = Region::start(RegionConfig::default()).await.unwrap();
        let id = region.change(|w| w.run_instance(spec)).unwrap().to_string();
        let running = |w: &World| w.view().instances[id.as_str()].state == InstanceState::Running;
        assert!(region.wait_until(SOON, running).await);
        let root = tempfile::tempdir().unwrap();
        let access = access_to(&region, &id, &region.endpoints().aws.clone());
        let sky = Self { region, instance: id, root, access };
        sky.file("usr/lib/quorate/config.d/10.yaml", &format!("cluster: demo\nbucket: {BUCKET}\n"));
        sky.file("run/systemd/timesync/synchronized", "");
        sky
    }

    /// The same with a bucket, in a cluster whose volumes are made by its machines.
    pub async fn with_bucket() -> Self {
        let sky = Self::new(machine()).await;
        sky.region.change(|w| w.create_bucket(BUCKET));
        sky
    }

    /// The way to another server in place of AWS's APIs.
    pub fn access_to(&self, apis: &str) -> Access {
        access_to(&self.region, &self.instance, apis)
    }

    /// Writes a file below the machine's root.
    pub fn file(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn root(&self) -> Root {
        Root::new(self.root.path())
    }

    /// Asks once who the machine is and what is wanted.
    pub async fn set_up(&self) -> Result<Setup, SetupError> {
        learn(&self.root(), &self.access).await
    }

    /// Why the agent can't begin.
    pub async fn refusal(&self) -> SetupError {
        match self.set_up().await {
            Ok(_) => panic!("it was learnt"),
            Err(error) => error,
        }
    }

    pub async fn reach(&self) -> Reach {
        let setup = self.set_up().await.map_err(|error| chain(&error)).unwrap();
        Reach::new(self.root(), &self.access, setup.loaded.settings, setup.identity).await
    }

    /// From now on every call to a service fails so.
    pub fn fault(&self, service: Service, kind: FaultKind) {
        let spec =
            FaultSpec { service, operation: None, instance: None, kind, rate: 1.0, count: None, seed: None };
        self.region.change(|w| w.add_fault(spec));
    }

    /// A blank volume of the cluster in the machine's zone.
    pub fn volume(&self, more: &[(&str, &str)]) -> String {
        let mut tags = tags(&[("quorate:cluster", "demo")]);
        tags.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let spec = VolumeSpec { zone: ZONES[0].into(), tags, ..VolumeSpec::default() };
        self.region.change(|w| w.create_volume(spec, None)).unwrap().to_string()
    }
}

/// With the instance's own credentials; every call is tried once.
fn access_to(region: &Region, instance: &str, apis: &str) -> Access {
    let (metadata, key) = region.with(|w| {
        let instance = &w.view().instances[instance];
        (instance.imds.unwrap(), instance.credentials.as_ref().unwrap().access_key.clone())
    });
    Access::to(Endpoints {
        apis: apis.to_owned(),
        metadata: format!("http://{metadata}"),
        credentials: aws_sdk_ec2::config::Credentials::new(key, "secret", None, None, "test"),
        attempts: 1,
        attempt: Duration::from_secs(1),
    })
    .unwrap()
}

/// What is seen in full, and the plan made from it.
pub async fn look(reach: &Reach) -> (Observation, Plan) {
    look_again(reach, &mut Memory::default(), Depth::Full).await
}

pub async fn look_again(reach: &Reach, memory: &mut Memory, depth: Depth) -> (Observation, Plan) {
    let seen = observe(reach, memory, depth, Vec::new()).await;
    let plan = plan(&reach.settings, &seen);
    (seen, plan)
}
