//! HTTP/1.1 as far as a relay connection needs it: requests, responses, and the upgrade to WebSocket.

use base64::{Engine, engine::general_purpose::STANDARD};
use sha1::{Digest, Sha1};

use crate::frame::Version;

/// The largest head that is taken, in bytes.
pub const MAX_HEAD: usize = 16 * 1024;
/// Header lines in it.
const MAX_HEADERS: usize = 64;
/// RFC 6455, section 1.3.
const ACCEPT_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Bytes that are no HTTP, or a head that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadHead;

/// Header lines in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers(pub Vec<(String, Vec<u8>)>);

impl Headers {
    /// The first line of that name, if it is visible ASCII.
    pub fn text(&self, name: &str) -> Option<&str> {
        let value =
            self.0.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value)?;
        let visible = value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
        if visible { std::str::from_utf8(value).ok() } else { None }
    }
}

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Path and query as they came.
    pub target: String,
    pub headers: Headers,
}

impl Request {
    /// Whether it announces a body, of whatever length.
    pub fn has_body(&self) -> bool {
        ["content-length", "transfer-encoding"]
            .iter()
            .any(|wanted| self.headers.0.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted)))
    }
}

/// The head of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Headers,
}

/// Reads the head of a request at the start of `bytes`: it and its length, or None if there is more to come.
pub fn parse_request(bytes: &[u8]) -> Result<Option<(Request, usize)>, BadHead> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut lines);
    let Some(len) = complete(head.parse(bytes), bytes)? else { return Ok(None) };
    let request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        target: head.path.unwrap_or_default().to_owned(),
        headers: headers(head.headers),
    };
    Ok(Some((request, len)))
}

/// The same of a response.
pub fn parse_response(bytes: &[u8]) -> Result<Option<(Response, usize)>, BadHead> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut lines);
    let Some(len) = complete(head.parse(bytes), bytes)? else { return Ok(None) };
    Ok(Some((Response { status: head.code.unwrap_or_default(), headers: headers(head.headers) }, len)))
}

fn complete(
    parsed: Result<httparse::Status<usize>, httparse::Error>,
    bytes: &[u8],
) -> Result<Option<usize>, BadHead> {
    match parsed {
        Ok(httparse::Status::Complete(len)) if len <= MAX_HEAD => Ok(Some(len)),
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => Ok(None),
        _ => Err(BadHead),
    }
}

fn headers(lines: &[httparse::Header<'_>]) -> Headers {
    Headers(lines.iter().map(|line| (line.name.to_owned(), line.value.to_vec())).collect())
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeRequest<'a> {
    /// Host, with the port if the URL has one.
    pub host: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// 16 random bytes.
    pub key: [u8; 16],
    /// The authorization token; visible ASCII.
    pub token: Option<&'a str>,
    /// The proof of the client's key by the TLS session.
    pub auth: Option<&'a str>,
}

impl UpgradeRequest<'_> {
    pub fn encode(&self) -> String {
        let mut head = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {}\r\nSec-WebSocket-Version: 13\r\n\
             sec-websocket-protocol: {}, {}\r\n",
            self.target,
            self.host,
            STANDARD.encode(self.key),
            Version::V2.name(),
            Version::V1.name(),
        );
        if let Some(token) = self.token {
            head.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        if let Some(auth) = self.auth {
            head.push_str(&format!("{}: {auth}\r\n", crate::handshake::AUTH_HEADER));
        }
        head.push_str("\r\n");
        head
    }
}

/// Why a response is no upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotUpgraded {
    /// Another status than 101.
    Status(u16),
    /// The subprotocol is missing, or none that was offered.
    Protocol(Option<String>),
    /// It does not belong to the request.
    Accept,
}

/// The version that the relay chose.
pub fn upgraded(response: &Response, key: &[u8; 16]) -> Result<Version, NotUpgraded> {
    if response.status != 101 {
        return Err(NotUpgraded::Status(response.status));
    }
    if response.headers.text("sec-websocket-accept") != Some(&accept_key(&STANDARD.encode(key))) {
        return Err(NotUpgraded::Accept);
    }
    let name = response.headers.text("sec-websocket-protocol");
    name.and_then(Version::parse).ok_or_else(|| NotUpgraded::Protocol(name.map(str::to_owned)))
}

/// What a relay makes of a request for an upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    pub version: Version,
    /// To be sent back.
    pub accept: String,
}

/// Looks at a request as upstream's relay does, in its order. Error: the text of a 400.
pub fn accept_upgrade(request: &Request) -> Result<Upgrade, &'static str> {
    let headers = &request.headers;
    if headers.text("upgrade") != Some("websocket") {
        return Err("expected a websocket upgrade");
    }
    let key = headers.text("sec-websocket-key").ok_or("missing sec-websocket-key")?;
    if headers.text("sec-websocket-version") != Some("13") {
        return Err("expected websocket version 13");
    }
    let offered = headers.text("sec-websocket-protocol").ok_or("missing sec-websocket-protocol")?;
    let version = offered
        .split(',')
        .filter_map(|name| Version::parse(name.trim()))
        .max()
        .ok_or("no known relay protocol is offered")?;
    Ok(Upgrade { version, accept: accept_key(key) })
}

fn accept_key(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(ACCEPT_SUFFIX).finalize())
}

/// The head of a response, and its body. `Content-Length` is added unless it is an upgrade.
pub fn encode_response(status: u16, reason: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} {reason}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    // Neither of the two may have a body (RFC 9110, sections 15.2 and 15.3.5).
    if status != 101 && status != 204 {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut out = head.into_bytes();
    out.extend_from_slice(body);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_upgrade() {
        let key = *b"the sample nonce";
        let asked = UpgradeRequest {
            host: "127.0.0.1:3340",
            target: "/relay?x=1",
            key,
            token: Some("secret"),
            auth: Some("proof"),
        };
        let head = asked.encode();
        let (request, len) = parse_request(head.as_bytes()).unwrap().unwrap();
        assert_eq!(len, head.len());
        assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", "/relay?x=1"));
        assert_eq!(request.headers.text("Authorization"), Some("Bearer secret"));
        let upgrade = accept_upgrade(&request).unwrap();
        // RFC 6455, section 1.3.
        assert_eq!(upgrade.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(upgrade.version, Version::V2);
        let answer = encode_response(
            101,
            "Switching Protocols",
            &[
                ("upgrade", "websocket"),
                ("sec-websocket-accept", &upgrade.accept),
                ("sec-websocket-protocol", upgrade.version.name()),
            ],
            b"",
        );
        assert_eq!(parse_response(&answer[..answer.len() - 1]), Ok(None));
        let (response, _) = parse_response(&answer).unwrap().unwrap();
        assert_eq!(upgraded(&response, &key), Ok(Version::V2));
        assert_eq!(upgraded(&response, &[0; 16]), Err(NotUpgraded::Accept));
    }

    #[test]
    fn what_a_relay_refuses() {
        let request = |lines: &[(&str, &str)]| Request {
            method: "GET".into(),
            target: "/relay".into(),
            headers: Headers(lines.iter().map(|(n, v)| ((*n).to_owned(), v.as_bytes().to_vec())).collect()),
        };
        let mut lines = vec![
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Key", "x"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Protocol", "what, iroh-relay-v1 ,iroh-relay-v9"),
        ];
        assert_eq!(accept_upgrade(&request(&lines)).unwrap().version, Version::V1);
        for missing in 0..lines.len() {
            let mut fewer = lines.clone();
            fewer.remove(missing);
            assert!(accept_upgrade(&request(&fewer)).is_err());
        }
        lines[0].1 = "WebSocket";
        assert!(accept_upgrade(&request(&lines)).is_err());
        lines[0].1 = "websocket";
        lines[3].1 = "iroh-relay-v3";
        assert!(accept_upgrade(&request(&lines)).is_err());
    }

    #[test]
    fn what_a_client_refuses() {
        let response = |status, lines: &[(&str, &str)]| {
            let bytes = encode_response(status, "x", lines, b"");
            upgraded(&parse_response(&bytes).unwrap().unwrap().0, b"the sample nonce")
        };
        let accept = ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response(200, &[]), Err(NotUpgraded::Status(200)));
        assert_eq!(response(101, &[accept]), Err(NotUpgraded::Protocol(None)));
        let unknown = ("sec-websocket-protocol", "iroh-relay-v3");
        assert_eq!(
            response(101, &[accept, unknown]),
            Err(NotUpgraded::Protocol(Some("iroh-relay-v3".into())))
        );
    }

    #[test]
    fn heads_are_bounded() {
        let long = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(MAX_HEAD));
        assert_eq!(parse_request(long.as_bytes()), Err(BadHead));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(MAX_HEADERS + 1));
        assert_eq!(parse_request(many.as_bytes()), Err(BadHead));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_head_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_request(&bytes);
            let _ = parse_response(&bytes);
            let _ = parse_request(&[b"GET / HTTP/1.1\r\n", &bytes[..]].concat());
            let _ = parse_response(&[b"HTTP/1.1 101 X\r\n", &bytes[..]].concat());
        }
    }
}
