//! Connections to the database and the settings of their sessions.

use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{CancelToken, Client, Config};

use super::encryption::Encryption;
use super::hosts;
use super::hosts::{CONNECT_TIMEOUT, Hosts};
use crate::common::diagnostic::Diagnostic;
use crate::common::tls;
use crate::config::Settings;
use crate::ledger::error::{LedgerError, unavailable};

/// Settings that end the locks, the transaction and the session of a lost client: with the server's
/// defaults, others could wait for them for hours. A transaction of revertd is never idle for
/// longer than a message to the server takes.
///
/// The search path keeps names from resolving to objects that another user created: every statement
/// names the schema of each object that is not the server's. If a row policy would hide rows from
/// this role, its statements fail.
const LOST_CLIENT: &str = "
    SET search_path = pg_catalog, pg_temp;
    SET row_security = off;
    SET idle_in_transaction_session_timeout = '15s';
    SET tcp_keepalives_idle = 15;
    SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 3;
    SET tcp_user_timeout = '30s';
";

/// Settings of the sessions that run batches. The planner makes one plan, of index scans only, for
/// batches of every size. Isolation and waiting for disk and standbys do not depend on the
/// database's defaults.
const SESSION: &str = "
    SET plan_cache_mode = force_generic_plan;
    SET enable_seqscan = off;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    SET enable_bitmapscan = off;
    SET jit = off;
    SET default_transaction_isolation = 'read committed';
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') <> 'remote_apply';
";

/// The usage that an entry's metadata names, as 32 lower-case digits in every spelling.
const REVERTED: &str = "replace(translate(lower((metadata ->> 'revert_request_using') \
     COLLATE \"C\"), '{}-', ''), 'urn:uuid:', '')";

/// Its hash, over the last 32 digits, which are the same in every spelling.
const HASH_OF_REVERTED: &str = "hashtextextended(right(rtrim(replace(lower((metadata \
     ->> 'revert_request_using') COLLATE \"C\"), '-', ''), '}'), 32), 0)";

/// The rows of the index: credits, and debits of customers, that name a usage. Debits of reverts on
/// the platform's account are left out, because they would double the index.
const INDEXED: &str = "metadata ? 'revert_request_using' AND (type = 'credit' \
     OR account_id <> '00000000-0000-0000-0000-000000000000')";

/// Inserts the schema of Frontier's tables into a statement, and the expressions for the usage that
/// an entry names.
pub fn in_schema(statement: &str, settings: &Settings) -> String {
    let quoted = format!("\"{}\"", settings.ledger.schema);
    statement
        .replace("{hash_of_reverted}", HASH_OF_REVERTED)
        .replace("{reverted}", REVERTED)
        .replace("{indexed}", INDEXED)
        .replace("{ledger}", &quoted)
}

/// The pool, the encryption of its connections, and the server's address for messages. `limits` is
/// a statement that every new session executes.
pub fn pool(settings: &Settings, limits: &str) -> Result<(Pool, Encryption, String), LedgerError> {
    let encryption = Encryption::new(settings)?;
    let config = parse(settings, &encryption)?;
    let host = describe(&config);
    let manager = Manager::from_connect(
        config,
        Hosts(encryption.clone()),
        ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        },
    );
    let session = format!("{LOST_CLIENT} {SESSION} {limits};");
    let pool = Pool::builder(manager)
        .max_size(usize::from(settings.pool_size()))
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(CONNECT_TIMEOUT))
        .create_timeout(Some(CONNECT_TIMEOUT))
        .post_create(Hook::async_fn(move |client, _| {
            let session = session.clone();
            Box::pin(async move {
                let done = client.batch_execute(&session).await;
                done.map_err(HookError::Backend)
            })
        }))
        .build()
        .map_err(|error| {
            LedgerError::permanent(format!("the pool of connections cannot be built: {error}"))
        })?;
    Ok((pool, encryption, host))
}

/// Asks the server to cancel the running statement of a connection.
pub async fn cancel(token: CancelToken, encryption: &Encryption) {
    let _ = token.cancel_query(encryption.clone()).await;
}

/// One connection outside the pool.
pub async fn single(settings: &Settings) -> Result<(Client, String), LedgerError> {
    let encryption = Encryption::new(settings)?;
    let config = parse(settings, &encryption)?;
    let host = describe(&config);
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, hosts::connect(&config, &encryption))
        .await
        .map_err(|_| LedgerError::silent(&host))?;
    let (client, connection) = connected.map_err(|error| {
        if encryption.was_declined(&error) {
            return LedgerError::clear_text_only(&host);
        }
        unavailable(&error, &host)
    })?;
    // The task ends with the client. Its errors reach the caller that waits for an answer.
    tokio::spawn(connection);
    // Otherwise the migration lock of a lost process would outlast it.
    let set = tokio::time::timeout(CONNECT_TIMEOUT, client.batch_execute(LOST_CLIENT));
    let set = set.await.map_err(|_| LedgerError::silent(&host))?;
    set.map_err(|error| unavailable(&error, &host))?;
    Ok((client, host))
}

fn parse(settings: &Settings, encryption: &Encryption) -> Result<Config, LedgerError> {
    let invalid = |error: &str, remedy: &str| {
        let text = format!("configuration: database.url: {error}");
        LedgerError::permanent(Diagnostic::new(text).remedy(remedy))
    };
    let mut config = read(settings).map_err(|error| {
        let form = "it must look like postgres://USER:PASSWORD@HOST:5432/DATABASE";
        invalid(&error, form)
    })?;
    // The configuration removes every sslmode from the address. One that is left was not parsed.
    if !matches!(config.get_ssl_mode(), SslMode::Prefer) {
        return Err(invalid(
            "has an sslmode that cannot be read",
            "write it as sslmode=verify-full",
        ));
    }
    let named = |host: &Host| matches!(host, Host::Tcp(name) if !name.is_empty());
    if encryption.is_on()
        && (config.get_hosts().is_empty() || !config.get_hosts().iter().all(named))
    {
        return Err(invalid(
            "requires TLS by its sslmode, but a server without a host name has no certificate that \
             could be verified",
            "give each server a host name, or leave sslmode out if all servers are on this machine",
        ));
    }
    config.ssl_mode(encryption.mode());
    if let Some(password) = settings.database.url.password() {
        config.password(password);
    }
    if config.get_application_name().is_none() {
        config.application_name("revertd");
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    // The client detects a lost server within half a minute.
    config.keepalives_idle(Duration::from_secs(15));
    config.keepalives_interval(Duration::from_secs(5));
    config.keepalives_retries(3);
    config.tcp_user_timeout(Duration::from_secs(30));
    Ok(config)
}

/// Parses the address. The source of a parse error names the wrong option and not its value.
fn read(settings: &Settings) -> Result<Config, String> {
    let parsed = settings.database.url.secret().parse::<Config>();
    parsed.map_err(|error| {
        let source = std::error::Error::source(&error);
        source.map_or_else(|| error.to_string(), ToString::to_string)
    })
}

/// The servers that are reached over a network without encryption.
#[must_use]
pub fn unencrypted(settings: &Settings) -> Vec<String> {
    let url = &settings.database.url;
    let Some(config) = read(settings).ok().filter(|_| url.tls().is_none()) else {
        return Vec::new();
    };
    let name = |host: &Host| match host {
        Host::Tcp(name) => Some(name.clone()),
        Host::Unix(_) => None,
    };
    let names = config.get_hosts().iter().filter_map(name);
    let addresses = config.get_hostaddrs().iter().map(ToString::to_string);
    let mut all: Vec<_> = names.chain(addresses).collect();
    all.retain(|host| !tls::is_local(host));
    all
}

/// Host and port of each server that is reached over a network.
pub fn servers(settings: &Settings) -> Result<Vec<(String, u16)>, LedgerError> {
    let config = parse(settings, &Encryption::new(settings)?)?;
    let ports = config.get_ports();
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
    // If addresses are given beside the names, the client connects to the addresses.
    if !config.get_hostaddrs().is_empty() {
        let addresses = config.get_hostaddrs().iter().enumerate();
        return Ok(addresses
            .map(|(index, host)| (host.to_string(), port(index)))
            .collect());
    }
    let named = config.get_hosts().iter().enumerate();
    let over_network = named.filter_map(|(index, host)| match host {
        Host::Tcp(name) => Some((name.clone(), port(index))),
        Host::Unix(_) => None,
    });
    Ok(over_network.collect())
}

fn describe(config: &Config) -> String {
    let ports = config.get_ports();
    let hosts = config.get_hosts().iter().enumerate().map(|(index, host)| {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(path) => format!("{} (port {port})", path.display()),
        }
    });
    let all: Vec<_> = hosts.collect();
    if all.is_empty() {
        "localhost".into()
    } else {
        all.join(", ")
    }
}
