//! Contender (a): the throughput of the broker and the client library without a database. Consumes
//! in full batches, publishes an event of the usual size for each message, awaits every confirm,
//! acknowledges.
//!
//! It uses lapin alone and no code of revertd, so that a slower revertd does not slow this
//! contender down.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::try_join_all;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use uuid::Uuid;

/// Bytes of a success event as revertd publishes it for the requests of this benchmark.
const EVENT_BYTES: usize = 612;

const BATCH: usize = 500;

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[arg(long)]
    queue: String,
    #[arg(long)]
    exchange: String,
    /// Channels that consume, and the same number that publish
    #[arg(long, default_value_t = 4)]
    channels: usize,
}

pub async fn run(args: Args) -> Result<()> {
    let url = std::env::var("REVERTD_AMQP__URL").context("REVERTD_AMQP__URL is not set")?;
    let consuming = Connection::connect(&url, ConnectionProperties::default()).await?;
    let publishing = Connection::connect(&url, ConnectionProperties::default()).await?;
    let (consuming, publishing) = (Arc::new(consuming), Arc::new(publishing));
    let mut channels = JoinSet::new();
    for _ in 0..args.channels {
        channels.spawn(work(args.clone(), consuming.clone(), publishing.clone()));
    }
    println!("ready");
    let mut stop = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = channels.join_next() => bail!("a channel ended: {ended:?}"),
        _ = stop.recv() => Ok(()),
    }
}

async fn work(args: Args, consuming: Arc<Connection>, publishing: Arc<Connection>) -> Result<()> {
    let (inlet, outlet) = (
        consuming.create_channel().await?,
        publishing.create_channel().await?,
    );
    outlet
        .confirm_select(ConfirmSelectOptions { nowait: false })
        .await?;
    let prefetch = u16::try_from(2 * BATCH)?;
    inlet
        .basic_qos(prefetch, BasicQosOptions { global: false })
        .await?;
    let (queue, options) = (args.queue.as_str().into(), BasicConsumeOptions::default());
    let mut consumer = inlet
        .basic_consume(queue, "bench".into(), options, FieldTable::default())
        .await?;
    let body = vec![b'x'; EVENT_BYTES];
    // As many routing keys as accounts: the broker caches the last few that it has authorized.
    let keys: Vec<ShortString> = (0..1000)
        .map(|org: u32| {
            let org = Uuid::new_v5(&Uuid::nil(), &org.to_be_bytes());
            format!("result.{org}").into()
        })
        .collect();
    let mandatory = BasicPublishOptions {
        mandatory: true,
        immediate: false,
    };
    while let Some(first) = consumer.next().await {
        let mut batch = vec![first?];
        while batch.len() < BATCH {
            match consumer.next().now_or_never() {
                Some(Some(next)) => batch.push(next?),
                Some(None) => bail!("the consumer was cancelled"),
                None => break,
            }
        }
        let confirms = batch.iter().map(async |delivery| {
            let properties = BasicProperties::default()
                .with_content_type("application/cloudevents+json".into())
                .with_delivery_mode(2)
                .with_message_id("c2a6a0f1-4dcb-5c0f-9d36-9d2a5bfb8f5e".into())
                .with_type("usage.reverted".into())
                .with_timestamp(1_700_000_000)
                .with_app_id("revertd".into())
                .with_correlation_id(delivery.properties.message_id().clone().unwrap_or_default());
            let key = &keys[usize::try_from(delivery.delivery_tag).unwrap_or(0) % keys.len()];
            let exchange = args.exchange.as_str().into();
            let publishing =
                outlet.basic_publish(exchange, key.clone(), mandatory, &body, properties);
            publishing.await
        });
        for confirm in try_join_all(confirms).await? {
            ensure!(confirm.await?.is_ack(), "the broker refused an event");
        }
        if let Some(last) = batch.last() {
            inlet
                .basic_ack(last.delivery_tag, BasicAckOptions { multiple: true })
                .await?;
        }
    }
    bail!("the consumer ended")
}
