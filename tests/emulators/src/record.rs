//! The record of what was asked and what was answered, numbered from 1 without gaps.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::Notify;

use crate::world::{Provider, lock};

/// One request to send a push, as it was received, and its outcome.
#[derive(Debug, Clone)]
pub struct Push {
    /// Number of the request over both providers, from 1, without gaps.
    pub sequence: u64,
    /// Who received it.
    pub provider: Provider,
    /// Device token; empty when the request was refused before it could be read.
    pub token: String,
    /// When it was decided, in epoch milliseconds.
    pub received_ms: u64,
    /// The same moment on this machine's monotonic clock, for measuring how long a push took to come.
    pub received: Instant,
    /// The provider's own headers (never `authorization`).
    pub headers: Vec<(&'static str, String)>,
    /// The body exactly as received.
    pub body: Bytes,
    /// Status of the answer; absent when there is none (never answered, or connection cut).
    pub status: Option<u16>,
    /// `reason` or `errorCode` of a refusal; when there is no whole answer, what there was instead:
    /// `no_answer`, `half_answer`, `cut_connection`, `reset_connection` or `reset_stream`.
    pub reason: Option<Cow<'static, str>>,
}

/// What was answered, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// The APNs emulator.
    pub apns: ProviderCounts,
    /// The FCM emulator.
    pub fcm: ProviderCounts,
    /// The token endpoint.
    pub oauth: ProviderCounts,
}

/// Numbers of one emulator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ProviderCounts {
    /// Requests decided, whatever the outcome.
    pub total: u64,
    /// Answers by HTTP status.
    pub by_status: BTreeMap<u16, u64>,
    /// Refusals by reason, and requests without a whole answer by what happened instead (see
    /// [`Push::reason`]).
    pub by_reason: BTreeMap<Cow<'static, str>, u64>,
    /// Streams refused because they were opened beyond MAX_CONCURRENT_STREAMS; not part of the total.
    pub refused_streams: u64,
    /// Streams above the last-stream-id of a GOAWAY: not processed, and not part of the total.
    pub unprocessed_streams: u64,
    /// TLS connections accepted since the start (not cleared).
    pub connections_opened: u64,
    /// Connections open now.
    pub connections_open: u64,
}

impl Counts {
    /// The numbers of one emulator.
    pub fn of(&self, provider: Provider) -> &ProviderCounts {
        match provider {
            Provider::Apns => &self.apns,
            Provider::Fcm => &self.fcm,
            Provider::Oauth => &self.oauth,
        }
    }

    fn of_mut(&mut self, provider: Provider) -> &mut ProviderCounts {
        match provider {
            Provider::Apns => &mut self.apns,
            Provider::Fcm => &mut self.fcm,
            Provider::Oauth => &mut self.oauth,
        }
    }
}

/// What a reader of the record asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    pub(crate) after: u64,
    pub(crate) token: Option<String>,
    pub(crate) provider: Option<Provider>,
    pub(crate) limit: usize,
}

/// A page of the record.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) pushes: Vec<Push>,
    /// Number of the last request decided.
    pub(crate) last: u64,
    /// Number of the oldest request still in the record; 0 when there is none.
    pub(crate) oldest: u64,
}

/// Requests and counts.
pub(crate) struct Recorder {
    keep: AtomicBool,
    refused_streams: [AtomicU64; 3],
    unprocessed_streams: [AtomicU64; 3],
    connections_opened: [AtomicU64; 3],
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    last: u64,
    pushes: VecDeque<Push>,
    bytes: usize,
    counts: Counts,
    /// The lowest sequence number somebody waits for; 0 when nobody does.
    awaited: u64,
}

impl Recorder {
    pub(crate) fn new(keep: bool) -> Self {
        Self {
            keep: AtomicBool::new(keep),
            refused_streams: Default::default(),
            unprocessed_streams: Default::default(),
            connections_opened: Default::default(),
            inner: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Whether headers and bodies are kept.
    pub(crate) fn keeps(&self) -> bool {
        self.keep.load(Ordering::Relaxed)
    }

    pub(crate) fn set_keep(&self, keep: bool) {
        self.keep.store(keep, Ordering::Relaxed);
    }

    /// Counts a request and, unless only counting, keeps it. The sequence number is given here.
    pub(crate) fn push(&self, mut push: Push) {
        let keep = self.keeps();
        let mut inner = lock(&self.inner);
        inner.last += 1;
        push.sequence = inner.last;
        inner.counts.of_mut(push.provider).add(push.status, push.reason.clone());
        if keep {
            inner.bytes += push.size();
            inner.pushes.push_back(push);
            while inner.bytes > MAX_RECORD_BYTES {
                let Some(oldest) = inner.pushes.pop_front() else { break };
                inner.bytes -= oldest.size();
            }
        }
        let wake = inner.awaited != 0 && inner.last >= inner.awaited;
        if wake {
            inner.awaited = 0;
        }
        drop(inner);
        if wake {
            self.changed.notify_waiters();
        }
    }

    /// Counts a request that is no push.
    pub(crate) fn count(&self, provider: Provider, status: Option<u16>, reason: Option<Cow<'static, str>>) {
        lock(&self.inner).counts.of_mut(provider).add(status, reason);
    }

    pub(crate) fn refused_stream(&self, provider: Provider) {
        self.refused_streams[provider as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn unprocessed_stream(&self, provider: Provider) {
        self.unprocessed_streams[provider as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn connection_opened(&self, provider: Provider) {
        self.connections_opened[provider as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = lock(&self.inner).counts.clone();
        for provider in [Provider::Apns, Provider::Fcm, Provider::Oauth] {
            let of_provider = counts.of_mut(provider);
            of_provider.refused_streams = self.refused_streams[provider as usize].load(Ordering::Relaxed);
            let unprocessed = &self.unprocessed_streams[provider as usize];
            of_provider.unprocessed_streams = unprocessed.load(Ordering::Relaxed);
            of_provider.connections_opened =
                self.connections_opened[provider as usize].load(Ordering::Relaxed);
        }
        counts
    }

    /// Forgets requests and counts; numbering begins anew at 1.
    pub(crate) fn reset(&self) {
        let mut inner = lock(&self.inner);
        *inner = Inner::default();
        drop(inner);
        for counter in self.refused_streams.iter().chain(&self.unprocessed_streams) {
            counter.store(0, Ordering::Relaxed);
        }
        // Who waits must look at the new numbers.
        self.changed.notify_waiters();
    }

    /// What is in the record now.
    pub(crate) fn page(&self, query: &Query) -> Page {
        lock(&self.inner).page(query)
    }

    /// The first non-empty page; resolves when there is one.
    pub(crate) async fn next_page(&self, query: &Query) -> Page {
        loop {
            // Listen before looking: a push in between then still wakes.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut inner = lock(&self.inner);
                let page = inner.page(query);
                if !page.pushes.is_empty() {
                    return page;
                }
                let next = query.after.max(inner.last) + 1;
                inner.wake_at(next);
            }
            changed.await;
        }
    }

    /// Resolves when so many requests to send a push were decided since the start or the last reset.
    pub(crate) async fn wait_for_count(&self, count: u64) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut inner = lock(&self.inner);
                if inner.last >= count {
                    return;
                }
                inner.wake_at(count);
            }
            changed.await;
        }
    }
}

impl Inner {
    fn wake_at(&mut self, sequence: u64) {
        self.awaited = if self.awaited == 0 { sequence } else { self.awaited.min(sequence) };
    }

    fn page(&self, query: &Query) -> Page {
        let oldest = self.pushes.front().map_or(0, |push| push.sequence);
        let start = self.pushes.partition_point(|push| push.sequence <= query.after);
        let pushes = self
            .pushes
            .range(start..)
            .filter(|push| query.token.as_ref().is_none_or(|token| *token == push.token))
            .filter(|push| query.provider.is_none_or(|provider| provider == push.provider))
            .take(query.limit)
            .cloned()
            .collect();
        Page { pushes, last: self.last, oldest }
    }
}

impl ProviderCounts {
    fn add(&mut self, status: Option<u16>, reason: Option<Cow<'static, str>>) {
        self.total += 1;
        if let Some(status) = status {
            *self.by_status.entry(status).or_default() += 1;
        }
        if let Some(reason) = reason {
            *self.by_reason.entry(reason).or_default() += 1;
        }
    }
}

impl Push {
    /// Roughly what it takes in memory.
    fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(_, value)| value.len() + HEADER_OVERHEAD).sum();
        size_of::<Self>() + self.token.len() + self.body.len() + headers
    }
}

const HEADER_OVERHEAD: usize = size_of::<(&'static str, String)>();
/// The oldest requests leave the record above this much memory; their numbers and counts stay.
const MAX_RECORD_BYTES: usize = 512 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn push(token: &str, status: Option<u16>) -> Push {
        Push {
            sequence: 0,
            provider: Provider::Apns,
            token: token.to_owned(),
            received_ms: 1,
            received: Instant::now(),
            headers: Vec::new(),
            body: Bytes::new(),
            status,
            reason: None,
        }
    }

    #[test]
    fn numbers_have_no_gaps_and_counting_goes_on_without_bodies() {
        let recorder = Recorder::new(true);
        recorder.push(push("aa", Some(200)));
        recorder.set_keep(false);
        recorder.push(push("bb", Some(200)));
        recorder.set_keep(true);
        recorder.push(push("cc", None));
        let page = recorder.page(&Query { limit: 10, ..Query::default() });
        let sequences: Vec<u64> = page.pushes.iter().map(|push| push.sequence).collect();
        assert_eq!((sequences, page.last, page.oldest), (vec![1, 3], 3, 1));
        assert_eq!(recorder.counts().apns.total, 3);
        assert_eq!(recorder.counts().apns.by_status, BTreeMap::from([(200, 2)]));
        recorder.reset();
        assert_eq!(recorder.counts(), Counts::default());
        recorder.push(push("dd", Some(200)));
        assert_eq!(recorder.page(&Query { limit: 1, ..Query::default() }).pushes[0].sequence, 1);
    }

    #[tokio::test]
    async fn waiters_wake_by_number_and_by_token() {
        let recorder = std::sync::Arc::new(Recorder::new(true));
        let of_token = tokio::spawn({
            let recorder = recorder.clone();
            let query = Query { token: Some("bb".into()), limit: 1, ..Query::default() };
            async move { recorder.next_page(&query).await }
        });
        let third = tokio::spawn({
            let recorder = recorder.clone();
            async move { recorder.wait_for_count(3).await }
        });
        tokio::task::yield_now().await;
        for token in ["aa", "bb", "cc"] {
            recorder.push(push(token, Some(200)));
            tokio::task::yield_now().await;
        }
        assert_eq!(of_token.await.unwrap().pushes[0].sequence, 2);
        third.await.unwrap();
    }
}
