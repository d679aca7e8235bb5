'use strict';
// From delivery to acknowledgement: takes ready messages, has them decided, publishes the events,
// and acknowledges once the broker has confirmed them.

const { parse, outgoing } = require('./group');

// SQLSTATE classes. A request's own fault: its data, or a constraint. Passing: a serialization failure or a
// deadlock. Everything else is the database's, and ends the worker.
const OWN_FAULT = /^2[23]/;
const PASSING = /^40/;
const ATTEMPTS = 5;

class Flow {
  /** `decide(client, requests)` gives an event for each request; `fail(error)` ends the worker; `socket` is null, or the publisher's, to be corked. */
  constructor({ channel, publisher, socket, exchange, clients, decide, batchMax, fail }) {
    Object.assign(this, { channel, publisher, socket, exchange, decide, batchMax, fail });
    this.waiting = [];
    this.rejected = new WeakSet();
    this.idle = [...clients];
    // In the order of their deliveries, in which they are acknowledged: one acknowledgement each, or fewer.
    this.batches = [];
    this.scheduled = false;
    this.onDrained = null;
  }

  /** A delivery. What one turn of the event loop brings is taken together. */
  take(message) {
    this.waiting.push(message);
    this.schedule();
  }

  /** Resolves once everything in hand is acknowledged. */
  drained() {
    return new Promise((resolve) => {
      this.onDrained = resolve;
      this.settle();
    });
  }

  schedule() {
    if (this.scheduled || this.idle.length === 0 || this.waiting.length === 0) return;
    this.scheduled = true;
    setImmediate(() => {
      this.scheduled = false;
      while (this.idle.length > 0 && this.waiting.length > 0) {
        this.run(this.idle.pop(), this.waiting.splice(0, this.batchMax)).catch(this.fail);
      }
    });
  }

  async run(client, messages) {
    const batch = { last: messages[messages.length - 1], done: false };
    this.batches.push(batch);
    const keys = new Set();
    const entries = [];
    const again = []; // whose key this batch has already: decided after it, from its outcome
    for (const message of messages) {
      const requests = parse(message);
      if (requests === null) this.reject(message);
      for (const request of requests ?? []) {
        if (keys.has(request.key)) again.push({ message, request });
        else {
          keys.add(request.key);
          entries.push({ message, request });
        }
      }
    }
    const events = await this.decideAll(client, entries);
    for (const entry of again) {
      entries.push(entry);
      events.push(await this.decideOne(client, entry));
    }
    // The database has its next batch while the broker confirms this one.
    this.idle.push(client);
    this.schedule();
    await this.publish(entries, events);
    batch.done = true;
    // On the next turn, so that one acknowledgement covers all batches that have ended by then.
    setImmediate(() => this.settle());
  }

  async decideAll(client, entries) {
    if (entries.length === 0) return [];
    try {
      return await this.decide(client, entries.map((entry) => entry.request));
    } catch (error) {
      if (!OWN_FAULT.test(error.code) && !PASSING.test(error.code)) throw error;
    }
    // One of them spoils it for the rest.
    const events = [];
    for (const entry of entries) events.push(await this.decideOne(client, entry));
    return events;
  }

  /** The request's event; null if it was dead-lettered. */
  async decideOne(client, { message, request }) {
    for (let attempt = 1; ; attempt++) {
      try {
        return (await this.decide(client, [request]))[0];
      } catch (error) {
        if (PASSING.test(error.code) && attempt < ATTEMPTS) continue;
        if (!OWN_FAULT.test(error.code) && !PASSING.test(error.code)) throw error;
        this.reject(message);
        return null;
      }
    }
  }

  /** Dead-letters a message; once, also if several requests of its group fail. */
  reject(message) {
    if (this.rejected.has(message)) return;
    this.rejected.add(message);
    this.channel.reject(message, false);
  }

  /** Resolves once the broker has confirmed every one. */
  publish(entries, events) {
    return new Promise((resolve, reject) => {
      // Left alone, amqplib gives the socket each message by itself, on the next turn of the event loop: a
      // system call and a packet each. Held back until it has, they go together.
      if (this.socket) {
        this.socket.cork();
        setImmediate(() => setImmediate(() => this.socket.uncork()));
      }
      let left = 1;
      const confirmed = (error) => {
        if (error) reject(error);
        else if (--left === 0) resolve();
      };
      for (const { key, body, options } of outgoing(entries, events)) {
        left++;
        this.publisher.publish(this.exchange, key, Buffer.from(body), options, confirmed);
      }
      confirmed(null);
    });
  }

  /** Acknowledges the batches that are done and have none before them that is not. */
  settle() {
    let last = null;
    while (this.batches.length > 0 && this.batches[0].done) last = this.batches.shift().last;
    if (last !== null) this.channel.ack(last, true);
    if (this.onDrained && this.batches.length === 0 && this.waiting.length === 0) this.onDrained();
  }
}

module.exports = { Flow };
