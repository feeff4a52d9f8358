//! Arguments of a request, and the pattern that test data follow.

use std::net::SocketAddr;

use data_encoding::HEXLOWER_PERMISSIVE;
use iroh::endpoint::VarInt;
use iroh::{EndpointAddr, EndpointId, TransportAddr};
use serde_json::Value;

use crate::failure::Failure;

pub struct Request(pub Value);

impl Request {
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn need<T>(&self, key: &str, value: Option<T>) -> Result<T, Failure> {
        value.ok_or_else(|| Failure::text("request", format!("missing or wrong: {key}")))
    }

    pub fn text(&self, key: &str) -> Result<&str, Failure> {
        self.need(key, self.0[key].as_str())
    }

    pub fn number(&self, key: &str) -> Result<u64, Failure> {
        self.need(key, self.0[key].as_u64())
    }

    pub fn number_or(&self, key: &str, default: u64) -> u64 {
        self.0[key].as_u64().unwrap_or(default)
    }

    pub fn flag(&self, key: &str) -> bool {
        self.0[key].as_bool().unwrap_or(false)
    }

    pub fn list(&self, key: &str) -> Result<&[Value], Failure> {
        self.need(key, self.0[key].as_array().map(Vec::as_slice))
    }

    pub fn code(&self) -> Result<VarInt, Failure> {
        Ok(VarInt::from_u64(self.number_or("code", 0))?)
    }

    pub fn bytes(&self, key: &str) -> Result<Vec<u8>, Failure> {
        hex(self.text(key)?)
    }

    /// Bytes to send or to store: `hex`, `text`, or `pattern` many bytes of the pattern.
    pub fn data(&self) -> Result<Vec<u8>, Failure> {
        if let Some(length) = self.0["pattern"].as_u64() {
            return Ok(pattern(length as usize));
        }
        if let Some(text) = self.0["text"].as_str() {
            return Ok(text.as_bytes().to_vec());
        }
        self.bytes("hex")
    }

    /// The peer to dial: `peer` (hex id), `addrs` ("ip:port" texts) and maybe `relay` (a URL).
    pub fn address(&self) -> Result<EndpointAddr, Failure> {
        let id: EndpointId = self.text("peer")?.parse()?;
        let mut addrs = Vec::new();
        for addr in self.list("addrs")? {
            let addr: SocketAddr = addr.as_str().unwrap_or_default().parse()?;
            addrs.push(TransportAddr::Ip(addr));
        }
        if self.get("relay").is_some() {
            addrs.push(TransportAddr::Relay(self.text("relay")?.parse()?));
        }
        Ok(EndpointAddr::from_parts(id, addrs))
    }
}

pub fn hex(text: &str) -> Result<Vec<u8>, Failure> {
    Ok(HEXLOWER_PERMISSIVE.decode(text.as_bytes())?)
}

/// Byte `i` is `i mod 251`.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut data = Vec::with_capacity(length);
    let cycle: Vec<u8> = (0..251).collect();
    while data.len() < length {
        data.extend_from_slice(&cycle[..cycle.len().min(length - data.len())]);
    }
    data
}
