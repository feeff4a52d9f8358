//! How a client proves its key to a relay (relay protocol, section 2).
//!
//! Either it signs a challenge, or it has sent a header with a signature over keying material of the
//! TLS session, which spares a round trip.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::frame::{FrameError, Key, split_type};

/// Name of the header with the signature over keying material.
pub const AUTH_HEADER: &str = "x-iroh-relay-client-auth-v1";
/// Label under which TLS exports keying material; the context is the client's public key.
pub const EXPORTER_LABEL: &[u8] = b"iroh-relay handshake v1";
/// Bytes of keying material: half is signed, half is shown.
pub const KEYING_MATERIAL: usize = 32;

const CHALLENGE_CONTEXT: &str = "iroh-relay handshake v1 challenge signature";
const CHALLENGE: u8 = 0;
const CLIENT_AUTH: u8 = 1;
const CONFIRMS: u8 = 2;
const DENIES: u8 = 3;
const SIGNATURE_LEN: u8 = 64;
/// Key, length and signature, and the half of the keying material that is shown.
const HEADER_BYTES: usize = 32 + 1 + 64 + 16;
/// Bytes of a reason that are sent; a receiver takes what fits into a frame.
const MAX_REASON: usize = 1024;

/// Messages before the first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Challenge([u8; 16]),
    ClientAuth { key: Key, signature: [u8; 64] },
    Confirms,
    Denies(String),
}

impl Message {
    /// Reads a message; more bytes than it needs are ignored, as upstream does.
    pub fn decode(message: &Bytes) -> Result<Self, FrameError> {
        let (number, payload) = split_type(message)?;
        let wrong = FrameError::Length { frame_type: number, length: payload.len() };
        let head = |len: usize| payload.get(..len).ok_or(wrong);
        match u8::try_from(number) {
            Ok(CHALLENGE) => {
                let mut challenge = [0; 16];
                challenge.copy_from_slice(head(16)?);
                Ok(Self::Challenge(challenge))
            }
            Ok(CLIENT_AUTH) => {
                let bytes = head(97)?;
                if bytes[32] != SIGNATURE_LEN {
                    return Err(wrong);
                }
                let (mut key, mut signature) = ([0; 32], [0; 64]);
                key.copy_from_slice(&bytes[..32]);
                signature.copy_from_slice(&bytes[33..]);
                Ok(Self::ClientAuth { key, signature })
            }
            Ok(CONFIRMS) => Ok(Self::Confirms),
            Ok(DENIES) => {
                let (len, used) = varint(&payload).ok_or(wrong)?;
                let text = payload.get(used..).and_then(|rest| rest.get(..len)).ok_or(wrong)?;
                String::from_utf8(text.to_vec()).map(Self::Denies).map_err(|_| FrameError::Text)
            }
            _ => Err(FrameError::UnexpectedType(number)),
        }
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Challenge(challenge) => {
                out.push(CHALLENGE);
                out.extend_from_slice(challenge);
            }
            Self::ClientAuth { key, signature } => {
                out.push(CLIENT_AUTH);
                out.extend_from_slice(key);
                out.push(SIGNATURE_LEN);
                out.extend_from_slice(signature);
            }
            Self::Confirms => out.push(CONFIRMS),
            Self::Denies(reason) => {
                let mut end = reason.len().min(MAX_REASON);
                while !reason.is_char_boundary(end) {
                    end -= 1;
                }
                out.push(DENIES);
                let mut len = end;
                while len >= 0x80 {
                    out.push(len as u8 | 0x80);
                    len >>= 7;
                }
                out.push(len as u8);
                out.extend_from_slice(&reason.as_bytes()[..end]);
            }
        }
    }
}

/// A number of the postcard encoding, and the bytes it took. Larger ones than a length here are none.
fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}

/// The answer to a challenge.
pub fn answer(key: &SigningKey, challenge: &[u8; 16]) -> Message {
    let signature = key.sign(&challenge_message(challenge)).to_bytes();
    Message::ClientAuth { key: key.verifying_key().to_bytes(), signature }
}

/// Whether that is the answer to the challenge by the owner of the key.
pub fn answers(key: &Key, signature: &[u8; 64], challenge: &[u8; 16]) -> bool {
    verifies(key, signature, &challenge_message(challenge))
}

fn challenge_message(challenge: &[u8; 16]) -> [u8; 32] {
    blake3::derive_key(CHALLENGE_CONTEXT, challenge)
}

fn verifies(key: &Key, signature: &[u8; 64], message: &[u8]) -> bool {
    VerifyingKey::from_bytes(key)
        .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
}

/// The header that proves the key by the keying material of the TLS session.
pub fn header(key: &SigningKey, material: &[u8; KEYING_MATERIAL]) -> String {
    let signature = key.sign(&material[..16]).to_bytes();
    let mut blob = Vec::with_capacity(HEADER_BYTES);
    blob.extend_from_slice(key.verifying_key().as_bytes());
    blob.push(SIGNATURE_LEN);
    blob.extend_from_slice(&signature);
    blob.extend_from_slice(&material[16..]);
    URL_SAFE_NO_PAD.encode(blob)
}

/// What a client claims in its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub key: Key,
    signature: [u8; 64],
    suffix: [u8; 16],
}

impl Claim {
    /// None: the header is malformed, which ends the connection.
    pub fn parse(header: &str) -> Option<Self> {
        let blob = URL_SAFE_NO_PAD.decode(header).ok()?;
        let blob = blob.get(..HEADER_BYTES)?;
        if blob[32] != SIGNATURE_LEN {
            return None;
        }
        Some(Self {
            key: blob[..32].try_into().ok()?,
            signature: blob[33..97].try_into().ok()?,
            suffix: blob[97..].try_into().ok()?,
        })
    }

    /// Whether it holds for this session; if not, the client is asked the other way.
    pub fn holds(&self, material: &[u8; KEYING_MATERIAL]) -> bool {
        self.suffix == material[16..] && verifies(&self.key, &self.signature, &material[..16])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[0x2a; 32])
    }

    #[test]
    fn the_challenge_of_the_reference() {
        let challenge: [u8; 16] = std::array::from_fn(|i| i as u8);
        assert_eq!(
            challenge_message(&challenge)[..],
            hex("b7b16e505d2cb5dbaf494800092c3b05a6c45d8d3fd4f1b888c6a77240b876c0")
        );
        let message = answer(&key(), &challenge);
        let mut out = Vec::new();
        message.encode(&mut out);
        assert_eq!(
            out,
            hex(concat!(
                "01",
                "197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61",
                "40",
                "a28b5ebc6a930b5d80ad5aca2a8e48ad4a064e699c0866674c8b8e61a5f4ea94",
                "0ee8b9f06732930250ac0735555abe77e8df740165edc3163be432f0e4f3cf0f"
            ))
        );
        let Ok(Message::ClientAuth { key, mut signature }) = Message::decode(&out.into()) else { panic!() };
        assert!(answers(&key, &signature, &challenge));
        assert!(!answers(&key, &signature, &[0; 16]));
        signature[5] ^= 1;
        assert!(!answers(&key, &signature, &challenge));
    }

    #[test]
    fn the_header_of_the_reference() {
        let material: [u8; 32] = std::array::from_fn(|i| 0x80 + i as u8);
        let text = header(&key(), &material);
        assert_eq!(
            text,
            concat!(
                "GX9rI-FshTLGq8g4-s1ep4m-DHaykgM0A5v6iz02jWFAn75pWeW3qngbasT_kH9ZlqdyvKP_cnO93lm5ZlfCa44u",
                "c8vgyEDIdRVgxbCJf5sT_vo3idxj3lV4uWJ3trdUBZCRkpOUlZaXmJmam5ydnp8"
            )
        );
        let claim = Claim::parse(&text).unwrap();
        assert_eq!(claim.key, key().verifying_key().to_bytes());
        assert!(claim.holds(&material));
        let mut other = material;
        other[0] ^= 1;
        assert!(!claim.holds(&other));
        assert_eq!(Claim::parse(&text[..150]), None);
        assert_eq!(Claim::parse("?"), None);
    }

    #[test]
    fn what_upstream_tolerates() {
        let decode = |bytes: &[u8]| Message::decode(&Bytes::copy_from_slice(bytes));
        assert_eq!(decode(&[2, 0xff, 0xff]), Ok(Message::Confirms));
        assert_eq!(decode(&[0x40, 2]), Ok(Message::Confirms));
        assert_eq!(decode(&[&[0][..], &[7; 20]].concat()), Ok(Message::Challenge([7; 16])));
        assert!(matches!(decode(&[&[0][..], &[7; 15]].concat()), Err(FrameError::Length { .. })));
        assert_eq!(decode(b"\x03\x0enot authorized"), Ok(Message::Denies("not authorized".into())));
        assert_eq!(decode(b"\x03\x01\xff"), Err(FrameError::Text));
        assert_eq!(decode(&[9, 1, 2, 3, 4, 5, 6, 7, 8]), Err(FrameError::UnexpectedType(9)));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let mut out = Vec::new();
        Message::Denies("é".repeat(1000)).encode(&mut out);
        assert_eq!(Message::decode(&out.into()), Ok(Message::Denies("é".repeat(512))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..150), head in 0u8..5) {
            let _ = Message::decode(&bytes.clone().into());
            let mut typed = bytes.clone();
            typed.insert(0, head);
            if let Ok(message) = Message::decode(&typed.into()) {
                let mut out = Vec::new();
                message.encode(&mut out);
                prop_assert_eq!(Message::decode(&out.into()), Ok(message));
            }
            let _ = Claim::parse(&String::from_utf8_lossy(&bytes));
        }
    }
}
