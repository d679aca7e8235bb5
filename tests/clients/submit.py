"""Asks for a revert and prints its event: submit.py USAGE_ID AMOUNT ORG_ID MESSAGE_ID"""

import json
import os
import sys

import pika

usage_id, amount, org_id, message_id = sys.argv[1:5]
parameters = pika.URLParameters(os.environ["REVERTD_AMQP__URL"])
connection = pika.BlockingConnection(parameters)
channel = connection.channel()
channel.confirm_delivery()  # publish() returns once the broker has the request, or raises

# A queue named by the broker (amq.gen-...), which goes with this connection.
reply_to = channel.queue_declare("", exclusive=True).method.queue

channel.basic_publish(
    exchange="usage.reverts",
    routing_key="revert",
    body=json.dumps({"usage_id": usage_id, "amount": amount, "org_id": org_id}),
    properties=pika.BasicProperties(
        message_id=message_id,
        correlation_id=message_id,
        reply_to=reply_to,
        user_id=parameters.credentials.username,
        content_type="application/json",
        delivery_mode=pika.DeliveryMode.Persistent,
    ),
    mandatory=True,
)

for method, properties, body in channel.consume(reply_to, auto_ack=True, inactivity_timeout=60):
    if method is None:
        sys.exit("no event in time; send the request again with the same message id")
    if properties.correlation_id == message_id:
        print(json.dumps(json.loads(body), indent=2))
        break
connection.close()
sys.exit(0 if properties.type == "usage.reverted" else 1)
