//! A node's services: containerd, kubelet and kube-proxy.
//!
//! A service that runs goes on running while an answer about it is missing. One is started anew when what
//! it reads at its start is not what it was started with; the pods of a node do not notice that.

use crate::config::Settings;
use crate::kubernetes::node::node_name;
use crate::kubernetes::{self, KubernetesVersion, NodeInputs, RenderedFile};
use crate::model::containerd::ContainerdConfiguration;
use crate::model::fact::chain;
use crate::model::kubernetes::KubernetesObservation;
use crate::model::node::NodeFacts;
use crate::model::plan::Subject;
use crate::model::{
    Fact, Halt, Identity, Phase, Report, Role, ServiceLaunch, ServiceName, ServiceState, Step, WaitingOn,
    Warning,
};

use super::course::{Course, Next};
use super::worker;

/// What a machine's kubelet and kube-proxy are configured from; or else the report that says what is missing.
pub fn node_inputs(
    settings: &Settings,
    identity: &Fact<Identity>,
    seen: &KubernetesObservation,
) -> Result<NodeInputs, Box<Report>> {
    let mut course = Course::new(Phase::Preparing);
    let mut inputs = || {
        let me = course.need(identity, Subject::Identity)?;
        let version = *course.need(&seen.version, Subject::KubernetesVersion)?;
        match settings.role {
            Role::ControlPlane => self::inputs(settings, seen, me, version, &course),
            Role::Worker => {
                let settled = worker::settled(settings, worker::told(&seen.worker, &mut course)?);
                self::inputs(&settled, seen, me, version, &course)
            }
        }
    };
    inputs().map_err(|plan| Box::new(plan.report))
}

/// What this machine's kubelet and kube-proxy are configured from.
pub(super) fn inputs(
    settings: &Settings,
    seen: &KubernetesObservation,
    me: &Identity,
    version: KubernetesVersion,
    course: &Course,
) -> Next<NodeInputs> {
    let NodeFacts { instance, interface_limits, machine, drop_ins } =
        course.need(&seen.node, Subject::Machine)?.clone();
    let naming = settings.kubernetes.node_name;
    let name = node_name(naming, &me.instance, instance.private_dns_name.as_deref())
        .map_err(|error| course.halt(Halt::Contradiction { what: chain(&error) }))?;
    Ok(NodeInputs {
        cluster: settings.cluster.clone(),
        settings: settings.kubernetes.clone(),
        version,
        role: settings.role,
        name,
        instance: me.instance.clone(),
        zone: me.zone.clone(),
        region: me.region.clone(),
        address: me.address,
        instance_type: instance.instance_type,
        capacity_type: instance.capacity_type,
        machine,
        interface_limits: *course.need(&interface_limits, Subject::InstanceType)?,
        drop_ins,
    })
}

/// containerd runs, with a configuration that the kubelet can work with; or else what is missing.
pub(super) fn containerd(seen: &KubernetesObservation, course: &mut Course) -> Next<()> {
    const NOT_INSTALLED: &str = "it is not installed: install containerd 2 on the image";
    let kubelet = seen.services.get(&ServiceName::Kubelet).and_then(Fact::known);
    let kubelet_runs = kubelet.is_some_and(|kubelet| kubelet.state == ServiceState::Running);
    let seen = &seen.containerd;
    let service = match &seen.service {
        Fact::Known(service) => service,
        // A kubelet that runs has found one.
        Fact::Unknown(why) if kubelet_runs => {
            course.warn(Warning::Answer { subject: Subject::Containerd, why: why.clone() });
            return Ok(());
        }
        Fact::Unknown(_) if seen.version == Fact::Known(None) => {
            let service = ServiceName::Containerd;
            return Err(course.wait(WaitingOn::Service { service, why: NOT_INSTALLED.to_owned() }));
        }
        Fact::Unknown(why) => {
            return Err(course.wait(WaitingOn::Answer { about: Subject::Containerd, why: why.clone() }));
        }
    };
    let runs = service.state == ServiceState::Running;
    // What is wrong with one that runs, or is not known of it, is in nobody's way.
    let amiss = |why: String, course: &mut Course| {
        let service = ServiceName::Containerd;
        if !runs {
            return Err(course.wait(WaitingOn::Service { service, why }));
        }
        course.warn(Warning::Service { service, why });
        Ok(())
    };
    let (version, configured) = match (&seen.version, &seen.configuration) {
        (Fact::Known(Some(version)), Fact::Known(configured)) => (*version, *configured),
        (Fact::Known(None), _) => {
            return amiss(NOT_INSTALLED.to_owned(), course);
        }
        (Fact::Unknown(why), _) | (_, Fact::Unknown(why)) if runs => {
            course.warn(Warning::Answer { subject: Subject::Containerd, why: why.clone() });
            return Ok(());
        }
        (Fact::Unknown(why), _) | (_, Fact::Unknown(why)) => {
            let on = WaitingOn::Answer { about: Subject::Containerd, why: why.clone() };
            return Err(course.wait(on));
        }
    };
    if let Err(unfit) = version.check() {
        amiss(unfit.to_string(), course)?;
    }
    if let Some(why) = seen.warning() {
        course.warn(Warning::Service { service: ServiceName::Containerd, why: why.to_owned() });
    }
    if configured == ContainerdConfiguration::Absent {
        course.steps.push(Step::ConfigureContainerd { version });
    }
    let launch = kubernetes::node::containerd_launch();
    match &service.state {
        // It reads its configuration when it starts.
        ServiceState::Running if configured == ContainerdConfiguration::Absent => {
            course.steps.push(Step::RestartService { service: ServiceName::Containerd, launch });
        }
        ServiceState::Running => {}
        ServiceState::Stopped => {
            course.steps.push(Step::StartService { service: ServiceName::Containerd, launch });
        }
        ServiceState::Failed(why) => {
            course.warn(Warning::Service { service: ServiceName::Containerd, why: why.clone() });
            course.steps.push(Step::StartService { service: ServiceName::Containerd, launch });
        }
    }
    Ok(())
}

/// kubelet or kube-proxy runs with this; or else it is started, or started anew.
pub(super) fn service(
    seen: &KubernetesObservation,
    service: ServiceName,
    launch: ServiceLaunch,
    course: &mut Course,
) {
    let found = match seen.services.get(&service) {
        Some(Fact::Known(found)) => found,
        Some(Fact::Unknown(why)) => {
            return course.warn(Warning::Answer { subject: Subject::Services, why: why.clone() });
        }
        None => return,
    };
    match &found.state {
        ServiceState::Running if found.started_with.as_ref() == Some(&launch.configuration) => {}
        ServiceState::Running => course.steps.push(Step::RestartService { service, launch }),
        ServiceState::Stopped => course.steps.push(Step::StartService { service, launch }),
        ServiceState::Failed(why) => {
            course.warn(Warning::Service { service, why: why.clone() });
            course.steps.push(Step::StartService { service, launch });
        }
    }
}

/// containerd and the kubelet of a node that has its identity.
pub(super) fn runtime_and_kubelet(
    seen: &KubernetesObservation,
    inputs: &NodeInputs,
    files: &[RenderedFile],
    cluster: &[&str],
    course: &mut Course,
) -> Next<()> {
    unfit(inputs, course);
    super::logind::keep(seen, inputs, files, course)?;
    containerd(seen, course)?;
    service(seen, ServiceName::Kubelet, kubernetes::node::kubelet_launch(inputs, files, cluster), course);
    Ok(())
}

/// kube-proxy of a node that has its identity.
pub(super) fn kube_proxy(
    seen: &KubernetesObservation,
    inputs: &NodeInputs,
    files: &[RenderedFile],
    read: &[&str],
    course: &mut Course,
) {
    let launch = kubernetes::node::kube_proxy_launch(inputs, files, read);
    service(seen, ServiceName::KubeProxy, launch, course);
}

/// What the kubelet will not start with is said before it has failed. Machines that share one host stand
/// for machines, and their host is not the machine that a kubelet would start on.
pub(super) fn unfit(inputs: &NodeInputs, course: &mut Course) {
    if inputs.shares_host() {
        return;
    }
    for unfit in inputs.unfit() {
        course.warn(Warning::UnfitMachine { why: unfit.to_string() });
    }
}
