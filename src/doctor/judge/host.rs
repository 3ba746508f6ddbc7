//! The machine by itself: clock, kernel, control groups, ports.

use std::net::{IpAddr, Ipv4Addr};

use crate::config::Settings;
use crate::config::settings::{ControlPlaneKind, Listen};
use crate::doctor::Finding;
use crate::doctor::seen::{HostSeen, Listener};
use crate::model::node::CgroupVersion;
use crate::model::{Fact, Role};

/// The controllers that the kubelet needs.
/// Source: `RequiredControllers` of the kubelet's container manager, "About cgroup v2", Kubernetes' documentation.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// How far the clock may be off before it is to be seen to, and before AWS refuses what it signs, in milliseconds.
/// Source: "RequestTimeTooSkewed", error responses of the Amazon S3 API: 15 minutes.
const OFF: i64 = 10_000;
const REFUSED: i64 = 15 * 60_000;

/// What is found of the machine by itself.
pub(super) fn findings(host: &HostSeen) -> Vec<Finding> {
    vec![clock(host), cgroups(host), ip_forward(host), overlay(host), swap(host)]
}

fn clock(host: &HostSeen) -> Finding {
    let open = Finding::of("clock", "a clock that has been synchronised");
    match &host.clock_synchronised {
        Fact::Unknown(why) => open.unknown(why),
        Fact::Known(true) => open.ok("synchronised"),
        Fact::Known(false) => open.failed(
            "not synchronised",
            "run chrony (with rtcsync) or systemd-timesyncd, and let it reach 169.254.169.123: nothing is signed before",
        ),
    }
}

/// How far the clock is ahead of S3's.
pub(super) fn offset(ahead_ms: &Fact<i64>) -> Finding {
    let open = Finding::of("clock.offset", "the time of S3, within 10 s");
    let Fact::Known(ahead) = *ahead_ms else {
        return open.unknown(ahead_ms.why().unwrap_or_default());
    };
    let found =
        format!("{} s {} S3", ahead.unsigned_abs() / 1000, if ahead < 0 { "behind" } else { "ahead of" });
    let todo = "let chrony or systemd-timesyncd set the clock";
    match ahead.abs() {
        0..=OFF => open.ok(found),
        off if off < REFUSED => open.warning(found, todo),
        _ => open.failed(found, format!("{todo}: AWS refuses what is signed with it")),
    }
}

fn cgroups(host: &HostSeen) -> Finding {
    let expected = format!("version 2, with the controllers {}", CONTROLLERS.join(", "));
    let open = Finding::of("machine.cgroups", expected);
    let version = host.machine.known().map(|machine| machine.cgroup);
    match (version, &host.controllers) {
        (Some(CgroupVersion::V1), _) | (None, Fact::Known(None)) => open.failed(
            "version 1",
            "boot the image with systemd.unified_cgroup_hierarchy=1: the kubelet does not start on version 1 from 1.35 on",
        ),
        (_, Fact::Unknown(why)) => open.unknown(why),
        (Some(CgroupVersion::V2), Fact::Known(None)) => open.unknown("version 2, which does not list its controllers"),
        (_, Fact::Known(Some(found))) => {
            let missing: Vec<&str> =
                CONTROLLERS.into_iter().filter(|wanted| !found.iter().any(|has| has == wanted)).collect();
            if missing.is_empty() {
                open.ok(format!("version 2 with {}", found.join(" ")))
            } else {
                let what = format!("version 2 without {}", missing.join(", "));
                open.failed(what, "enable the controllers: a boot parameter (cgroup_disable=) takes them away")
            }
        }
    }
}

fn ip_forward(host: &HostSeen) -> Finding {
    let open = Finding::of("kernel.ip-forward", "net.ipv4.ip_forward is 1, once there is a pod network");
    match &host.ip_forward {
        Fact::Unknown(why) => open.unknown(why),
        Fact::Known(true) => open.ok("1"),
        Fact::Known(false) => open.warning(
            "0",
            "set net.ipv4.ip_forward=1 in /etc/sysctl.d, unless the pod network's own agent does: packets do not get \
             from pod to pod",
        ),
    }
}

fn overlay(host: &HostSeen) -> Finding {
    let open =
        Finding::of("kernel.overlay", "overlay file systems, which containerd's images are unpacked on");
    match &host.overlay {
        Fact::Unknown(why) => open.unknown(why),
        Fact::Known(true) => open.ok("there are"),
        Fact::Known(false) => open.failed(
            "the kernel has none, and no module for them",
            "install the kernel's modules, or a kernel with CONFIG_OVERLAY_FS, in the image",
        ),
    }
}

fn swap(host: &HostSeen) -> Finding {
    let open = Finding::of("machine.swap", "no swap, unless the kubelet's drop-ins allow it");
    match &host.machine {
        Fact::Unknown(why) => open.unknown(why),
        Fact::Known(machine) if machine.swap => open.warning(
            "there is swap",
            "turn it off, or set failSwapOn: false in /etc/quorate/kubelet.d: the kubelet does not start with it",
        ),
        Fact::Known(_) => open.ok("none"),
    }
}

/// The ports that a machine needs, and whose they are: the names of processes, as the kernel cuts them off.
fn ports(settings: &Settings) -> Vec<(u16, &'static str)> {
    let mut ports = Vec::new();
    if settings.role == Role::ControlPlane {
        ports.extend([(2379, "etcd"), (2380, "etcd"), (2381, "etcd")]);
    }
    match settings.kubernetes.control_plane {
        ControlPlaneKind::None => {}
        ControlPlaneKind::StaticPods => {
            if settings.role == Role::ControlPlane {
                ports.extend([
                    (6443, "kube-apiserver"),
                    (10257, "kube-controller"),
                    (10259, "kube-scheduler"),
                ]);
            }
            ports.extend([(10250, "kubelet"), (10256, "kube-proxy")]);
        }
    }
    if settings.monitoring.listen != Listen::Off {
        ports.push((settings.monitoring.port, "quorate"));
    }
    ports
}

/// Whether the ports are free, or held by who should hold them. `own` is the machine's address.
pub(super) fn port_findings(
    settings: &Settings,
    own: Ipv4Addr,
    listeners: &Fact<Vec<Listener>>,
) -> Vec<Finding> {
    ports(settings).into_iter().map(|(port, whose)| port_finding(port, whose, own, listeners)).collect()
}

fn port_finding(port: u16, whose: &str, own: Ipv4Addr, listeners: &Fact<Vec<Listener>>) -> Finding {
    let open = Finding::of(format!("port.{port}"), format!("free, or held by {whose}"));
    let listeners = match listeners {
        Fact::Unknown(why) => return open.unknown(why),
        Fact::Known(listeners) => listeners,
    };
    let in_the_way = |at: IpAddr| {
        // Machines that share a host have a loopback address each.
        at.is_unspecified() || at == IpAddr::V4(own) || (!own.is_loopback() && at.is_loopback())
    };
    let found: Vec<&Listener> =
        listeners.iter().filter(|found| found.port == port && in_the_way(found.address)).collect();
    let is_whose = |found: &&Listener| found.process.as_deref().is_some_and(|name| name.starts_with(whose));
    if found.is_empty() {
        return open.ok("free");
    }
    if let Some(other) = found.iter().find(|found| !is_whose(found)) {
        return match &other.process {
            Some(process) => open.failed(
                format!("held by {process} at {}", other.address),
                format!("stop {process}, or let it listen elsewhere: {whose} needs the port"),
            ),
            None => open.unknown(format!("held at {}, and not known by whom; ask as root", other.address)),
        };
    }
    open.ok(format!("held by {whose}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;

    fn at(address: &str, process: Option<&str>) -> Fact<Vec<Listener>> {
        let process = process.map(str::to_owned);
        Fact::Known(vec![Listener { address: address.parse().unwrap(), port: 2379, process }])
    }

    #[test]
    fn a_port_is_free_or_held_by_whose_it_is() {
        let own = Ipv4Addr::new(10, 0, 1, 10);
        for (address, process, outcome) in [
            ("10.0.1.10", Some("etcd"), Outcome::Ok),
            ("10.0.1.10", Some("nginx"), Outcome::Failed),
            ("0.0.0.0", Some("nginx"), Outcome::Failed),
            ("::", None, Outcome::Unknown),
            ("127.0.0.1", Some("nginx"), Outcome::Failed),
            ("10.0.1.11", Some("nginx"), Outcome::Ok),
        ] {
            let found = port_finding(2379, "etcd", own, &at(address, process));
            assert_eq!(found.outcome, outcome, "{address} {process:?}");
        }
        // Machines that share a host.
        let shared = Ipv4Addr::new(127, 0, 3, 1);
        assert_eq!(port_finding(2379, "etcd", shared, &at("127.0.4.1", Some("x"))).outcome, Outcome::Ok);
        assert_eq!(port_finding(2379, "etcd", own, &Fact::unknown("no /proc")).outcome, Outcome::Unknown);
    }

    #[test]
    fn a_clock_is_wrong_by_degrees() {
        let outcomes =
            [0, 9_999, -10_001, 899_999, -900_000].map(|ahead| offset(&Fact::Known(ahead)).outcome);
        let (ok, warning, failed) = (Outcome::Ok, Outcome::Warning, Outcome::Failed);
        assert_eq!(outcomes, [ok, ok, warning, warning, failed]);
        assert_eq!(offset(&Fact::Known(-20_500)).found, "20 s behind S3");
    }
}
