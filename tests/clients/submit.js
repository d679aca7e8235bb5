// Asks for a revert and prints its event: submit.js USAGE_ID AMOUNT ORG_ID MESSAGE_ID
const amqp = require('amqplib');

async function main([usageId, amount, orgId, messageId]) {
  const url = new URL(process.env.REVERTD_AMQP__URL);
  const connection = await amqp.connect(url.href);
  const channel = await connection.createConfirmChannel();
  channel.on('return', () => {
    console.error('no queue is bound for requests: has the worker run once?');
    process.exit(1);
  });

  // Direct reply-to: the event comes back on this channel, without a queue.
  const answered = new Promise((resolve, reject) => {
    const late = new Error('no event in time; send the request again with the same message id');
    setTimeout(() => reject(late), 60000).unref();
    channel.consume('amq.rabbitmq.reply-to', (message) => {
      if (message.properties.correlationId === messageId) resolve(message);
    }, { noAck: true });
  });

  const body = Buffer.from(JSON.stringify({ usageId, amount, orgId }));
  channel.publish('usage.reverts', 'revert', body, {
    messageId,
    correlationId: messageId,
    replyTo: 'amq.rabbitmq.reply-to',
    userId: decodeURIComponent(url.username),
    contentType: 'application/json',
    persistent: true,
    mandatory: true,
  });
  await channel.waitForConfirms(); // the broker has it

  const message = await answered;
  console.log(JSON.stringify(JSON.parse(message.content), null, 2));
  await connection.close();
  process.exitCode = message.properties.type === 'usage.reverted' ? 0 : 1;
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exit(1); // an open connection would keep the process alive
});
