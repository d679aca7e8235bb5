//! Requests, and how a test publishes them: under the worker's login or under another.

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::AMQPValue;
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use serde_json::{Value, json};
use uuid::Uuid;

use super::TestEnv;
use super::connect::connect_amqp;

impl TestEnv {
    /// Publishes a request under the worker's login, without a `user_id`. It is confirmed and
    /// routed.
    pub async fn publish(&self, request: &Request) {
        publish_on(&self.channel, &self.name("requests"), request).await;
    }

    /// The worker's own login.
    pub fn login(&self) -> String {
        self.connection.status().username()
    }

    /// A publisher under the second login, which sets its `user_id`.
    pub async fn publisher(&self) -> Publisher {
        let url = match &self.servers.publisher {
            Some(url) => url.clone(),
            None => panic!("REVERTD_TEST_PUBLISHER_URL must name a second login on this broker"),
        };
        let connection = connect_amqp(&url).await;
        let channel = connection.create_channel().await.expect("a channel");
        let confirm = ConfirmSelectOptions { nowait: false };
        channel.confirm_select(confirm).await.expect("confirms");
        Publisher {
            user: connection.status().username(),
            exchange: self.name("requests"),
            _connection: connection,
            channel,
        }
    }

    /// Publishes directly to a queue under the worker's login.
    pub async fn publish_to(&self, queue: &str, message: &Request) {
        let options = BasicPublishOptions {
            mandatory: true,
            ..Default::default()
        };
        let properties = message.properties.clone();
        let confirm = self
            .channel
            .basic_publish("".into(), queue.into(), options, &message.body, properties)
            .await
            .expect("written");
        assert_eq!(confirm.await.expect("confirmed"), Confirmation::Ack(None));
    }
}

/// A publisher under the second login.
pub struct Publisher {
    pub user: String,
    pub channel: Channel,
    exchange: String,
    _connection: Connection,
}

impl Publisher {
    /// Publishes with this login as `user_id`.
    pub async fn publish(&self, request: Request) {
        let properties = request
            .properties
            .clone()
            .with_user_id(self.user.as_str().into());
        let request = Request {
            properties,
            ..request
        };
        publish_on(&self.channel, &self.exchange, &request).await;
    }
}

/// A request to be published.
#[derive(Clone, Debug)]
pub struct Request {
    pub body: Vec<u8>,
    pub properties: BasicProperties,
}

impl Request {
    /// A request with that body and a new correlation id.
    pub fn raw(body: impl Into<Vec<u8>>) -> Self {
        let correlation = Uuid::new_v4().to_string();
        Self {
            body: body.into(),
            properties: BasicProperties::default()
                .with_delivery_mode(2)
                .with_correlation_id(correlation.as_str().into()),
        }
    }

    pub fn json(body: &Value) -> Self {
        Self::raw(body.to_string())
    }

    /// A minimal valid request with a new message id.
    pub fn revert(account: Uuid, usage: Uuid, amount: i64) -> Self {
        let body = json!({"billing_id": account, "usage_id": usage, "amount": amount});
        Self::json(&body).id(&Uuid::new_v4().to_string())
    }

    pub fn id(self, message_id: &str) -> Self {
        let properties = self.properties.with_message_id(message_id.into());
        Self { properties, ..self }
    }

    pub fn correlated(self, correlation_id: &str) -> Self {
        let properties = self.properties.with_correlation_id(correlation_id.into());
        Self { properties, ..self }
    }

    pub fn reply_to(self, queue: &str) -> Self {
        let properties = self.properties.with_reply_to(queue.into());
        Self { properties, ..self }
    }

    pub fn header(self, name: &str, value: AMQPValue) -> Self {
        let mut headers = self.properties.headers().clone().unwrap_or_default();
        headers.insert(name.into(), value);
        let properties = self.properties.with_headers(headers);
        Self { properties, ..self }
    }

    /// Turns the retry ladder off: an unknown usage is answered at once.
    pub fn single_attempt(self) -> Self {
        self.header("x-max-attempts", AMQPValue::LongInt(1))
    }

    /// The correlation id, which its events repeat.
    pub fn correlation(&self) -> String {
        self.properties
            .correlation_id()
            .as_ref()
            .expect("each has one")
            .to_string()
    }
}

async fn publish_on(channel: &Channel, exchange: &str, request: &Request) {
    let options = BasicPublishOptions {
        mandatory: true,
        ..Default::default()
    };
    let confirm = channel
        .basic_publish(
            exchange.into(),
            "revert".into(),
            options,
            &request.body,
            request.properties.clone(),
        )
        .await
        .expect("written");
    assert_eq!(confirm.await.expect("confirmed"), Confirmation::Ack(None));
}
