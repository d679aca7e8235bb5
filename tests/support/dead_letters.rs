//! Puts dead letters into the queue, as workers and the broker write them.

use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use lapin::{BasicProperties, Confirmation};
use serde_json::{Value, json};
use uuid::Uuid;

use super::TestEnv;

/// A letter to be put into the queue.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    pub body: Vec<u8>,
    pub message_id: Option<String>,
    pub client: String,
    pub reason: String,
    pub age_secs: i64,
}

impl DeadLetter {
    pub fn new(account: Uuid, usage: Uuid, amount: i64) -> Self {
        let body = json!({"billing_id": account, "usage_id": usage, "amount": amount});
        Self::of(body.to_string().as_bytes())
    }

    pub fn of(body: &[u8]) -> Self {
        Self {
            body: body.to_vec(),
            message_id: Some(Uuid::new_v4().to_string()),
            client: "render".into(),
            reason: "RETRIES_EXHAUSTED".into(),
            age_secs: 60,
        }
    }

    pub fn id(self, message_id: &str) -> Self {
        let message_id = Some(message_id.to_owned());
        Self { message_id, ..self }
    }

    pub fn client(self, client: &str) -> Self {
        let client = client.into();
        Self { client, ..self }
    }

    pub fn reason(self, reason: &str) -> Self {
        let reason = reason.into();
        Self { reason, ..self }
    }

    pub fn age(self, age_secs: i64) -> Self {
        Self { age_secs, ..self }
    }

    fn properties(&self, user: &str) -> BasicProperties {
        let since = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(self.age_secs);
        let text = |text: &str| AMQPValue::LongString(text.into());
        let mut headers = FieldTable::default();
        headers
            .insert("x-client".into(), text(&self.client))
            .insert("x-error-code".into(), AMQPValue::LongInt(13))
            .insert("x-error-reason".into(), text(&self.reason))
            .insert("x-error-message".into(), text("it broke"))
            .insert("x-attempts".into(), AMQPValue::LongLongInt(4))
            .insert("x-first-attempt-at".into(), text(&since.to_string()))
            .insert("x-kept".into(), text("kept"));
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_headers(headers)
            .with_expiration("86400000".into())
            .with_user_id(user.into());
        match &self.message_id {
            Some(id) => properties
                .with_message_id(id.as_str().into())
                .with_correlation_id(id.as_str().into()),
            None => properties,
        }
    }
}

impl TestEnv {
    /// Puts letters into the dead-letter queue, as a worker under the environment's login would
    /// have.
    pub async fn put_dead_letters(&self, letters: &[DeadLetter]) {
        let user = self.login();
        for window in letters.chunks(500) {
            let mut confirms = Vec::new();
            for letter in window {
                let queue = self.name("dead");
                let publishing = self.channel.basic_publish(
                    "".into(),
                    queue.as_str().into(),
                    BasicPublishOptions::default(),
                    &letter.body,
                    letter.properties(&user),
                );
                confirms.push(publishing.await.expect("written"));
            }
            for confirm in confirms {
                assert_eq!(confirm.await.expect("confirmed"), Confirmation::Ack(None));
            }
        }
    }

    /// A letter that the broker would have written for that reason, of a client that it
    /// authenticated.
    pub async fn put_broker_dead_letter(
        &self,
        reason: &str,
        message_id: &str,
        body: &Value,
        user: Option<&str>,
    ) {
        let mut death = FieldTable::default();
        death
            .insert("reason".into(), AMQPValue::LongString(reason.into()))
            .insert("queue".into(), AMQPValue::LongString("work".into()))
            .insert("count".into(), AMQPValue::LongLongInt(1))
            .insert("time".into(), AMQPValue::Timestamp(1_700_000_000));
        let deaths = FieldArray::from(vec![AMQPValue::FieldTable(death)]);
        let mut headers = FieldTable::default();
        headers
            .insert("x-death".into(), AMQPValue::FieldArray(deaths))
            // A header that a publisher forged before the broker dead-lettered the message.
            .insert(
                "x-error-reason".into(),
                AMQPValue::LongString("MALFORMED_REQUEST".into()),
            );
        let mut properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_message_id(message_id.into())
            .with_correlation_id(message_id.into())
            .with_headers(headers);
        if let Some(user) = user {
            properties = properties.with_user_id(user.into());
        }
        let (queue, body) = (self.name("dead"), body.to_string());
        let publishing = self.channel.basic_publish(
            "".into(),
            queue.as_str().into(),
            BasicPublishOptions::default(),
            body.as_bytes(),
            properties,
        );
        let confirm = publishing.await.expect("written").await;
        assert_eq!(confirm.expect("confirmed"), Confirmation::Ack(None));
    }
}
