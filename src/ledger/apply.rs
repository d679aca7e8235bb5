//! The statement that decides a batch and writes its entries.

pub(super) mod batch;
pub(super) mod dry_run;
pub(super) mod locks;
pub(super) mod metadata;
pub(super) mod params;
pub(super) mod row;
pub(super) mod split;
pub(super) mod stored_refusals;
