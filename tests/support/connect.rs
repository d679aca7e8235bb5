//! Connections of a test to the servers.

use lapin::{Connection, ConnectionProperties};
use tokio_postgres::{Client, NoTls};

pub async fn connect_db(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .expect("PostgreSQL");
    tokio::spawn(connection);
    client
}

pub async fn connect_amqp(urls: &str) -> Connection {
    try_connect_amqp(urls).await.expect("RabbitMQ")
}

/// Connects to the first of several addresses, separated by commas, that answers.
pub async fn try_connect_amqp(urls: &str) -> lapin::Result<Connection> {
    let mut failed = None;
    for url in urls.split(',') {
        let properties =
            ConnectionProperties::default().with_connection_name("revertd test".into());
        match Connection::connect(url, properties).await {
            Ok(connection) => return Ok(connection),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.expect("at least one address"))
}

/// The URL with another database.
pub fn with_database(url: &str, database: &str) -> String {
    let mut url = url::Url::parse(url).expect("the tests need database.url as a URL");
    url.set_path(database);
    url.to_string()
}
