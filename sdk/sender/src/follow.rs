//! What becomes of what was sent: the relay's events, and the devices' receipts in them, each verified here.

use std::time::Duration;

use sealpost_wire::api::relay::{Event, EventPage, MessageStatus};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::id::{DeviceId, TransportId};
use sealpost_wire::receipt::{Receipt, ReceiptStatement, SignedReceipt};

use crate::Sender;
use crate::error::SenderError;
use crate::http::Call;
use crate::outbox::{BoxNews, SentBox};
use crate::submit::said_by_the_relay;

/// Events that one page asks for.
const PAGE: u32 = 500;

/// What a look at the events brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FollowReport {
    /// Events of this sender's messages.
    pub events: usize,
    /// Receipts that verified.
    pub verified: usize,
    /// Receipts that did not: someone lies, and it is logged as an error.
    pub refused: usize,
}

impl Sender {
    /// Takes in one page of events, and lets the relay wait up to `wait` (whole seconds) for the first. A cursor that the
    /// relay keeps no more is made up for by asking for each unsettled message.
    ///
    /// # Errors
    /// Storage and server errors. Nothing is taken in twice.
    pub fn follow(&mut self, wait: Duration) -> Result<FollowReport, SenderError> {
        let after = self.outbox.events_cursor()?;
        let path = format!("/v1/events?after={after}&wait={}&limit={PAGE}", wait.as_secs());
        let mut rng = (self.party.parts.rng)();
        let call = Call { wait, ..Call::get(path) };
        let page: Result<EventPage, _> =
            self.party.relay.call(&call, self.party.parts.clock.now(), rng.as_mut());
        match page {
            Ok(page) => {
                let mut report = FollowReport::default();
                let mut news = Vec::new();
                for event in &page.events {
                    news.extend(self.news_of_event(event, &mut report)?);
                }
                self.outbox.take_news(&news, Some(page.next), self.party.options.reseals_max)?;
                Ok(report)
            }
            Err(error) if error.is_status(410) => self.catch_up(),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks for every message whose end is not proven yet, and goes on with the events from now.
    fn catch_up(&mut self) -> Result<FollowReport, SenderError> {
        let mut rng = (self.party.parts.rng)();
        let mut report = FollowReport::default();
        let head = Call::get(format!("/v1/events?after={}&limit=1", u64::MAX >> 1));
        let head: EventPage = self.party.relay.call(&head, self.party.parts.clock.now(), rng.as_mut())?;
        let mut news = Vec::new();
        for id in self.outbox.unsettled()? {
            let call = Call::get(format!("/v1/messages/{id}"));
            let status: MessageStatus =
                match self.party.relay.call(&call, self.party.parts.clock.now(), rng.as_mut()) {
                    Ok(status) => status,
                    Err(error) if error.is_status(404) => continue,
                    Err(error) => return Err(error.into()),
                };
            for delivery in status.deliveries {
                let Some(sent) = self.outbox.sent_box(id, delivery.device)? else { continue };
                report.events += 1;
                for receipt in &delivery.receipts {
                    news.extend(self.news_of_receipt(id, delivery.device, &sent, receipt, &mut report));
                }
                if delivery.receipts.is_empty() {
                    news.push(said(id, delivery.device, delivery.state, delivery.reason));
                }
            }
        }
        self.outbox.take_news(&news, Some(head.last), self.party.options.reseals_max)?;
        Ok(report)
    }

    fn news_of_event(
        &self,
        event: &Event,
        report: &mut FollowReport,
    ) -> Result<Option<BoxNews>, SenderError> {
        if event.sender != self.party.identity.subject {
            return Ok(None);
        }
        let Some(sent) = self.outbox.sent_box(event.message, event.device)? else { return Ok(None) };
        report.events += 1;
        Ok(match &event.receipt {
            Some(receipt) => self.news_of_receipt(event.message, event.device, &sent, receipt, report),
            None if sent.verified => None,
            // A note that a push failed says why a message still waits, and changes nothing else.
            None if event.from == Some(event.to) && event.to != DeliveryState::Queued => None,
            None if sent.state == event.to && event.reason.is_none() => None,
            None => Some(said(event.message, event.device, event.to, event.reason.clone())),
        })
    }

    fn news_of_receipt(
        &self,
        id: TransportId,
        device: DeviceId,
        sent: &SentBox,
        receipt: &Base64Url,
        report: &mut FollowReport,
    ) -> Option<BoxNews> {
        match self.verified(id, device, sent, receipt) {
            Some(receipt) => {
                report.verified += 1;
                Some(BoxNews {
                    transport_id: id,
                    device,
                    state: receipt.statement.state(),
                    reason: match receipt.statement {
                        ReceiptStatement::Unopenable(reason) => Some(reason),
                        _ => None,
                    },
                    verified: true,
                    device_time: Some(receipt.time),
                })
            }
            None => {
                report.refused += 1;
                tracing::error!(message = %id, %device, "the relay passed on a receipt that does not verify");
                None
            }
        }
    }

    /// The receipt, if this device signed it about this very box.
    fn verified(
        &self,
        id: TransportId,
        device: DeviceId,
        sent: &SentBox,
        bytes: &Base64Url,
    ) -> Option<Receipt> {
        let receipt = SignedReceipt::read(bytes.as_ref()).ok()?;
        let receipt = receipt.verify(&self.party.identity.tenant, device, &sent.identity).ok()?;
        (receipt.transport_id == id && receipt.sealed == sent.digest).then_some(receipt)
    }
}

fn said(
    transport_id: TransportId,
    device: DeviceId,
    state: DeliveryState,
    reason: Option<String>,
) -> BoxNews {
    BoxNews {
        transport_id,
        device,
        state: said_by_the_relay(state),
        reason,
        verified: false,
        device_time: None,
    }
}
