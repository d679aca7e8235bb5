//! Metadata of a refusal, as the database stores it.

use std::collections::BTreeMap;

use tokio_postgres::types::Json;

use crate::domain::outcome::Metadata;

/// Metadata of a refusal as it is stored.
#[derive(serde::Deserialize)]
#[serde(transparent)]
pub(crate) struct StoredMetadata(BTreeMap<String, Option<String>>);

impl StoredMetadata {
    /// The pairs that have a value.
    pub(crate) fn read(stored: Option<Json<Self>>) -> Metadata {
        let pairs = stored.into_iter().flat_map(|Json(stored)| stored.0);
        pairs
            .filter_map(|(key, value)| Some((key, value?)))
            .collect()
    }
}
