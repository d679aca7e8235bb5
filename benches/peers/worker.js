'use strict';
// A revert worker in Node.js, as fast as amqplib and pg allow: the yardstick that revertd is compared to. It
// takes revert requests from a quorum queue, writes both legs of the reversing entry and an outcome in one
// transaction, publishes the event with a confirm, and then acknowledges.
//
// PEER_MODE: `single` (a transaction a message), `statement` (a statement a message) or `batched`
// (PEER_BATCH messages a statement). A message may have the requests of a group.
// PEER_CORK=1 holds back small writes, so that those of one turn go out together. It reaches into the sockets of
// both clients, which offer nothing of the kind themselves.

const amqp = require('amqplib');
const { connect, forms } = require('./ledger');
const { Flow } = require('./flow');

// Found by measuring: connections to the database, and messages in hand.
const DEFAULTS = {
  single: { concurrency: 32, batch: 1 },
  statement: { concurrency: 32, batch: 1 },
  batched: { concurrency: 3, batch: 200 },
};

function settings(env) {
  const required = (name) => env[name] || fail(`${name} is not set`);
  const number = (name, otherwise) => {
    const value = env[name] === undefined || env[name] === '' ? otherwise : Number(env[name]);
    return Number.isInteger(value) && value > 0 ? value : fail(`${name} must be a number above 0`);
  };
  const mode = env.PEER_MODE || 'batched';
  const defaults = DEFAULTS[mode] || fail(`PEER_MODE must be one of ${Object.keys(DEFAULTS).join(', ')}`);
  const batchMax = mode === 'batched' ? number('PEER_BATCH', defaults.batch) : 1;
  const concurrency = number('PEER_CONCURRENCY', defaults.concurrency);
  return {
    mode,
    batchMax,
    concurrency,
    // As much as is being decided, as much as is being confirmed, and as much on its way.
    prefetch: number('PEER_PREFETCH', Math.min(65535, 4 * batchMax * concurrency)),
    database: required('REVERTD_DATABASE__URL'),
    broker: required('REVERTD_AMQP__URL'),
    cork: env.PEER_CORK === '1',
    queue: required('PEER_QUEUE'),
    exchange: required('PEER_REPLY_EXCHANGE'),
  };
}

function fail(error) {
  console.error(`peer: ${error.message || error.code || error}`);
  process.exit(1);
}

async function main() {
  const { mode, batchMax, concurrency, prefetch, database, broker, cork, queue, exchange } = settings(process.env);
  const [clients, ...connections] = await Promise.all([
    connect(database, concurrency, cork, fail),
    // A connection of its own: a broker that slows publishers down must not delay acknowledgements.
    amqp.connect(broker, { noDelay: true }),
    amqp.connect(broker, { noDelay: true, writableHighWaterMark: 1 << 20 }),
  ]);
  const channel = await connections[0].createChannel();
  const publisher = await connections[1].createConfirmChannel();
  let stopping = false;
  for (const part of [...connections, channel, publisher]) {
    part.on('error', fail);
    part.on('close', () => { if (!stopping) fail('the broker closed the connection'); });
  }
  const socket = cork ? connections[1].connection.stream : null;
  const flow = new Flow({ channel, publisher, socket, exchange, clients, decide: forms[mode], batchMax, fail });
  await channel.prefetch(prefetch);
  const { consumerTag } = await channel.consume(queue, (message) => {
    if (message === null) fail('the queue is gone');
    flow.take(message);
  });

  process.once('SIGTERM', async () => {
    await channel.cancel(consumerTag);
    await flow.drained();
    stopping = true;
    // Closing the channel is answered after the acknowledgements on it.
    await channel.close();
    await Promise.all(connections.map((connection) => connection.close()));
    await Promise.all(clients.map((client) => client.end()));
    process.exit(0);
  });
  console.log('ready');
}

main().catch(fail);
