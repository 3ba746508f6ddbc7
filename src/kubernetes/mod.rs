//! What makes Kubernetes of the machine.

pub mod kubeconfig;
