"""Asks for a revert and prints its event: submit_async.py USAGE_ID AMOUNT ORG_ID MESSAGE_ID"""

import asyncio
import json
import os
import sys

import aio_pika


async def main(usage_id, amount, org_id, message_id):
    connection = await aio_pika.connect(os.environ["REVERTD_AMQP__URL"])
    async with connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        exchange = await channel.get_exchange("usage.reverts", ensure=False)

        # A queue named by the broker (amq.gen-...), which goes with this connection.
        reply_to = await channel.declare_queue("", exclusive=True)
        answered = asyncio.get_running_loop().create_future()

        def on_event(event):
            if event.correlation_id == message_id and not answered.done():
                answered.set_result(event)

        await reply_to.consume(on_event, no_ack=True)

        request = aio_pika.Message(
            json.dumps({"usage_id": usage_id, "amount": amount, "org_id": org_id}).encode(),
            message_id=message_id,
            correlation_id=message_id,
            reply_to=reply_to.name,
            user_id=connection.url.user,
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        # Returns once the broker has the request, or raises.
        await exchange.publish(request, routing_key="revert", mandatory=True, timeout=30)

        try:
            event = await asyncio.wait_for(answered, timeout=60)
        except TimeoutError:
            sys.exit("no event in time; send the request again with the same message id")
        print(json.dumps(json.loads(event.body), indent=2))
        return 0 if event.type == "usage.reverted" else 1


sys.exit(asyncio.run(main(*sys.argv[1:5])))
