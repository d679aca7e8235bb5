//! The tables: migrated, checked, and compared with their definitions.

pub(super) mod archive;
pub(super) mod migrate;
pub(super) mod objects;
pub(super) mod tables;
