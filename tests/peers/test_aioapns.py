"""aioapns sends through the emulated APNs and understands what it says."""

import asyncio
import logging
import os
import pathlib
import ssl
import time
import unittest
import uuid

import aioapns
from aioapns.connection import APNsProductionClientProtocol
from emulators import Control

DIED_MS = 1_700_000_000_123
EXPIRES_IN_S = 3600


class Aioapns(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        asyncio.get_running_loop().set_debug(False)
        logging.getLogger("aioapns").setLevel(logging.ERROR)
        self.control = Control(pathlib.Path(os.environ["SEALPOST_EMULATORS"]))
        self.client = self.client_of_key(self.control.manifest["apns"]["key_id"])
        self.addCleanup(lambda: self.client.pool.close())

    def client_of_key(self, key_id: str) -> aioapns.APNs:
        manifest = self.control.manifest
        apns = manifest["apns"]

        class Emulated(APNsProductionClientProtocol):
            APNS_SERVER = "localhost"
            APNS_PORT = apns["port"]

        client = aioapns.APNs(
            key=pathlib.Path(apns["key_file"]).read_text(),
            key_id=key_id,
            team_id=apns["team_id"],
            topic=apns["topics"][0],
            ssl_context=ssl.create_default_context(cafile=manifest["ca_file"]),
            err_func=lambda *_: asyncio.sleep(0),
        )
        client.pool.protocol_class = Emulated
        return client

    def request(self, token: str, **more) -> aioapns.NotificationRequest:
        message = {"aps": {"alert": "New message", "mutable-content": 1}}
        return aioapns.NotificationRequest(token, message, push_type=aioapns.PushType.ALERT, **more)

    async def refused(self, token: str) -> tuple:
        answer = await self.client.send_notification(self.request(token))
        self.assertFalse(answer.is_successful)
        return answer.status, answer.description, answer.timestamp

    async def test_a_push_is_accepted_and_recorded_as_it_was_sent(self):
        sent_at = int(time.time())
        push_id = str(uuid.uuid4())
        request = self.request(
            "a1" * 32, notification_id=push_id, time_to_live=EXPIRES_IN_S, priority=5, collapse_key="inbox"
        )
        answer = await self.client.send_notification(request)
        self.assertTrue(answer.is_successful)
        self.assertEqual(answer.notification_id, push_id)
        (push,) = self.control.pushes("a1" * 32)
        expiration = int(push["headers"].pop("apns-expiration"))
        self.assertTrue(sent_at + EXPIRES_IN_S <= expiration <= time.time() + EXPIRES_IN_S)
        self.assertEqual(push["headers"], {
            "apns-id": push_id,
            "apns-topic": self.control.manifest["apns"]["topics"][0],
            "apns-push-type": "alert",
            "apns-priority": "5",
            "apns-collapse-id": "inbox",
        })
        self.assertEqual((push["status"], push["body"]), (200, request.message))

    async def test_refusals_are_understood(self):
        self.assertEqual(await self.refused("nothing-of-apple"), ("400", "BadDeviceToken", None))
        self.control.kill("apns", "a2" * 32, DIED_MS)
        self.assertEqual(await self.refused("a2" * 32), ("410", "Unregistered", DIED_MS))
        self.control.choose(provider="apns", status=410, reason="ExpiredToken", timestamp_ms=DIED_MS)
        self.assertEqual(await self.refused("a3" * 32), ("410", "ExpiredToken", DIED_MS))
        for status, reason in [
            (429, "TooManyRequests"),
            (429, "TooManyProviderTokenUpdates"),
            (403, "ExpiredProviderToken"),
            (413, "PayloadTooLarge"),
            (500, "InternalServerError"),
            (503, "ServiceUnavailable"),
        ]:
            self.control.choose(provider="apns", status=status, reason=reason)
            self.assertEqual(await self.refused("a4" * 32), (str(status), reason, None))

    async def test_a_key_that_apns_does_not_know_is_refused(self):
        self.client = self.client_of_key("OTHERKEY01")
        self.assertEqual(await self.refused("a5" * 32), ("403", "InvalidProviderToken", None))

    async def test_many_pushes_are_sent_at_once(self):
        sends = [self.client.send_notification(self.request("a6" * 32)) for _ in range(200)]
        answers = await asyncio.gather(*sends)
        self.assertTrue(all(answer.is_successful for answer in answers))
        self.assertEqual(len(self.control.pushes("a6" * 32)), 200)

    async def test_after_a_goaway_it_connects_again(self):
        self.assertTrue((await self.client.send_notification(self.request("a7" * 32))).is_successful)
        self.assertGreaterEqual(self.control.goaway("apns"), 1)
        while self.client.pool.connections:
            await asyncio.sleep(0.01)
        self.assertTrue((await self.client.send_notification(self.request("a7" * 32))).is_successful)


if __name__ == "__main__":
    unittest.main()
