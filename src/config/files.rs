//! Files that hold passwords, certificates and keys, such as mounted secrets.

use std::fmt;
use std::sync::Arc;

use crate::common::diagnostic::Diagnostic;

/// A file that was read when the configuration was loaded. `Display` and `Debug` show its path, and
/// never its content.
#[derive(Clone)]
pub struct HeldFile {
    path: String,
    content: Arc<[u8]>,
}

impl HeldFile {
    pub(super) fn read(path: &str) -> Result<Self, Diagnostic> {
        if path.is_empty() {
            let remedy = "it must be the path of a file, or be left out";
            return Err(Diagnostic::new("is empty").remedy(remedy));
        }
        let content = std::fs::read(path).map_err(|error| {
            let problem = Diagnostic::new(format!("cannot read {path}: {error}"));
            problem.remedy("it must be a file that this process may read")
        })?;
        if content.is_empty() {
            let problem = Diagnostic::new(format!("{path} is empty"));
            let remedy = "it must hold the password, certificate or private key";
            return Err(problem.remedy(remedy));
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

    /// A password: all of the file without the newline that editors and `echo` put at its end.
    pub(super) fn password(&self) -> Result<String, Diagnostic> {
        let invalid = |fault: &str| {
            let problem = Diagnostic::new(format!("{} {fault}", self.path));
            problem.remedy("it must hold only the password")
        };
        let text = std::str::from_utf8(&self.content).map_err(|_| invalid("is not UTF-8"))?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err(invalid("holds only a newline"));
        }
        if text.contains(['\n', '\r', '\0']) {
            return Err(invalid("holds more than one line"));
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
