'use strict';
// The fields of a request, and the event that answers it.

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const AMOUNT = /^[1-9][0-9]{0,18}$/;
const MAX_AMOUNT = 9223372036854775807n;

/** The request of these fields, or null if they break a rule. `shared` has a group's account. */
function read(fields, shared, messageId, correlationId) {
  const usageId = fields.usage_id;
  const billingId = fields.billing_id ?? shared.billing_id;
  const amount = typeof fields.amount === 'number' ? String(fields.amount) : fields.amount;
  if (typeof usageId !== 'string' || !UUID.test(usageId)) return null;
  if (typeof billingId !== 'string' || !UUID.test(billingId)) return null;
  if (typeof amount !== 'string' || !AMOUNT.test(amount)) return null;
  if (amount.length === 19 && BigInt(amount) > MAX_AMOUNT) return null;
  const usage = usageId.toLowerCase();
  return {
    // Without a message id, the content is the identity.
    key: messageId || `${usage}:${amount}`,
    messageId,
    correlationId,
    usageId: usage,
    billingId: billingId.toLowerCase(),
    amount,
  };
}

// PostgreSQL's text of a timestamptz in UTC, as RFC 3339. All of a batch have the same.
let lastTime = '';
let lastTimeText = '';
function rfc3339(time) {
  if (time !== lastTime) {
    lastTime = time;
    lastTimeText = time.replace(' ', 'T').replace('+00', 'Z');
  }
  return lastTimeText;
}

// Only the request's id needs escaping: the other fields are UUIDs, numbers and times. The text is
// written out, because JSON.stringify of the nested object takes three times as long.
function head(request, type, id, time) {
  return (
    `{"specversion":"1.0","id":"${id}","source":"peer","type":"${type}","subject":"${request.usageId}",` +
    `"time":"${rfc3339(time)}","datacontenttype":"application/json","data":{` +
    (request.messageId ? `"request_id":${JSON.stringify(request.messageId)},` : '') +
    `"usage_id":"${request.usageId}",`
  );
}

/** The event of an outcome: routing key, type, id and body. */
function applied(request, o) {
  const remaining = o.amount === o.usageAmount ? '0' : String(BigInt(o.usageAmount) - BigInt(o.amount));
  return {
    key: `result.${o.orgId}`,
    type: 'usage.reverted',
    id: o.id,
    body: head(request, 'usage.reverted', o.id, o.decidedAt) +
      `"org_id":"${o.orgId}","billing_id":"${request.billingId}","amount":"${o.amount}",` +
      `"transaction_id":"${o.transactionId}","platform_transaction_id":"${o.platformTransactionId}",` +
      `"usage_amount":"${o.usageAmount}","reverted_total":"${o.amount}","remaining":"${remaining}"}}`,
  };
}

const STATUS = {
  USAGE_NOT_FOUND: [5, 'no such usage in that account'],
  ALREADY_REVERTED: [6, 'the usage was already reverted'],
  AMOUNT_EXCEEDS_USAGE: [3, 'the amount is greater than the usage'],
  REQUEST_ID_REUSED: [3, 'this request id came before with other content'],
};

/** The event of a request that is refused. */
function refused(request, { id, orgId, decidedAt, reason }) {
  const [code, message] = STATUS[reason];
  const details = [
    { '@type': 'type.googleapis.com/google.rpc.ErrorInfo', reason, domain: 'peer', metadata: {} },
  ];
  return {
    key: `error.${orgId ?? 'unknown'}`,
    type: 'usage.revert.rejected',
    id,
    body: head(request, 'usage.revert.rejected', id, decidedAt) +
      (orgId ? `"org_id":"${orgId}",` : '') +
      `"billing_id":"${request.billingId}","amount":"${request.amount}",` +
      `"error":${JSON.stringify({ code, message, details })}}}`,
  };
}

module.exports = { read, applied, refused };
