"""async-firebase fetches an access token from the emulated endpoint, sends through the emulated FCM, and
understands what it says."""

import asyncio
import json
import os
import pathlib
import unittest

from async_firebase import AsyncFirebaseClient, _credentials, errors
from async_firebase.messages import AndroidConfig, Message
from emulators import Control

FCM_ERROR = {
    (400, "INVALID_ARGUMENT"): errors.InvalidArgumentError,
    (401, "THIRD_PARTY_AUTH_ERROR"): errors.ThirdPartyAuthError,
    (403, "SENDER_ID_MISMATCH"): errors.SenderIdMismatchError,
    (404, "UNREGISTERED"): errors.UnregisteredError,
    (429, "QUOTA_EXCEEDED"): errors.QuotaExceededError,
    (500, "INTERNAL"): errors.InternalError,
    (503, "UNAVAILABLE"): errors.UnavailableError,
}


class AsyncFirebase(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        asyncio.get_running_loop().set_debug(False)
        self.control = Control(pathlib.Path(os.environ["SEALPOST_EMULATORS"]))
        # What the library's connections trust.
        os.environ["SSL_CERT_FILE"] = self.control.manifest["ca_file"]
        self.client = self.new_client(use_http2=True)

    def new_client(self, **options) -> AsyncFirebaseClient:
        fcm = self.control.manifest["fcm"]
        account = json.loads(pathlib.Path(fcm["service_account_file"]).read_text())
        # The library has both addresses built in.
        _credentials.TOKEN_URL = account["token_uri"]
        client = AsyncFirebaseClient(**options)
        client.BASE_URL = fcm["url"]
        client.creds_from_service_account_info(account)
        self.addAsyncCleanup(client.close)
        return client

    async def refused(self, token: str) -> errors.AsyncFirebaseError:
        response = await self.client.send(Message(token=token, data={"wake": "1"}))
        self.assertFalse(response.success)
        return response.exception

    async def test_a_push_is_accepted_and_recorded_as_it_was_sent(self):
        for name, use_http2 in [("f1", True), ("f2", False)]:
            self.client = self.new_client(use_http2=use_http2)
            android = AndroidConfig.build(priority="high", ttl=3600, collapse_key="inbox")
            response = await self.client.send(Message(token=name, data={"wake": "1"}, android=android))
            self.assertTrue(response.success, response.exception)
            project = self.control.manifest["fcm"]["project_id"]
            self.assertRegex(response.message_id, f"^projects/{project}/messages/.+$")
            (push,) = self.control.pushes(name)
            self.assertEqual(push["status"], 200)
            self.assertTrue(push["headers"]["content-type"].startswith("application/json"))
            message = push["body"]["message"]
            self.assertEqual((message["token"], message["data"]), (name, {"wake": "1"}))
            self.assertEqual(message["android"]["priority"].lower(), "high")
            self.assertEqual(message["android"]["ttl"], "3600s")
            self.assertEqual(message["android"]["collapse_key"], "inbox")

    async def test_one_access_token_serves_many_pushes(self):
        fetched = self.control.counts("oauth")["total"]
        for _ in range(5):
            self.assertTrue((await self.client.send(Message(token="f3", data={"wake": "1"}))).success)
        self.assertEqual(self.control.counts("oauth")["total"] - fetched, 1)

    async def test_a_device_that_is_gone_is_unregistered(self):
        self.control.kill("fcm", "f4", 1)
        self.assertIs(type(await self.refused("f4")), errors.UnregisteredError)

    async def test_each_error_code_is_what_it_is(self):
        for (status, code), kind in FCM_ERROR.items():
            self.control.choose(provider="fcm", status=status, reason=code)
            error = await self.refused("f5")
            self.assertIs(type(error), kind, code)
            self.assertEqual(error.http_response.status_code, status)

    async def test_without_a_detail_of_fcm_the_status_counts(self):
        self.control.choose(provider="fcm", status=404, details="none")
        self.assertIs(type(await self.refused("f6")), errors.NotFoundError)
        self.control.choose(provider="fcm", status=429, details="error_info", retry_after=60)
        error = await self.refused("f6")
        self.assertIs(type(error), errors.ResourceExhaustedError)
        self.assertEqual(error.http_response.headers["retry-after"], "60")
        self.control.choose(provider="fcm", status=401, reason="ACCESS_TOKEN_EXPIRED")
        self.assertIs(type(await self.refused("f6")), errors.UnauthenticatedError)

    async def test_a_message_that_fcm_cannot_take_is_an_invalid_argument(self):
        response = await self.client.send(Message(token="f7", data={"google.wake": "1"}))
        self.assertIs(type(response.exception), errors.InvalidArgumentError)


if __name__ == "__main__":
    unittest.main()
