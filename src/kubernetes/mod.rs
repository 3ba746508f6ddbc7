//! placeholder
pub mod component;
pub mod paths;
pub mod version;
