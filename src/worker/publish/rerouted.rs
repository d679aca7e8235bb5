//! A batch that is being published, with the dispositions that changed meanwhile.

use std::collections::BTreeMap;

use super::super::shared::Shared;
use crate::broker::Delivery;
use crate::domain::disposition::Disposition;

/// A batch, and the deliveries whose disposition changed because a message was not confirmed.
pub struct Rerouted<'a> {
    pub(super) shared: &'a Shared,
    pub batch: &'a [Delivery],
    pub dispositions: &'a [Disposition],
    pub(super) elsewhere: BTreeMap<usize, Disposition>,
}

impl<'a> Rerouted<'a> {
    pub fn new(shared: &'a Shared, batch: &'a [Delivery], dispositions: &'a [Disposition]) -> Self {
        Self {
            shared,
            batch,
            dispositions,
            elsewhere: BTreeMap::new(),
        }
    }

    /// The changed dispositions, by index.
    pub fn into_elsewhere(self) -> BTreeMap<usize, Disposition> {
        self.elsewhere
    }

    /// Whether the requests of a message wait elsewhere.
    pub fn is_elsewhere(&self, indexes: &[usize]) -> bool {
        indexes
            .iter()
            .all(|index| self.elsewhere.contains_key(index))
    }
}
