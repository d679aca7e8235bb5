'use strict';
// Decides requests and writes the outcomes, in one of three forms with the same answers.

const { Client } = require('pg');
const sql = require('./sql');
const { applied, refused } = require('./request');

// Plans are made once: each look-up goes through an index, also while the tables' statistics are those of
// empty ones. synchronous_commit is named so that no default of the server can weaken it.
const OPTIONS = [
  'synchronous_commit=on', 'TimeZone=UTC', 'plan_cache_mode=force_generic_plan',
  'enable_seqscan=off', 'enable_mergejoin=off', 'jit=off',
].map((option) => `-c ${option}`).join(' ');

async function connect(url, count, cork, onError) {
  const clients = Array.from({ length: count }, () => new Client({
    connectionString: url,
    options: OPTIONS,
    application_name: 'peer',
    pipeline: true,
  }));
  for (const client of clients) {
    client.on('error', onError);
    client.corked = cork;
  }
  await Promise.all(clients.map((client) => client.connect()));
  // Two that start at once must not both create it: IF NOT EXISTS alone does not see to that.
  await clients[0].query(`BEGIN; SELECT pg_advisory_xact_lock(7277); ${sql.TABLE}; COMMIT`);
  return clients;
}

const parameters = (r) => [r.key, r.messageId, r.usageId, r.billingId, r.amount];

// An array's literal. Uuids and numbers need no quotes; pg would quote and escape each.
const plain = (values) => `{${values.join(',')}}`;

const outcome = (request, row) => applied(request, {
  id: row[1], orgId: row[2], amount: request.amount, usageAmount: row[3],
  transactionId: row[4], platformTransactionId: row[5], decidedAt: row[6],
});

/** The event of a request that was not applied just now. */
async function answer(client, request) {
  const { rows: [o] } = await client.query({ name: 'answer', text: sql.ANSWER, values: parameters(request) });
  // The usage came, or another's outcome went, between the two statements.
  if (o.reason === 'AGAIN') throw Object.assign(new Error('neither applied nor refused'), { code: '40001' });
  if (o.reason) {
    return refused(request, { id: o.refusal_id, orgId: o.org_id, decidedAt: o.decided_at, reason: o.reason });
  }
  return applied(request, {
    id: o.id, orgId: o.org_id, amount: o.amount, usageAmount: o.usage_amount,
    transactionId: o.transaction_id, platformTransactionId: o.platform_transaction_id, decidedAt: o.decided_at,
  });
}

/** One transaction a request: look, then write. Each of the two steps is one round trip. */
async function single(client, [request]) {
  let u;
  try {
    [, { rows: [u] }] = await together(client, () => [
      client.query('BEGIN'),
      client.query({ name: 'lookup', text: sql.LOOKUP, values: parameters(request) }),
    ]);
  } catch (error) {
    await client.query('ROLLBACK');
    throw error;
  }
  if (!u) {
    await client.query('ROLLBACK');
    return [await answer(client, request)];
  }
  const { usageId, messageId, billingId, amount } = request;
  const outcomeRow = [u.id, usageId, messageId, billingId, u.org_id, amount, u.usage_amount, u.transaction_id,
    u.platform_transaction_id];
  const legs = [u.transaction_id, billingId, u.platform_transaction_id, u.source, amount, u.description,
    u.metadata, u.user_id];
  try {
    await together(client, () => [
      client.query({ name: 'outcome', text: sql.OUTCOME, values: outcomeRow }),
      client.query({ name: 'legs', text: sql.LEGS, values: legs }),
      // After an error, this rolls back.
      client.query('COMMIT'),
    ]);
  } catch (error) {
    if (error.code !== '23505' || error.table !== 'peer_outcomes') throw error;
    return [await answer(client, request)];
  }
  return [applied(request, {
    id: u.id, orgId: u.org_id, amount, usageAmount: u.usage_amount, transactionId: u.transaction_id,
    platformTransactionId: u.platform_transaction_id, decidedAt: u.decided_at,
  })];
}

// Sends queries without awaiting each, in one write if the client is corked. All have ended when
// this returns. The first failure in their order counts: later queries fail only because the
// transaction has failed.
async function together(client, send) {
  if (client.corked) client.connection.stream.cork();
  const queries = send();
  if (client.corked) client.connection.stream.uncork();
  const results = await Promise.allSettled(queries);
  const failed = results.find((result) => result.status === 'rejected');
  if (failed) throw failed.reason;
  return results.map((result) => result.value);
}

/** One statement a request. */
async function statement(client, [request]) {
  const values = parameters(request);
  const { rows: [row] } = await client.query({
    name: 'apply', text: sql.APPLY_ONE, values, rowMode: 'array', types: AS_TEXT,
  });
  return [row ? outcome(request, row) : await answer(client, request)];
}

/** One statement for many requests, no two of which have the same key. */
async function batched(client, requests) {
  const values = [
    requests.map((r) => r.key),
    requests.map((r) => r.messageId),
    plain(requests.map((r) => r.usageId)),
    plain(requests.map((r) => r.billingId)),
    plain(requests.map((r) => r.amount)),
  ];
  const { rows } = await client.query({
    name: 'apply', text: sql.APPLY_MANY, values, rowMode: 'array', types: AS_TEXT,
  });
  const events = new Array(requests.length);
  for (const row of rows) {
    const at = row[0] - 1;
    events[at] = outcome(requests[at], row);
  }
  if (rows.length < requests.length) {
    for (let at = 0; at < requests.length; at++) events[at] ??= await answer(client, requests[at]);
  }
  return events;
}

const text = (value) => value;
const AS_TEXT = { getTypeParser: () => text };

module.exports = { connect, forms: { single, statement, batched } };
