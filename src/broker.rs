//! RabbitMQ: connections, topology, deliveries in, messages out.
//!
//! Only this module names the AMQP client. It must not know the database, nor the meaning of a
//! message.

mod connection;
mod consume;
mod doctor;
mod error;
mod management;
mod operation;
mod properties;
mod publish;
mod queues;
mod raw;
mod topology;
mod worker_connections;

pub use connection::credentials::Credentials;
pub use connection::unencrypted;
pub use consume::channel::Batch;
pub use consume::consumer::{BatchLimits, Consumer};
pub use consume::delivery::{DeliveredGroup, Delivery};
pub use doctor::{assure, doctor, knows_login};
pub use error::BrokerError;
pub use publish::client_connection::{ClientConnection, ClientConnectionError, OutgoingRequest};
pub use publish::confirm_channel::PublishResult;
pub use publish::login::PublishLogin;
pub use publish::message::{Message, is_direct};
pub use publish::publisher::{Probe, Probing, Publisher};
pub use publish::reply_queue::{Reply, ReplyQueue};
pub use publish::reply_router::{PendingReply, ReplyRouter, RequestResult};
pub use publish::request_client::{RequestClient, RequestPublisher, Submission};
pub use queues::depths::Depths;
pub use queues::queue_reader::QueueReader;
pub use queues::queued_message::{Noted, Origin, QueuedMessage};
pub use queues::rungs::other_rungs;
pub use raw::inbound::{Cut, STACK_BYTES};
pub use worker_connections::Broker;
