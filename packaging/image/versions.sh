# shellcheck shell=sh disable=SC2034,SC2016 # read by provision.sh, which replaces the names
# What goes into the image: versions, and the checksum of each file that is downloaded, as its project publishes it.
# To take another version, change it here with its checksums, and nowhere else. Checksums are SHA-256 where they have
# 64 digits, SHA-512 where they have 128.

# Kubernetes: kubelet, kube-proxy and kubectl of the node's archive, and the control plane's images.
# From CHANGELOG-1.36.md of kubernetes/kubernetes.
KUBERNETES_VERSION=1.36.0
KUBERNETES_URL='https://dl.k8s.io/v${KUBERNETES_VERSION}/kubernetes-node-linux-${ARCH}.tar.gz'
KUBERNETES_SUM_amd64=8bba5bd0cb77997ad965739caff3c8839fd16f284cf28a0e46c44538ce0b6fd83c5f3c608dd86c4831c3de9306bbfd02ce26bbe9a426754b6253efa1d5cc030f
KUBERNETES_SUM_arm64=10a4c3660e6e19fae998b04345dbe42711e61745bf374405c33e8604335b12ff55ce7b68f8a0d67d1f7ce4519f706fbd8d80781b7128369fe047c38915e8d189

# etcd, with etcdctl and etcdutl. From SHA256SUMS of the release.
ETCD_VERSION=3.6.14
ETCD_URL='https://github.com/etcd-io/etcd/releases/download/v${ETCD_VERSION}/etcd-v${ETCD_VERSION}-linux-${ARCH}.tar.gz'
ETCD_SUM_amd64=ffe840ff9295808e88cce2794a18a5ac87f12a5203c8314d0bf6aa119b41bac5
ETCD_SUM_arm64=fa1b80565ee6fc2df1ae6f57a508b221f3ecc7d591c317c581cd8281b0842b3e

# containerd, linked statically, so that one archive is for every distribution. From the release's .sha256sum files.
CONTAINERD_VERSION=2.3.4
CONTAINERD_URL='https://github.com/containerd/containerd/releases/download/v${CONTAINERD_VERSION}/containerd-static-${CONTAINERD_VERSION}-linux-${ARCH}.tar.gz'
CONTAINERD_SUM_amd64=1d0eccd52471ab75e8d4645b538f73dc635f905cd2be776366eb1036a0089595
CONTAINERD_SUM_arm64=ad21f456a69bca9c183a8bde892a7576d5d09ae88b3e376a47bde4a886037ab3

# runc. From runc.sha256sum of the release.
RUNC_VERSION=1.4.3
RUNC_URL='https://github.com/opencontainers/runc/releases/download/v${RUNC_VERSION}/runc.${ARCH}'
RUNC_SUM_amd64=f6ae8efc0fa40079e1475e97cbe9d1bd3f106a28d6af78a11d9f1bd565515e60
RUNC_SUM_arm64=633301e2e32f8a5ad54031aab4901eb00308bec677dd15faa2751e8f9dab5ca4

# Network plugins, for the add-on bridge-cni. From the release's .sha256 files.
CNI_VERSION=1.9.1
CNI_URL='https://github.com/containernetworking/plugins/releases/download/v${CNI_VERSION}/cni-plugins-linux-${ARCH}-v${CNI_VERSION}.tgz'
CNI_SUM_amd64=b98f74a0f8522f0a83867178729c1aa70f2158f90c45a2ca8fa791db1c76b303
CNI_SUM_arm64=56171987d3947707c3563db2f4001bccaf50fd63468611b9f3cbecb1375ee7ec

# Images that are pulled while the image is made, so that a node starts without a registry. Tags of a released version
# are not moved by registry.k8s.io; what was pulled is written down in /usr/share/quorate/image.txt by digest.
IMAGES='
registry.k8s.io/kube-apiserver:v${KUBERNETES_VERSION}
registry.k8s.io/kube-controller-manager:v${KUBERNETES_VERSION}
registry.k8s.io/kube-scheduler:v${KUBERNETES_VERSION}
registry.k8s.io/pause:3.10.2
registry.k8s.io/coredns/coredns:v1.14.2
registry.k8s.io/provider-aws/cloud-controller-manager:v1.36.1
registry.k8s.io/networking/ip-masq-agent:v2.12.6
public.ecr.aws/amazonlinux/amazonlinux:2023
'
