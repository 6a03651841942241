//! The control interface: JSON over plain HTTP/1.1, for tests in any language and for curl.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::emulator::Shared;
use crate::listener::stopped;
use crate::options::TokenUpdateScope;
use crate::outcome::{GoAway, Outcome, OutcomeError, Reading, check_debug_data};
use crate::record::{Page, Push, Query};
use crate::world::{Command, Provider};

/// Serves the control interface until told to stop.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((tcp, _)) = accepted else { continue };
                let _ = tcp.set_nodelay(true);
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let service = service_fn(|request| answer(&shared, request));
                    let served = hyper::server::conn::http1::Builder::new()
                        .timer(TokioTimer::new())
                        .serve_connection(TokioIo::new(tcp), service)
                        .await;
                    if let Err(error) = served {
                        tracing::debug!(%error, "control connection ended");
                    }
                });
            }
        }
    }
}

/// Why a control request was not carried out. Asking the same again does not help.
#[derive(Debug, thiserror::Error)]
enum ControlError {
    #[error("the body is longer than {MAX_CONTROL_BODY} bytes or was cut off")]
    Body,
    #[error("the body is not what this path takes: {0}")]
    Json(#[from] serde_json::Error),
    #[error("query parameter {0} is not understood")]
    Query(String),
    #[error(transparent)]
    Outcome(#[from] OutcomeError),
    #[error("only apns and fcm have device tokens and connections")]
    NoSuchProvider,
    #[error("there is no such path or method; GET / lists them")]
    NotFound,
}

async fn answer(
    shared: &Shared,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let (request, body) = request.into_parts();
    let body = Limited::new(body, MAX_CONTROL_BODY).collect().await;
    let answered = match body {
        Ok(body) => act(shared, &request, &body.to_bytes()).await,
        Err(_) => Err(ControlError::Body),
    };
    let (status, body) = match answered {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => {
            let status = match error {
                ControlError::NotFound => StatusCode::NOT_FOUND,
                _ => StatusCode::BAD_REQUEST,
            };
            (status, json!({ "error": error.to_string() }))
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

async fn act(shared: &Shared, request: &Parts, body: &[u8]) -> Result<Value, ControlError> {
    let world = &shared.world;
    match (&request.method, request.uri.path()) {
        (&Method::GET, "/") => Ok(help(shared)),
        (&Method::GET, "/counts") => Ok(serde_json::to_value(shared.counts())?),
        (&Method::GET, "/pushes") => pushes(shared, request.uri.query().unwrap_or_default()).await,
        (&Method::POST, "/outcomes") => {
            let outcomes = match parse(body)? {
                OneOrMany::One(outcome) => vec![outcome],
                OneOrMany::Many(outcomes) => outcomes,
            };
            for outcome in outcomes {
                world.faults.add(outcome)?;
            }
            Ok(json!({}))
        }
        (&Method::DELETE, "/outcomes") => {
            world.faults.clear_outcomes();
            Ok(json!({}))
        }
        (&Method::POST, "/dead") => {
            let dead: Dead = parse(body)?;
            let provider = pushing(dead.provider)?;
            let since_ms = dead.timestamp_ms.unwrap_or_else(|| world.clock.now_ms());
            world.faults.kill(provider, &dead.token, since_ms)?;
            Ok(json!({ "timestamp_ms": since_ms }))
        }
        (&Method::DELETE, "/dead") => {
            world.faults.clear_dead();
            Ok(json!({}))
        }
        (&Method::POST, "/tokens") => {
            let registration: Registration = parse(body)?;
            shared.apns.register(&registration.token, &registration.topic);
            Ok(json!({}))
        }
        (&Method::DELETE, "/access-tokens") => {
            shared.oauth.revoke_all();
            Ok(json!({}))
        }
        (&Method::POST, "/connections") => {
            world.connection_faults.add(parse(body)?)?;
            Ok(json!({}))
        }
        (&Method::DELETE, "/connections") => {
            world.connection_faults.clear();
            Ok(json!({}))
        }
        (&Method::POST, "/goaway" | "/cut" | "/max-streams" | "/reading") => {
            let (provider, command) = order(request.uri.path(), body)?;
            Ok(json!({ "connections": shared.command(provider, &command) }))
        }
        (&Method::POST, "/token-updates") => {
            let updates: TokenUpdates = parse(body)?;
            shared.apns.set_token_update_scope(updates.scope);
            Ok(json!({}))
        }
        (&Method::POST, "/date") => {
            let date: Date = parse(body)?;
            world.dates.set(date.provider, date.send);
            Ok(json!({}))
        }
        (&Method::POST, "/reset") => {
            world.record.reset();
            Ok(json!({}))
        }
        (&Method::POST, "/record") => {
            let record: Record = parse(body)?;
            world.record.set_keep(record.bodies);
            Ok(json!({}))
        }
        (&Method::POST, "/clock") => {
            let clock: ClockShift = parse(body)?;
            world.clock.set_shift_ms(clock.shift_ms);
            Ok(json!({ "now_ms": world.clock.now_ms() }))
        }
        _ => Err(ControlError::NotFound),
    }
}

/// An order for the open connections of a provider.
fn order(path: &str, body: &[u8]) -> Result<(Provider, Command), ControlError> {
    let (provider, command) = match path {
        "/cut" => {
            let cut: Cut = parse(body)?;
            (cut.provider, Command::Cut { reset: cut.reset })
        }
        "/max-streams" => {
            let streams: MaxStreams = parse(body)?;
            (streams.provider, Command::MaxStreams(streams.max_streams))
        }
        "/reading" => {
            let pace: Pace = parse(body)?;
            pace.reading.check()?;
            (pace.provider, Command::Reading(pace.reading))
        }
        _ => {
            let order: GoAwayOrder = parse(body)?;
            if let Some(goaway) = order.at_once {
                goaway.check()?;
                (order.provider, Command::Leave(goaway))
            } else {
                check_debug_data(order.debug_data.as_deref())?;
                (order.provider, Command::GoAway { debug_data: order.debug_data })
            }
        }
    };
    Ok((pushing(provider)?, command))
}

async fn pushes(shared: &Shared, text: &str) -> Result<Value, ControlError> {
    let mut query = Query { limit: DEFAULT_PAGE, ..Query::default() };
    let mut wait_ms = 0;
    for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
        let number = || value.parse::<u64>().map_err(|_| ControlError::Query(name.clone().into_owned()));
        match &*name {
            "after" => query.after = number()?,
            "wait_ms" => wait_ms = number()?.min(MAX_WAIT_MS),
            "limit" => query.limit = usize::try_from(number()?).unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE),
            "token" => query.token = Some(value.into_owned()),
            "provider" => {
                query.provider = Some(match &*value {
                    "apns" => Provider::Apns,
                    "fcm" => Provider::Fcm,
                    _ => return Err(ControlError::NoSuchProvider),
                });
            }
            _ => return Err(ControlError::Query(name.into_owned())),
        }
    }
    let record = &shared.world.record;
    let waited = tokio::time::timeout(Duration::from_millis(wait_ms), record.next_page(&query)).await;
    let page = waited.unwrap_or_else(|_| record.page(&query));
    Ok(render(&page))
}

fn render(page: &Page) -> Value {
    let push = |push: &Push| {
        let headers: serde_json::Map<String, Value> =
            push.headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
        json!({
            "sequence": push.sequence,
            "provider": push.provider,
            "token": push.token,
            "received_ms": push.received_ms,
            "headers": headers,
            "body": BASE64.encode(&push.body),
            "status": push.status,
            "reason": push.reason,
        })
    };
    let pushes: Vec<Value> = page.pushes.iter().map(push).collect();
    json!({ "pushes": pushes, "last": page.last, "oldest": page.oldest })
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ControlError> {
    Ok(serde_json::from_slice(body)?)
}

fn pushing(provider: Provider) -> Result<Provider, ControlError> {
    match provider {
        Provider::Apns | Provider::Fcm => Ok(provider),
        Provider::Oauth => Err(ControlError::NoSuchProvider),
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(Outcome),
    Many(Vec<Outcome>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dead {
    provider: Provider,
    token: String,
    #[serde(default)]
    timestamp_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Registration {
    token: String,
    topic: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GoAwayOrder {
    provider: Provider,
    #[serde(default)]
    debug_data: Option<String>,
    #[serde(default)]
    at_once: Option<GoAway>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cut {
    provider: Provider,
    #[serde(default)]
    reset: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MaxStreams {
    provider: Provider,
    max_streams: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pace {
    provider: Provider,
    reading: Reading,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenUpdates {
    scope: TokenUpdateScope,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Date {
    provider: Provider,
    send: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    bodies: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockShift {
    shift_ms: i64,
}

fn help(shared: &Shared) -> Value {
    json!({
        "what": "Emulators of APNs and FCM HTTP v1. Bodies and answers are JSON, errors {\"error\": text}.",
        "where": shared.manifest,
        "requests": {
            "GET /": "this text",
            "GET /counts": "requests by provider, status and reason since the start or the last reset",
            "GET /pushes?after=N&wait_ms=M&token=T&provider=apns|fcm&limit=L":
                "recorded requests with a sequence number above N (they are dense, from 1); waits up to M ms \
                 for the first one (at most 60000). 'body' is base64 of the bytes received; 'status' is null \
                 when there was no answer; 'last' is the newest number, 'oldest' the first one still kept.",
            "POST /outcomes": {
                "does": "chooses what happens to requests that pass the protocol's checks; an object or a \
                         list. Outcomes for the same provider and token apply one after the other.",
                "fields": {
                    "provider": "apns | fcm | oauth",
                    "token": "device token; absent: all. Rules for one token go first",
                    "status": "HTTP status, 200 when absent",
                    "reason": "APNs reason, FCM errorCode (or ACCESS_TOKEN_EXPIRED), OAuth error",
                    "retry_after": "seconds, or a text",
                    "timestamp_ms": "timestamp of an APNs 410; now when absent",
                    "details": "FCM's error.details: fcm_error (when absent) | none | error_info | \
                                quota_failure | bad_request",
                    "body": "the answer's body as it is, whatever the status",
                    "delay_ms": "hold the answer back",
                    "max_streams": "MAX_CONCURRENT_STREAMS of the connection from this answer on",
                    "goaway": "{frames?, error_code?, debug_data?}: GOAWAY; this request is the last one \
                               answered",
                    "and one of": {
                        "no_answer": "true: never answer",
                        "half_answer": "true: send the headers and half the body, and no more",
                        "cut_connection": "true: close the connection",
                        "reset_connection": "true: reset it (TCP RST)",
                        "reset_stream": "HTTP/2 error code, e.g. 7 (REFUSED_STREAM)",
                        "goaway_instead": "as goaway; this request and all later ones are not processed",
                    },
                    "count": "for so many requests; until cleared when absent",
                },
                "example": { "provider": "apns", "status": 503, "retry_after": 2, "count": 3 },
            },
            "DELETE /outcomes": "usual answers again",
            "POST /dead": "{provider, token, timestamp_ms?}: the token is gone (410 / 404 UNREGISTERED)",
            "DELETE /dead": "all device tokens live again",
            "POST /tokens": "{token, topic}: registers an APNs token under a topic, for which alone it then is",
            "DELETE /access-tokens": "no FCM access token is known any more: the next send gets 401",
            "POST /connections": {
                "does": "chooses how new connections of a provider are received, one after the other",
                "fields": {
                    "provider": "apns | fcm",
                    "reception": "reset | no_handshake | no_settings | \
                                  {goaway_instead_of_settings: {frames?, error_code?, debug_data?}} | \
                                  {window: octets of a body that may be under way} | \
                                  {reading: stopped | {bytes_per_second: N}}",
                    "count": "for so many connections; until cleared when absent",
                },
            },
            "DELETE /connections": "new connections are received as usual again",
            "POST /goaway": "{provider, debug_data?}: ends all connections gracefully; answers how many. \
                             {provider, at_once: {frames?, error_code?, debug_data?}}: what is not decided by \
                             now is not processed",
            "POST /cut": "{provider, reset?}: closes or (reset: true) resets all connections",
            "POST /max-streams": "{provider, max_streams}: announced on all open connections",
            "POST /reading": "{provider, reading}: usual | stopped | {bytes_per_second: N}, for all open \
                              connections",
            "POST /token-updates": "{scope: connection | team}: over what an APNs provider token may change \
                                    only every 20 minutes",
            "POST /date": "{provider, send}: whether answers carry a date header",
            "POST /reset": "forgets requests and counts; numbers begin at 1 again. Outcomes stay",
            "POST /record": "{bodies: false}: only count from now on; true: record again",
            "POST /clock": "{shift_ms}: moves the emulators' clock away from the machine's",
        },
    })
}

/// Room for some thousand outcomes at once.
const MAX_CONTROL_BODY: usize = 1024 * 1024;
const MAX_WAIT_MS: u64 = 60_000;
const DEFAULT_PAGE: usize = 1000;
const MAX_PAGE: usize = 10_000;
