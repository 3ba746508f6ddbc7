//! How many addresses an instance type gives to pods: a table, so that a node need not ask EC2.

use crate::model::node::InterfaceLimits;

/// What the file's own head says.
const TABLE: &str = include_str!("instance_types.txt");

/// The limits of an instance type like `m7g.large`; `None` when the table does not have it, and EC2 is to be asked
/// (`DescribeInstanceTypes`).
pub fn interface_limits(instance_type: &str) -> Option<InterfaceLimits> {
    let (family, size) = instance_type.split_once('.')?;
    lines()
        .find(|(of, _, families)| *of == size && families.split(' ').any(|one| one == family))
        .map(|found| found.1)
}

/// The table's lines: size, limits and families.
fn lines() -> impl Iterator<Item = (&'static str, InterfaceLimits, &'static str)> {
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut parts = line.splitn(4, ' ');
        let (size, interfaces, addresses, families) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let limits =
            InterfaceLimits { interfaces: interfaces.parse().ok()?, addresses: addresses.parse().ok()? };
        Some((size, limits, families))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Source: "Maximum IP addresses per network interface", EC2 user guide.
    #[test]
    fn types_have_the_limits_that_the_user_guide_gives() {
        for (name, interfaces, addresses) in [
            ("t3.medium", 3, 6),
            ("m7g.large", 3, 10),
            ("m7i.48xlarge", 15, 50),
            ("c5.18xlarge", 15, 50),
            ("m5.metal", 15, 50),
            ("t4g.nano", 2, 2),
        ] {
            assert_eq!(interface_limits(name), Some(InterfaceLimits { interfaces, addresses }), "{name}");
        }
        for name in ["", "large", "m7g.", "m7.large", "z99.large", "m7g.large "] {
            assert_eq!(interface_limits(name), None, "{name}");
        }
    }

    #[test]
    fn every_line_is_read_and_no_type_is_there_twice() {
        let written = TABLE.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(lines().count(), written);
        let mut seen = BTreeSet::new();
        for (size, limits, families) in lines() {
            assert!(limits.interfaces >= 1 && limits.addresses >= 2, "{size} {families}");
            for family in families.split(' ') {
                assert!(seen.insert((family, size)), "{family}.{size}");
            }
        }
        assert_eq!(seen.len(), 1384);
    }
}
