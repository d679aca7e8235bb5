//! Id and secret of a client, given to the broker once and kept nowhere.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use lapin::auth::AuthProvider;
use lapin::types::{LongString, ShortString};
use zeroize::Zeroizing;

/// Id and secret of a client; shows itself without the secret, which is overwritten when it is
/// dropped.
#[derive(Clone)]
pub struct Credentials {
    /// The name of the broker's user.
    pub id: String,
    /// Its password.
    pub secret: Zeroizing<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// SASL's PLAIN, once.
pub(crate) struct Plain(Mutex<Option<Zeroizing<Vec<u8>>>>);

impl Plain {
    pub fn new(credentials: &Credentials) -> Self {
        let (id, secret) = (credentials.id.as_bytes(), credentials.secret.as_bytes());
        // As large as it gets, since a buffer that moves leaves its bytes behind.
        let mut text = Zeroizing::new(Vec::with_capacity(id.len() + secret.len() + 2));
        for part in [b"\0", id, b"\0", secret] {
            text.extend_from_slice(part);
        }
        Self(Mutex::new(Some(text)))
    }
}

impl AuthProvider for Plain {
    fn mechanism(&self) -> ShortString {
        "PLAIN".into()
    }

    fn auth_starter(&self) -> Result<LongString, String> {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = text.take().ok_or("the secret was given before")?;
        Ok(LongString::from(text.to_vec()))
    }
}
