//! Files that hold passwords, certificates and keys, as an orchestrator mounts secrets.

use std::fmt;
use std::sync::Arc;

/// The content of a file, read when the configuration is loaded. `Display` and `Debug` show only
/// its path.
#[derive(Clone)]
pub struct HeldFile {
    path: String,
    content: Arc<[u8]>,
}

impl HeldFile {
    pub(super) fn read(path: &str) -> Result<Self, String> {
        if path.is_empty() {
            return Err("is empty; it must be the path of a file; \
                        remove the key if no file is needed"
                .into());
        }
        let content = std::fs::read(path).map_err(|error| {
            format!("cannot read {path}: {error}; it must be a file that this process may read")
        })?;
        if content.is_empty() {
            return Err(format!(
                "{path} is empty; it must hold a password, a certificate or a key"
            ));
        }
        let content = content.into();
        Ok(Self {
            path: path.to_owned(),
            content,
        })
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The content of the file.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// The content as a password, without the newline that editors and `echo` append.
    pub(super) fn password(&self) -> Result<String, String> {
        let path = &self.path;
        let text = std::str::from_utf8(&self.content)
            .map_err(|_| format!("{path} is not UTF-8; it must hold only the password"))?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err(format!(
                "{path} holds only a newline; it must hold the password"
            ));
        }
        if text.contains(['\n', '\r', '\0']) {
            return Err(format!(
                "{path} holds more than one line; it must hold only the password"
            ));
        }
        Ok(text.to_owned())
    }
}

impl fmt::Display for HeldFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

impl fmt::Debug for HeldFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

text_type!(HeldFile, HeldFile::read);

/// The TLS settings of a server. Every file is PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The section whose keys name the files: `amqp` or `database`.
    pub section: &'static str,
    /// The only trusted authorities; `None` trusts those of the system.
    pub ca: Option<HeldFile>,
    /// The client certificate that revertd presents, with its chain.
    pub identity: Option<Identity>,
}

/// A client's certificate and its key.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate, and the intermediate certificates up to its authority.
    pub cert: HeldFile,
    /// The private key of the certificate, unencrypted.
    pub key: HeldFile,
}
