'use strict';
// Groups: the requests of a message, and the messages for the events of a batch.

const { createHash } = require('crypto');
const { read } = require('./request');

const EVENT = 'application/cloudevents+json';
const BATCH = 'application/cloudevents-batch+json';
const BATCH_MAX_BYTES = 256 * 1024;

/** The requests of a message: one, or those of its group. Null if it or one of them is malformed. */
function parse(message) {
  let body;
  try {
    body = JSON.parse(message.content);
  } catch {
    return null;
  }
  if (body === null || typeof body !== 'object') return null;
  const { messageId, correlationId } = message.properties;
  if (body.requests === undefined) {
    const request = read(body, body, messageId, correlationId || messageId);
    return request && [request];
  }
  if (!Array.isArray(body.requests) || body.requests.length === 0 || !messageId) return null;
  const group = { id: messageId, size: body.requests.length };
  const requests = [];
  for (const [index, fields] of body.requests.entries()) {
    if (fields === null || typeof fields !== 'object') return null;
    const id = fields.request_id ?? `${messageId}/${index}`;
    const request = read(fields, body, id, correlationId || messageId);
    if (request === null) return null;
    request.group = group;
    requests.push(request);
  }
  return requests;
}

/**
 * The messages for the events: one for each event of a single request, and one for the events of a
 * group with the same routing key. A null instead of an event has none.
 */
function outgoing(entries, events) {
  const timestamp = Math.floor(Date.now() / 1000);
  const single = (event, { correlationId }) => ({
    key: event.key,
    body: event.body,
    options: {
      persistent: true,
      mandatory: true,
      contentType: EVENT,
      messageId: event.id,
      correlationId,
      type: event.type,
      timestamp,
      appId: 'peer',
    },
  });
  const messages = [];
  const batches = new Map(); // of each group: its last batch of each routing key
  for (const [index, event] of events.entries()) {
    if (event === null) continue;
    const { request, message } = entries[index];
    if (!request.group) {
      messages.push(single(event, request));
      continue;
    }
    let ofGroup = batches.get(message);
    if (!ofGroup) batches.set(message, (ofGroup = new Map()));
    let batch = ofGroup.get(event.key);
    const bytes = Buffer.byteLength(event.body) + 1;
    if (!batch || batch.bytes + bytes > BATCH_MAX_BYTES) {
      batch = { key: event.key, request, bytes: 1, ids: [], bodies: [] };
      ofGroup.set(event.key, batch);
      messages.push(batch);
    }
    batch.bytes += bytes;
    batch.ids.push(event.id);
    batch.bodies.push(event.body);
  }
  const ofBatch = ({ key, request: { group, correlationId }, ids, bodies }) => ({
    key,
    body: `[${bodies.join(',')}]`,
    options: {
      persistent: true,
      mandatory: true,
      contentType: BATCH,
      messageId: createHash('sha1').update(ids.join()).digest('hex'),
      correlationId,
      timestamp,
      appId: 'peer',
      headers: { 'x-group': group.id, 'x-group-size': group.size, 'x-group-count': ids.length },
    },
  });
  return messages.map((message) => (message.bodies ? ofBatch(message) : message));
}

module.exports = { parse, outgoing };
