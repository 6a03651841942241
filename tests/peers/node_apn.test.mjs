// @parse/node-apn sends through the emulated APNs and understands what it says.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import apn from '@parse/node-apn';

const manifest = JSON.parse(readFileSync(join(process.env.SEALPOST_EMULATORS, 'emulators.json'), 'utf8'));
const topic = manifest.apns.topics[0];
const DIED_MS = 1_700_000_000_123;
let provider;

async function control(method, path, body) {
  const answer = await fetch(manifest.control_url + path, { method, body: body && JSON.stringify(body) });
  assert.equal(answer.status, 200, `${method} ${path}`);
  return answer.json();
}

const choose = outcome => control('POST', '/outcomes', { provider: 'apns', count: 1, ...outcome });

function connect(keyId) {
  return new apn.Provider({
    token: { key: manifest.apns.key_file, keyId, teamId: manifest.apns.team_id },
    address: 'localhost',
    port: manifest.apns.port,
    ca: [manifest.ca_file],
    // Otherwise it repeats what came with 429 and 5xx by itself.
    connectionRetryLimit: 0,
  });
}

function notification(more) {
  return new apn.Notification({ topic, pushType: 'alert', alert: 'New message', mutableContent: 1, ...more });
}

async function accepted(token, more) {
  const { sent, failed } = await provider.send(notification(more), token);
  assert.deepEqual(failed, []);
  return sent[0];
}

async function refused(token) {
  const { sent, failed } = await provider.send(notification(), token);
  assert.deepEqual(sent, []);
  return failed[0];
}

before(() => {
  provider = connect(manifest.apns.key_id);
});

after(() => provider.shutdown());

test('a push is accepted and recorded as it was sent', async () => {
  const id = '6fa0c2f0-2f0e-4d3c-9a53-0c1c5f1a7b11';
  const token = 'b1'.repeat(32);
  const expiry = Math.floor(Date.now() / 1000) + 3600;
  const answer = await accepted(token, { id, expiry, priority: 5, collapseId: 'inbox' });
  assert.deepEqual(answer, { device: token, 'apns-id': id });
  const { pushes } = await control('GET', `/pushes?token=${token}`);
  assert.equal(pushes.length, 1);
  assert.equal(pushes[0].status, 200);
  assert.deepEqual(pushes[0].headers, {
    'apns-id': id,
    'apns-topic': topic,
    'apns-push-type': 'alert',
    'apns-priority': '5',
    'apns-expiration': String(expiry),
    'apns-collapse-id': 'inbox',
  });
  assert.deepEqual(JSON.parse(Buffer.from(pushes[0].body, 'base64')), {
    aps: { alert: 'New message', 'mutable-content': 1 },
  });
});

test('an id is made up when none is given', async () => {
  const answer = await accepted('b2'.repeat(32));
  assert.match(answer['apns-id'], /^[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}$/);
});

test('refusals are understood', async () => {
  const bad = await refused('nothing-of-apple');
  assert.deepEqual([bad.status, bad.response], [400, { reason: 'BadDeviceToken' }]);

  const token = 'b3'.repeat(32);
  await control('POST', '/dead', { provider: 'apns', token, timestamp_ms: DIED_MS });
  const gone = await refused(token);
  assert.deepEqual([gone.status, gone.response], [410, { reason: 'Unregistered', timestamp: DIED_MS }]);

  for (const [status, reason] of [
    [400, 'DeviceTokenNotForTopic'],
    [403, 'Forbidden'],
    [413, 'PayloadTooLarge'],
    [429, 'TooManyRequests'],
    [429, 'TooManyProviderTokenUpdates'],
    [503, 'ServiceUnavailable'],
  ]) {
    await choose({ status, reason });
    const answer = await refused('b4'.repeat(32));
    assert.deepEqual([answer.status, answer.response], [status, { reason }]);
  }
});

test('a topic of somebody else is refused', async () => {
  const { failed } = await provider.send(notification({ topic: 'org.example.other' }), 'b5'.repeat(32));
  assert.deepEqual([failed[0].status, failed[0].response], [400, { reason: 'TopicDisallowed' }]);
});

test('a key that APNs does not know is refused', async () => {
  const stranger = connect('OTHERKEY01');
  const { failed } = await stranger.send(notification(), 'b5'.repeat(32));
  await stranger.shutdown();
  assert.deepEqual([failed[0].status, failed[0].response], [403, { reason: 'InvalidProviderToken' }]);
});

test('many pushes are sent at once', async () => {
  const { sent, failed } = await provider.send(notification(), Array(200).fill('b6'.repeat(32)));
  assert.deepEqual([sent.length, failed], [200, []]);
});

test('after a GOAWAY it connects again', async () => {
  const token = 'b7'.repeat(32);
  await accepted(token);
  const { connections } = await control('POST', '/goaway', { provider: 'apns' });
  assert.ok(connections >= 1);
  // It closes its connection when it has read the GOAWAY.
  while ((await control('GET', '/counts')).apns.connections_open > 0) {
    await new Promise(resolve => setTimeout(resolve, 10));
  }
  await accepted(token);
});
