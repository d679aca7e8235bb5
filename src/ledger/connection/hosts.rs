//! Connects to the first usable server of several, with a time limit for each.
//!
//! The client alone would wait for a server that accepts a connection and does not answer until the
//! whole time is used up. With a limit for each, an unresponsive primary does not block failover.

use std::time::Duration;

use deadpool_postgres::Connect;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, Connection, Error, Socket};

use super::encryption::{Encryption, Stream};

/// Time limit of connecting. All servers together share it.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects with [`connect`], for the pool.
pub struct Hosts(pub Encryption);

impl Connect for Hosts {
    fn connect(&self, config: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        let config = config.clone();
        async move {
            let (client, connection) = connect(&config, &self.0).await?;
            // The task ends with the client. Its errors reach the caller that waits for an answer.
            let driving = tokio::spawn(async move {
                let _ = connection.await;
            });
            Ok((client, driving))
        }
        .boxed()
    }
}

/// Connects to the first server that answers and has the required session attributes. The caller
/// limits the total time.
pub async fn connect(
    config: &Config,
    encryption: &Encryption,
) -> Result<(Client, Connection<Socket, Stream>), Error> {
    let hosts = config.get_hosts();
    let Some((last, others)) = hosts.split_last().filter(|(_, others)| !others.is_empty()) else {
        return config.connect(encryption.clone()).await;
    };
    let share = CONNECT_TIMEOUT / u32::try_from(hosts.len()).unwrap_or(u32::MAX);
    for (index, host) in others.iter().enumerate() {
        let one = only(config, index, host);
        if let Ok(Ok(connected)) = timeout(share, one.connect(encryption.clone())).await {
            return Ok(connected);
        }
    }
    let one = only(config, others.len(), last);
    one.connect(encryption.clone()).await
}

/// The configuration reduced to one of its servers.
fn only(config: &Config, index: usize, host: &Host) -> Config {
    let mut one = Config::new();
    match host {
        Host::Tcp(name) => one.host(name),
        Host::Unix(path) => one.host_path(path),
    };
    if let Some(address) = config.get_hostaddrs().get(index) {
        one.hostaddr(*address);
    }
    let ports = config.get_ports();
    if let Some(port) = ports.get(index).or(ports.first()) {
        one.port(*port);
    }
    if let Some(user) = config.get_user() {
        one.user(user);
    }
    if let Some(password) = config.get_password() {
        one.password(password);
    }
    if let Some(name) = config.get_dbname() {
        one.dbname(name);
    }
    if let Some(options) = config.get_options() {
        one.options(options);
    }
    if let Some(name) = config.get_application_name() {
        one.application_name(name);
    }
    if let Some(time) = config.get_connect_timeout() {
        one.connect_timeout(*time);
    }
    if let Some(time) = config.get_tcp_user_timeout() {
        one.tcp_user_timeout(*time);
    }
    if let Some(interval) = config.get_keepalives_interval() {
        one.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        one.keepalives_retries(retries);
    }
    one.keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .channel_binding(config.get_channel_binding())
        .target_session_attrs(config.get_target_session_attrs());
    one
}
