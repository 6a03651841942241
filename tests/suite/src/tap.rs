//! A tap: an HTTP/1.1 proxy in front of a server that sees each exchange and may falsify or swallow the
//! answer.
//!
//! Clients know the server by the tap's address, which stays when the server is started anew on another port.
//! While the server is away, the tap closes what comes.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Outcome;

/// Bytes of a body that passes.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of a line in a head.
const LINE_BYTES_MAX: u64 = 16 * 1024;

/// A request that was answered. What the observer changes of the answer is what the client gets.
#[derive(Debug)]
pub struct Exchange {
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// Whether the request carries a signature (RFC 9421), as those of devices do.
    pub signed: bool,
    /// The request's body.
    pub request: Vec<u8>,
    /// The answer's status.
    pub status: u16,
    /// The answer's body.
    pub answer: Vec<u8>,
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The client gets it.
    Pass,
    /// The connection is closed instead: the answer is lost on its way.
    Swallow,
}

type Observer = Box<dyn FnMut(&mut Exchange) -> Verdict + Send>;

/// The tap of one server. Its listener lives as long as the process.
pub struct Tap {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    observer: Mutex<Observer>,
}

#[derive(Default)]
struct State {
    server: Option<SocketAddr>,
    /// Both ends of what is connected, to close them when the server goes.
    connected: Vec<TcpStream>,
}

impl Tap {
    /// A tap on a free port of this machine that leads nowhere yet.
    ///
    /// # Errors
    /// The system's.
    pub fn open() -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let observer: Observer = Box::new(|_| Verdict::Pass);
        let shared = Arc::new(Shared { state: Mutex::default(), observer: Mutex::new(observer) });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&accepting);
                // A connection that breaks is the client's to notice.
                std::thread::spawn(move || drop(shared.serve(&client)));
            }
        });
        Ok(Self { address, shared })
    }

    /// The URL that clients know the server by.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes all connections and leads new ones to `server`, or nowhere.
    pub fn lead_to(&self, server: Option<SocketAddr>) {
        let mut state = held(&self.shared.state);
        state.server = server;
        for stream in state.connected.drain(..) {
            // The other side may have closed it.
            let _closed = stream.shutdown(Shutdown::Both);
        }
    }

    /// Shows every exchange from now on to `observer`, one after the other.
    pub fn observe(&self, observer: impl FnMut(&mut Exchange) -> Verdict + Send + 'static) {
        *held(&self.shared.observer) = Box::new(observer);
    }
}

impl Shared {
    fn serve(&self, client: &TcpStream) -> Outcome<()> {
        let server = {
            let mut state = held(&self.state);
            let Some(server) = state.server else { return Ok(()) };
            let server = TcpStream::connect(server)?;
            state.connected.extend([client.try_clone()?, server.try_clone()?]);
            server
        };
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let relayed = self.relay(client, &server);
        let _closed = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
        relayed
    }

    fn relay(&self, client: &TcpStream, server: &TcpStream) -> Outcome<()> {
        let (mut requests, mut answers) = (BufReader::new(client), BufReader::new(server));
        while let Some(request) = Message::read(&mut requests, None)? {
            request.write(server)?;
            let method = request.first.split(' ').next().unwrap_or_default().to_owned();
            let path = request.first.split(' ').nth(1).unwrap_or_default().to_owned();
            let answer = Message::read(&mut answers, Some(&method))?.ok_or("the server has gone")?;
            let status = answer.first.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
            let signed = request.headers.iter().any(|header| {
                header.split(':').next().is_some_and(|name| name.eq_ignore_ascii_case("signature-input"))
            });
            let mut exchange =
                Exchange { method, path, signed, request: request.body, status, answer: answer.body };
            if (held(&self.observer))(&mut exchange) == Verdict::Swallow {
                return Ok(());
            }
            Message { body: exchange.answer, ..answer }.write(client)?;
        }
        Ok(())
    }
}

/// A request or an answer.
struct Message {
    first: String,
    /// All but those that say how long the body is.
    headers: Vec<String>,
    has_body: bool,
    body: Vec<u8>,
}

impl Message {
    /// The next message; nothing when the stream ends before one. For an answer, `method` is what was asked.
    fn read(stream: &mut impl BufRead, method: Option<&str>) -> Outcome<Option<Self>> {
        let first = line(stream)?;
        if first.is_empty() {
            return Ok(None);
        }
        let mut message = Self { first, headers: Vec::new(), has_body: false, body: Vec::new() };
        let mut length = None;
        let mut chunked = false;
        loop {
            let header = line(stream)?;
            let Some((name, value)) = header.split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = Some(value.trim().parse::<usize>()?),
                "transfer-encoding" => chunked = true,
                _ => message.headers.push(header),
            }
        }
        if method == Some("HEAD") {
            return Ok(Some(message));
        }
        message.has_body = chunked || length.is_some();
        if chunked {
            loop {
                let size = usize::from_str_radix(line(stream)?.trim(), 16)?;
                read_body(stream, size, &mut message.body)?;
                let _line_end = line(stream)?;
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = length {
            read_body(stream, length, &mut message.body)?;
        }
        Ok(Some(message))
    }

    fn write(&self, mut stream: &TcpStream) -> Outcome<()> {
        let mut bytes = format!("{}\r\n", self.first);
        self.headers.iter().for_each(|header| bytes += &format!("{header}\r\n"));
        if self.has_body {
            bytes += &format!("content-length: {}\r\n", self.body.len());
        }
        bytes += "\r\n";
        let mut bytes = bytes.into_bytes();
        bytes.extend_from_slice(&self.body);
        Ok(stream.write_all(&bytes)?)
    }
}

/// A line without its end; empty at the end of the head or of the stream.
fn line(stream: &mut impl BufRead) -> Outcome<String> {
    let mut line = String::new();
    stream.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)?;
    line.truncate(line.trim_end().len());
    Ok(line)
}

fn read_body(stream: &mut impl BufRead, length: usize, body: &mut Vec<u8>) -> Outcome<()> {
    let start = body.len();
    if start.saturating_add(length) > BODY_BYTES_MAX {
        return Err("a body is larger than anything that Sealpost sends".into());
    }
    body.resize(start + length, 0);
    Ok(stream.read_exact(&mut body[start..])?)
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each request with its body and closes at its end.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let mut requests = BufReader::new(&stream);
                    while let Ok(Some(request)) = Message::read(&mut requests, None) {
                        let first = "HTTP/1.1 200 OK".to_owned();
                        Message { first, has_body: true, ..request }.write(&stream).unwrap();
                    }
                });
            }
        });
        address
    }

    fn ask(url: &str, body: &str) -> Result<String, ureq::Error> {
        ureq::post(format!("{url}/echo?x=1")).send(body)?.body_mut().read_to_string()
    }

    #[test]
    fn a_tap_sees_falsifies_swallows_and_closes() {
        let tap = Tap::open().unwrap();
        assert!(ask(&tap.url(), "early").is_err(), "it leads nowhere");
        tap.lead_to(Some(echo()));
        assert_eq!(ask(&tap.url(), "one").unwrap(), "one");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        tap.observe(move |exchange| {
            record.lock().unwrap().push((exchange.method.clone(), exchange.path.clone(), exchange.status));
            match exchange.request.as_slice() {
                b"swallow" => return Verdict::Swallow,
                b"change" => exchange.answer = b"something longer".to_vec(),
                _ => {}
            }
            Verdict::Pass
        });
        assert_eq!(ask(&tap.url(), "change").unwrap(), "something longer");
        assert!(ask(&tap.url(), "swallow").is_err());
        assert_eq!(seen.lock().unwrap()[0], ("POST".to_owned(), "/echo?x=1".to_owned(), 200));
        tap.lead_to(None);
        assert!(ask(&tap.url(), "late").is_err());
        assert_eq!(seen.lock().unwrap().len(), 2);
    }
}
