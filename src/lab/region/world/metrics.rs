//! What CloudWatch was told.

use std::collections::BTreeMap;

use super::World;

/// How many figures are remembered.
const KEPT: usize = 10_000;

/// A figure that was told.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its dimensions.
    pub dimensions: BTreeMap<String, String>,
    /// What it was.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
}

impl World {
    /// Takes figures.
    pub fn measure(&mut self, figures: Vec<Measured>) {
        self.measured.extend(figures);
        let over = self.measured.len().saturating_sub(KEPT);
        self.measured.drain(..over);
    }

    /// The figures that were told, the oldest first.
    pub fn measured(&self) -> &[Measured] {
        &self.measured
    }
}
