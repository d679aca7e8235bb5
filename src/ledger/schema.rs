//! The schema: migrations, checks, and comparison with the definitions.

pub(super) mod archive;
pub(super) mod migrate;
pub(super) mod objects;
pub(super) mod tables;
