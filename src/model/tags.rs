//! The keys of quorate's tags. Without `/`: EC2 refuses such keys on instances that publish their tags
//! through the metadata service.

/// The cluster's name, on instances, volumes and groups.
pub const CLUSTER: &str = "quorate:cluster";
/// The node's role, on instances and groups.
pub const ROLE: &str = "quorate:role";
/// The slot's number, on volumes.
pub const SLOT: &str = "quorate:slot";
/// The stamp's short form, on volumes.
pub const STAMP: &str = "quorate:stamp";
