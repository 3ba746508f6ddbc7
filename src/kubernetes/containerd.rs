//! containerd's configuration, for a machine whose image brought none.
//!
//! Only what differs from containerd's own defaults, or is relied on here, is said. Source: "CRI Plugin Config Guide",
//! containerd's documentation.

use crate::config::settings::ImageRepository;
use crate::model::containerd::ContainerdVersion;

/// The program, found on the search path: distributions put it in different places.
pub const PROGRAM: &str = "containerd";
/// Where its configuration lies.
pub const CONFIG: &str = "/etc/containerd/config.toml";
/// Where the socket is that the kubelet talks to.
pub const SOCKET: &str = "/run/containerd/containerd.sock";
/// Where network plugins' programs lie.
pub const PLUGIN_PROGRAMS: &str = "/opt/cni/bin";
/// Where networks' configuration lies.
pub const NETWORKS: &str = "/etc/cni/net.d";
/// The version of the image that holds a pod together: that of kubeadm of the newest Kubernetes that was tried.
pub const PAUSE: &str = "3.10.2";

/// The file.
pub fn configuration(version: ContainerdVersion, images: &ImageRepository) -> String {
    let programs = if version.lists_plugin_directories() {
        format!("bin_dirs = ['{PLUGIN_PROGRAMS}']")
    } else {
        format!("bin_dir = '{PLUGIN_PROGRAMS}'")
    };
    format!(
        "\
# Written by quorate, since there was none. It is never changed again: change it as you like.
version = 3

[grpc]
  address = '{SOCKET}'

[plugins.'io.containerd.cri.v1.images']
  # What an image was unpacked from is of no use here any more.
  discard_unpacked_layers = true

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  # Never taken away when room is made: without it no pod starts.
  sandbox = '{images}/pause:{PAUSE}'

[plugins.'io.containerd.cri.v1.runtime'.containerd]
  default_runtime_name = 'runc'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  # As the kubelet: one maker of control groups on a machine.
  SystemdCgroup = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
  {programs}
  conf_dir = '{NETWORKS}'
"
    )
}

/// Whether a configuration, as `containerd config dump` prints it whole, has systemd make the control groups of the
/// containers of the default runtime.
pub fn has_systemd_cgroups(dump: &str) -> bool {
    let runtime = entries(dump)
        .find(|(table, key, _)| table.ends_with(".containerd") && *key == "default_runtime_name")
        .map_or("runc", |(_, _, value)| value.trim_matches(['\'', '"']));
    let ends = [
        format!(".containerd.runtimes.{runtime}.options"),
        format!(".containerd.runtimes.'{runtime}'.options"),
        format!(".containerd.runtimes.\"{runtime}\".options"),
    ];
    entries(dump).any(|(table, key, value)| {
        key == "SystemdCgroup" && value == "true" && ends.iter().any(|end| table.ends_with(end))
    })
}

/// The keys with values of one line, each with its table.
fn entries(toml: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    let mut table = "";
    toml.lines().filter_map(move |line| {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            table = header;
            return None;
        }
        let (key, value) = line.split_once('=')?;
        Some((table, key.trim(), value.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(version: &str) -> String {
        configuration(version.parse().unwrap(), &"registry.k8s.io".parse().unwrap())
    }

    #[test]
    fn what_is_written_has_what_is_looked_for() {
        for version in ["2.0.5", "2.1.0", "2.3.1"] {
            let text = written(version);
            assert!(has_systemd_cgroups(&text), "{text}");
            assert!(text.contains("\n  sandbox = 'registry.k8s.io/pause:3.10.2'\n"), "{text}");
        }
    }

    #[test]
    fn the_plugins_directory_has_the_name_that_the_version_knows() {
        assert!(written("2.0.5").contains("\n  bin_dir = '/opt/cni/bin'\n"));
        assert!(written("2.1.0").contains("\n  bin_dirs = ['/opt/cni/bin']\n"));
    }

    #[test]
    fn another_runtimes_control_groups_do_not_count() {
        let dump = |runtime: &str, cgroups: bool| {
            format!(
                "version = 3\n[plugins]\n  [plugins.'io.containerd.cri.v1.runtime'.containerd]\n    \
                 default_runtime_name = '{runtime}'\n    \
                 [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\n      \
                 SystemdCgroup = {cgroups}\n"
            )
        };
        assert!(has_systemd_cgroups(&dump("runc", true)));
        assert!(!has_systemd_cgroups(&dump("runc", false)));
        assert!(!has_systemd_cgroups(&dump("kata", true)));
        assert!(!has_systemd_cgroups("version = 3\n"));
        // As version 2 has it.
        let older = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.\"runc\".options]\n\
                     SystemdCgroup = true";
        assert!(has_systemd_cgroups(older));
    }
}
