//! Combines each URL with the files beside it: password, encryption, trusted authorities, client
//! certificate.

use super::error::SettingsError;
use super::files::{HeldFile, Identity, TlsFiles};
use super::management_url::ManagementUrl;
use super::settings::{AmqpSettings, DatabaseSettings, Settings};
use crate::common::diagnostic::Diagnostic;

impl Settings {
    /// Adds the content of the files to the URLs.
    pub(super) fn resolve(&mut self) -> Result<(), SettingsError> {
        self.amqp.resolve().map_err(SettingsError)?;
        self.database.resolve().map_err(SettingsError)
    }
}

impl AmqpSettings {
    fn resolve(&mut self) -> Result<(), Diagnostic> {
        let identity = identity("amqp", self.cert_file.as_ref(), self.key_file.as_ref())?;
        let files = [("ca_file", &self.ca_file), ("cert_file", &self.cert_file)];
        let managed = self.management_url.as_ref();
        let managed_over_tls = managed.is_some_and(ManagementUrl::is_secure);
        if !self.url.is_secure() {
            let unused = files
                .iter()
                .find(|(_, file)| file.is_some() && !managed_over_tls);
            if let Some((key, _)) = unused {
                return invalid(
                    format!(
                        "amqp.{key} is set, but amqp.url begins with amqp://, which does not \
                         encrypt"
                    ),
                    "write amqps://, or remove the key",
                );
            }
            if self.url.is_external() {
                return invalid(
                    "amqp.url has auth_mechanism=external, but begins with amqp://, and without \
                     TLS a client presents no certificate",
                    "write amqps://",
                );
            }
        }
        if self.url.is_external() {
            if identity.is_none() {
                return invalid(
                    "amqp.url has auth_mechanism=external, but there is no certificate to present",
                    "set amqp.cert_file and amqp.key_file",
                );
            }
            if !self.url.has_user() {
                return invalid(
                    "amqp.url has auth_mechanism=external, but no user",
                    "write the name that the broker reads from the certificate: \
                     amqps://NAME@HOST/VHOST?auth_mechanism=external",
                );
            }
            if self.password_file.is_some() {
                return invalid(
                    "amqp.password_file is set, but amqp.url has auth_mechanism=external, which \
                     sends no password",
                    "remove one of them",
                );
            }
        }
        if let Some(file) = &self.password_file {
            if self.url.has_password() && !self.url.is_default() {
                return twice("amqp", "amqp://USER@HOST:5672/VHOST");
            }
            let password = file.password();
            let password = password.map_err(|error| error.prefixed("amqp.password_file: "))?;
            self.url.set_password(&password);
        }
        let tls = TlsFiles {
            section: "amqp",
            ca: self.ca_file.clone(),
            identity,
        };
        if self.url.is_secure() {
            self.url.set_tls(&tls);
        }
        if let Some(url) = self.management_url.as_mut().filter(|url| url.is_secure()) {
            url.set_tls(tls);
        }
        Ok(())
    }
}

impl DatabaseSettings {
    fn resolve(&mut self) -> Result<(), Diagnostic> {
        let given = self.url.tls_options().clone();
        // In libpq `system` selects the authorities of the system, which are the default here.
        let system = given.root_cert.as_deref() == Some("system");
        if let (true, Some(file)) = (system, &self.ca_file) {
            return invalid(
                format!("database.ca_file is {file}, but database.url has sslrootcert=system"),
                "remove one of them",
            );
        }
        let root_cert = given.root_cert.filter(|_| !system);
        let ca = either("ca_file", self.ca_file.as_ref(), "sslrootcert", root_cert)?;
        let cert = either("cert_file", self.cert_file.as_ref(), "sslcert", given.cert)?;
        let key = either("key_file", self.key_file.as_ref(), "sslkey", given.key)?;
        let identity = identity("database", cert.as_ref(), key.as_ref())?;
        if !given.encrypt {
            let named = [
                (ca.is_some() || system, "ca_file or sslrootcert"),
                (identity.is_some(), "cert_file or sslcert"),
            ];
            if let Some((_, key)) = named.into_iter().find(|(is_set, _)| *is_set) {
                return invalid(
                    format!("database: {key} is set, but database.url does not require encryption"),
                    "add sslmode=verify-full to it, or remove the file",
                );
            }
        }
        if let Some(file) = &self.password_file {
            if self.url.has_password() {
                return twice("database", "postgres://USER@HOST:5432/DATABASE");
            }
            let password = file.password();
            let password = password.map_err(|error| error.prefixed("database.password_file: "))?;
            self.url.set_password(password);
        }
        if given.encrypt {
            self.url.set_tls(TlsFiles {
                section: "database",
                ca,
                identity,
            });
        }
        Ok(())
    }
}

fn invalid<T>(message: impl Into<String>, remedy: impl Into<String>) -> Result<T, Diagnostic> {
    Err(Diagnostic::new(message).remedy(remedy))
}

fn twice(section: &str, form: &str) -> Result<(), Diagnostic> {
    invalid(
        format!("{section}.password_file is set, but {section}.url has a password as well"),
        format!(
            "remove it from the address, which then looks like {form}, or remove \
             {section}.password_file"
        ),
    )
}

/// The client certificate and its key; one without the other is an error.
fn identity(
    section: &str,
    cert: Option<&HeldFile>,
    key: Option<&HeldFile>,
) -> Result<Option<Identity>, Diagnostic> {
    match (cert.cloned(), key.cloned()) {
        (Some(cert), Some(key)) => Ok(Some(Identity { cert, key })),
        (None, None) => Ok(None),
        (Some(_), None) => invalid(
            format!("{section}.cert_file is set, but {section}.key_file is not"),
            "set both, or neither",
        ),
        (None, Some(_)) => invalid(
            format!("{section}.key_file is set, but {section}.cert_file is not"),
            "set both, or neither",
        ),
    }
}

/// The file that revertd's own key names, or that libpq's option in the URL names.
fn either(
    key: &str,
    file: Option<&HeldFile>,
    option: &str,
    path: Option<String>,
) -> Result<Option<HeldFile>, Diagnostic> {
    match (file, path) {
        (file, None) => Ok(file.cloned()),
        (None, Some(path)) => {
            let read = HeldFile::read(&path);
            read.map(Some)
                .map_err(|error| error.prefixed(format!("database.url: {option}: ")))
        }
        (Some(file), Some(path)) if file.path() == path => Ok(Some(file.clone())),
        (Some(file), Some(path)) => invalid(
            format!("database.{key} is {file}, but database.url has {option}={path}"),
            "remove one of them",
        ),
    }
}
