#!/bin/sh
# Makes a machine ready to be a node: run by Packer (quorate.pkr.hcl), or alone as root on Debian 12 or Amazon Linux
# 2023, on a machine that becomes an image. It may be run again: what is there in its version is left as it is.
#
# It installs containerd, runc, network plugins, etcd, the kubelet, kube-proxy and the quorate package; pulls images;
# sets the kernel up; and takes away what tells this machine from its copies. It starts no agent.
#
# Usage:
#   provision.sh PACKAGE        installs, PACKAGE being quorate's .deb or .rpm, and cleans up
#   provision.sh --check        says what a node needs and this machine lacks; changes nothing
#   provision.sh --clean        takes identity and logs away, and nothing else
#
# Environment:
#   QUORATE_ROOT     the root directory; anything else than / is for tests: nothing is installed by a package manager,
#                    started or pulled there
#   QUORATE_MIRROR   where the files are downloaded from, in place of their own hosts: MIRROR/FILE-NAME
#   QUORATE_VERSIONS the file of versions and checksums; versions.sh beside this script without it
#
# Exit: 0 done, or nothing lacking; 1 something failed or lacks, and standard error says what; 2 wrong usage.
set -eu

root=${QUORATE_ROOT:-/}
root=${root%/}
here=$(cd "$(dirname "$0")" && pwd)
work=

say() { printf 'provision: %s\n' "$*"; }
die() {
  printf 'provision: %s\n' "$*" >&2
  exit 1
}
usage() {
  printf 'usage: provision.sh PACKAGE | --check | --clean\n' >&2
  exit 2
}

finish() {
  if [ -n "$work" ]; then rm -rf "$work"; fi
}
trap finish EXIT

# Whether this is a machine, and not a directory of a test.
is_machine() { [ -z "$root" ]; }

# The machine's architecture, as the projects name it.
arch() {
  case $(uname -m) in
  x86_64) echo amd64 ;;
  aarch64) echo arm64 ;;
  *) die "no files are known for the architecture $(uname -m); known: x86_64, aarch64" ;;
  esac
}

# value NAME: what versions.sh says, with the names in it replaced.
value() {
  eval "value_is=\${$1-}"
  # shellcheck disable=SC2154 # eval sets it
  [ -n "$value_is" ] || die "$versions says nothing of $1"
  eval "printf '%s' \"$value_is\""
}

# verified FILE SUM: whether the file has this checksum.
verified() {
  case ${#2} in
  64) found=$(sha256sum "$1") ;;
  128) found=$(sha512sum "$1") ;;
  *) die "a checksum of ${#2} digits is neither SHA-256 nor SHA-512: $2" ;;
  esac
  [ "${found%% *}" = "$2" ]
}

# fetch NAME: downloads NAME's file, checks it, and sets $file to where it lies. A file with another checksum is not
# used, and not kept.
fetch() {
  url=$(value "$1_URL")
  sum=$(value "$1_SUM_$ARCH")
  file=$work/${url##*/}
  if [ -n "${QUORATE_MIRROR:-}" ]; then url=${QUORATE_MIRROR%/}/${url##*/}; fi
  say "downloading $url"
  curl --fail --silent --show-error --location --retry 5 --retry-connrefused --connect-timeout 20 \
    --output "$file" "$url" || die "$url can't be downloaded"
  if ! verified "$file" "$sum"; then
    found=$(sha256sum "$file")
    rm -f "$file"
    die "$url is not what it should be: its checksum is not $sum (its SHA-256 is ${found%% *}). Nothing of it is used"
  fi
}

# install_program FROM NAME: a program into /usr/bin, in full before it appears there.
install_program() {
  install -D -m 0755 "$1" "$root/usr/bin/.$2.new"
  mv "$root/usr/bin/.$2.new" "$root/usr/bin/$2"
}

# note NAME: that this version is installed, after it is.
notes=$root/usr/share/quorate/image
noted() { [ "$(cat "$notes/$1" 2>/dev/null)" = "$(value "$1_VERSION")" ]; }
note() {
  mkdir -p "$notes"
  value "$1_VERSION" >"$notes/.$1.new"
  mv "$notes/.$1.new" "$notes/$1"
}

install_kubernetes() {
  if noted KUBERNETES; then return; fi
  fetch KUBERNETES
  tar -xzf "$file" -C "$work" kubernetes/node/bin
  for program in kubelet kube-proxy kubectl; do
    install_program "$work/kubernetes/node/bin/$program" "$program"
  done
  note KUBERNETES
}

install_etcd() {
  if noted ETCD; then return; fi
  fetch ETCD
  tar -xzf "$file" -C "$work"
  for program in etcd etcdctl etcdutl; do
    install_program "$work/$(basename "$file" .tar.gz)/$program" "$program"
  done
  note ETCD
}

install_containerd() {
  if ! noted CONTAINERD; then
    fetch CONTAINERD
    mkdir -p "$work/containerd"
    tar -xzf "$file" -C "$work/containerd"
    for program in "$work"/containerd/bin/*; do install_program "$program" "$(basename "$program")"; done
    mkdir -p "$root/usr/lib/systemd/system"
    cat >"$root/usr/lib/systemd/system/containerd.service" <<'UNIT'
# As containerd's own (Apache-2.0), for its programs in /usr/bin. quorate writes the configuration.
[Unit]
Description=containerd container runtime
Documentation=https://containerd.io
After=network.target dbus.service

[Service]
ExecStartPre=-/sbin/modprobe overlay
ExecStart=/usr/bin/containerd
Type=notify
Delegate=yes
# Its shims, and so the containers, go on when it is stopped or started anew.
KillMode=process
Restart=always
RestartSec=5
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
OOMScoreAdjust=-999

[Install]
WantedBy=multi-user.target
UNIT
    note CONTAINERD
  fi
  if ! noted RUNC; then
    fetch RUNC
    install_program "$file" runc
    note RUNC
  fi
  if ! noted CNI; then
    fetch CNI
    mkdir -p "$root/opt/cni/bin"
    tar -xzf "$file" -C "$root/opt/cni/bin"
    note CNI
  fi
}

# What the distribution has: tools that the agent runs, and what the kubelet and kube-proxy need.
install_distribution() {
  if ! is_machine; then return; fi
  if command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends ca-certificates chrony conntrack curl e2fsprogs ethtool iproute2 \
      iptables kmod mount nftables socat util-linux xfsprogs
  elif command -v dnf >/dev/null; then
    dnf install -y -q ca-certificates chrony conntrack-tools curl-minimal e2fsprogs ethtool iproute iptables-nft kmod \
      nftables socat tar util-linux xfsprogs
  else
    die "neither apt-get nor dnf is here: this is for Debian 12 and Amazon Linux 2023"
  fi
}

install_package() {
  if ! is_machine; then return; fi
  case $1 in
  *.deb) apt-get install -y -qq --no-install-recommends "$(realpath "$1")" ;;
  *.rpm) dnf install -y -q "$(realpath "$1")" ;;
  *) die "$1 is neither a .deb nor a .rpm" ;;
  esac
}

# put PATH: standard input into a file.
put() {
  mkdir -p "$root$(dirname "$1")"
  cat >"$root$1.new"
  mv "$root$1.new" "$root$1"
}

set_up_kernel() {
  put /etc/modules-load.d/50-quorate-node.conf <<'END'
# containerd's file systems; bridged packets for kube-proxy's rules, and the notes of connections that it keeps.
overlay
br_netfilter
nf_conntrack
END
  put /etc/sysctl.d/50-quorate-node.conf <<'END'
# Nodes forward pods' packets, and kube-proxy sees those that cross a bridge.
net.ipv4.ip_forward = 1
net.bridge.bridge-nf-call-iptables = 1
# What the kubelet asks for (protectKernelDefaults): it ends what it can't account for, and panics rather than hangs.
vm.overcommit_memory = 1
vm.panic_on_oom = 0
kernel.panic = 10
kernel.panic_on_oops = 1
# Watches of many pods' files.
fs.inotify.max_user_instances = 8192
fs.inotify.max_user_watches = 524288
END
  # Its clock comes from the hypervisor's own server, which no security group is asked about.
  put /etc/chrony/sources.d/50-quorate.sources <<'END'
server 169.254.169.123 prefer iburst minpoll 4 maxpoll 4
END
  if is_machine; then
    # The kubelet does not start with swap.
    swapoff -a
    sed -i '/^[^#].*[[:space:]]swap[[:space:]]/s/^/# quorate: no swap on a node: /' /etc/fstab
    systemctl --quiet mask swap.target
    systemctl --quiet enable containerd.service chrony.service 2>/dev/null ||
      systemctl --quiet enable containerd.service chronyd.service
    # etcd and the kubelet are started by the agent alone.
    for unit in etcd.service kubelet.service; do systemctl --quiet disable "$unit" 2>/dev/null || true; done
  fi
}

pull_images() {
  if ! is_machine; then return; fi
  systemctl start containerd.service
  for image in $(value IMAGES); do
    say "pulling $image"
    ctr --namespace k8s.io images pull --platform "linux/$ARCH" "$image" >/dev/null || die "$image can't be pulled"
  done
  ctr --namespace k8s.io images ls | awk 'NR == 1 || $1 !~ /^sha256:/ { print $1, $3 }' | put /usr/share/quorate/image.txt
  systemctl stop containerd.service
}

# A machine with an etcd member, or whose agent runs, is a node: it is not made an image of, and nothing of it is
# taken away.
refuse_nodes() {
  if [ -d "$root/var/lib/etcd" ] && [ -n "$(ls -A "$root/var/lib/etcd")" ]; then
    die "$root/var/lib/etcd is not empty: this machine is, or was, a member of etcd. Images are made of other machines"
  fi
  if [ -e "$root/run/quorate/status.json" ]; then
    die "the agent runs, or has run since the boot: this machine is a node. Images are made of other machines"
  fi
}

# Takes away what tells this machine from its copies, and what it saw. A copy makes its own at its first boot.
clean() {
  say "taking identity and logs away"
  if is_machine; then
    if command -v cloud-init >/dev/null; then cloud-init clean --logs; fi
    if command -v apt-get >/dev/null; then apt-get clean; fi
    if command -v dnf >/dev/null; then dnf clean all -q; fi
  fi
  # Empty, not missing: systemd then makes one, and calls the boot the first.
  if [ -e "$root/etc/machine-id" ]; then : >"$root/etc/machine-id"; fi
  rm -f "$root/var/lib/dbus/machine-id" "$root/var/lib/systemd/random-seed"
  rm -f "$root"/etc/ssh/ssh_host_*
  rm -f "$root/etc/hostname" "$root/var/lib/cloud/instance"
  rm -rf "$root"/var/lib/cloud/instances/* "$root"/var/lib/dhcp/* "$root"/var/lib/amazon/ssm/*
  # Who made the image comes in no more.
  for home in "$root/root" "$root"/home/*; do
    rm -f "$home/.ssh/authorized_keys" "$home/.bash_history" "$home/.lesshst" "$home/.viminfo"
    rm -rf "$home/.aws" "$home/.docker" "$home/.kube"
  done
  # Nothing of a cluster: an image that was made of a node would be that node.
  rm -rf "$root/var/lib/quorate" "$root/etc/quorate/pki" "$root/var/lib/kubelet/pki"
  rm -f "$root/var/lib/kubelet/config.yaml" "$root/etc/kubernetes"/*.conf "$root/etc/kubernetes"/*.env
  rm -rf "$root/etc/kubernetes/pki" "$root/etc/kubernetes/manifests" "$root/etc/kubernetes/apiserver" \
    "$root/etc/kubernetes/controller-manager" "$root/etc/kubernetes/scheduler" "$root/etc/cni/net.d"/*
  find "$root/var/log" -type f -delete 2>/dev/null || true
  rm -rf "$root"/var/log/journal/* "$root"/var/log/pods/* "$root"/tmp/* "$root"/var/tmp/*
}

# lacks WHAT: counts, and says.
lacking=0
lacks() {
  printf 'provision: lacking: %s\n' "$*" >&2
  lacking=$((lacking + 1))
}

# Whether this is an image that quorate can make a node of, and that its copies are nobody yet.
check() {
  for program in quorate containerd runc kubelet kube-proxy etcd etcdutl blkid findmnt mkfs.ext4 resize2fs mount umount; do
    found=
    for folder in usr/bin usr/sbin bin sbin; do
      if [ -x "$root/$folder/$program" ]; then found=yes; fi
    done
    [ -n "$found" ] || lacks "the program $program"
  done
  for unit in quorate quorate-etcd kubelet kube-proxy containerd; do
    if ! [ -e "$root/usr/lib/systemd/system/$unit.service" ] && ! [ -e "$root/lib/systemd/system/$unit.service" ] &&
      ! [ -e "$root/etc/systemd/system/$unit.service" ]; then
      lacks "the unit $unit.service"
    fi
  done
  [ -e "$root/etc/systemd/system/multi-user.target.wants/quorate.service" ] ||
    lacks "quorate.service is not enabled: systemctl enable quorate.service"
  for unit in quorate-etcd kubelet kube-proxy etcd; do
    if [ -e "$root/etc/systemd/system/multi-user.target.wants/$unit.service" ]; then
      lacks "$unit.service is enabled, and it is the agent's to start: systemctl disable $unit.service"
    fi
  done
  for plugin in bridge host-local portmap loopback; do
    [ -x "$root/opt/cni/bin/$plugin" ] || lacks "the network plugin $plugin in /opt/cni/bin"
  done
  grep -qs '^net.ipv4.ip_forward *= *1' "$root"/etc/sysctl.d/*.conf || lacks "net.ipv4.ip_forward = 1 in /etc/sysctl.d"
  grep -qs '^br_netfilter' "$root"/etc/modules-load.d/*.conf || lacks "br_netfilter in /etc/modules-load.d"
  if grep -qs '^[^#].*[[:space:]]swap[[:space:]]' "$root/etc/fstab"; then
    lacks "/etc/fstab has swap, with which the kubelet does not start"
  fi
  if [ -s "$root/etc/machine-id" ]; then lacks "/etc/machine-id is this machine's own: provision.sh --clean"; fi
  for key in "$root"/etc/ssh/ssh_host_*; do
    if [ -e "$key" ]; then lacks "${key#"$root"} is this machine's own: provision.sh --clean"; fi
  done
  for left in /var/lib/quorate /etc/quorate/pki /var/lib/kubelet/pki /root/.ssh/authorized_keys; do
    if [ -e "$root$left" ]; then lacks "$left is a cluster's or a person's: provision.sh --clean"; fi
  done
  [ "$lacking" = 0 ] || die "$lacking things lack, so this is no image for quorate"
  say "all is there that quorate needs, and nothing of anybody"
}

[ $# = 1 ] || usage
case $1 in
--check) check ;;
--clean)
  refuse_nodes
  clean
  ;;
-*) usage ;;
*)
  package=$1
  [ -r "$package" ] || die "$package can't be read"
  versions=${QUORATE_VERSIONS:-$here/versions.sh}
  # shellcheck disable=SC1090,SC1091 # a file like versions.sh
  . "$versions"
  refuse_nodes
  ARCH=$(arch)
  work=$(mktemp -d)
  install_distribution
  install_containerd
  install_etcd
  install_kubernetes
  set_up_kernel
  install_package "$package"
  pull_images
  clean
  if is_machine; then check; fi
  say "done"
  ;;
esac
