//! Mutual authentication by Ed25519 raw public keys (RFC 7250) as iroh uses it.
//!
//! The dialled key travels into the verifier as the server name `<base32hex key>.iroh.invalid`. It is
//! not sent: SNI is off.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    sync::{Arc, Mutex},
};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use noq_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, KeyLog,
    PeerIncompatible, ServerConfig, SignatureAlgorithm, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, ClientSessionMemoryCache, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, Signer as TlsSigner, SigningKey as TlsSigningKey},
};

use crate::provider::provider;

const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const NAME_SUFFIX: &str = ".iroh.invalid";
const BASE32HEX: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// The Ed25519 key in a DER SubjectPublicKeyInfo, if it is exactly that.
pub fn key_of_spki(spki: &[u8]) -> Option<[u8; 32]> {
    let key = spki.strip_prefix(&SPKI_PREFIX)?;
    key.try_into().ok()
}

fn spki(key: &[u8; 32]) -> Vec<u8> {
    [&SPKI_PREFIX[..], key].concat()
}

/// The name under which a key is dialled inside TLS.
pub fn server_name(key: &[u8; 32]) -> String {
    let mut name = String::with_capacity(52 + NAME_SUFFIX.len());
    let (mut acc, mut bits) = (0u32, 0);
    for &byte in key {
        acc = (acc << 8) | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            name.push(BASE32HEX[(acc >> bits) as usize & 31] as char);
        }
        acc &= 0xff;
    }
    name.push(BASE32HEX[(acc << (5 - bits)) as usize & 31] as char);
    name.push_str(NAME_SUFFIX);
    name
}

fn key_of_name(name: &str) -> Option<[u8; 32]> {
    let label = name.strip_suffix(NAME_SUFFIX)?;
    let mut key = Vec::with_capacity(33);
    let (mut acc, mut bits) = (0u32, 0);
    for c in label.bytes() {
        let value = BASE32HEX.iter().position(|&d| d == c)? as u32;
        acc = (acc << 5) | value;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            key.push((acc >> bits) as u8);
            acc &= (1 << bits) - 1;
        }
    }
    key.try_into().ok()
}

#[derive(Debug)]
struct Identity(SigningKey);

impl TlsSigningKey for Identity {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn TlsSigner>> {
        offered
            .contains(&SignatureScheme::ED25519)
            .then(|| Box::new(Identity(self.0.clone())) as Box<dyn TlsSigner>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(spki(self.0.verifying_key().as_bytes()).into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl TlsSigner for Identity {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.sign(message).to_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Verifies peers in both roles. Tickets are bound to the verifier object, so an endpoint keeps one.
#[derive(Debug)]
struct Verifier;

impl Verifier {
    fn signature(
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if signed.scheme != SignatureScheme::ED25519 {
            return Err(PeerIncompatible::NoSignatureSchemesInCommon.into());
        }
        let bad = || Error::InvalidCertificate(CertificateError::BadSignature);
        let key = key_of_spki(cert).ok_or_else(bad)?;
        let key = VerifyingKey::from_bytes(&key).map_err(|_| bad())?;
        let signature = Signature::from_slice(signed.signature()).map_err(|_| bad())?;
        // Strict: no small-order keys, no malleable signatures.
        key.verify_strict(message, &signature).map_err(|_| bad())?;
        Ok(HandshakeSignatureValid::assertion())
    }

    fn tls12() -> Error {
        PeerIncompatible::Tls12NotOffered.into()
    }
}

/// What the two roles of a verifier have in common, and rustls asks of each: how a peer proves its key.
macro_rules! signature_hooks {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Self::tls12())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Self::signature(message, cert, signed)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ServerName::DnsName(name) = server_name else {
            return Err(Error::InvalidCertificate(CertificateError::NotValidForName));
        };
        let dialled = key_of_name(name.as_ref()).ok_or(CertificateError::NotValidForName)?;
        if !intermediates.is_empty() || end_entity.as_ref() != spki(&dialled) {
            return Err(CertificateError::UnknownIssuer.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    signature_hooks!();
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if !intermediates.is_empty() || key_of_spki(end_entity).is_none() {
            return Err(CertificateError::UnknownIssuer.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    signature_hooks!();
}

/// Writes TLS secrets in NSS key log format, for packet analysers.
#[derive(Debug)]
struct KeyLogFile(Mutex<File>);

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        fn hex(bytes: &[u8]) -> String {
            bytes.iter().map(|b| format!("{b:02x}")).collect()
        }
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        if let Ok(mut file) = self.0.lock() {
            // A full disk must not end connections.
            let _ = file.write_all(line.as_bytes());
        }
    }
}

/// The TLS side of an endpoint.
pub struct Tls {
    public: [u8; 32],
    client: ClientConfig,
    server: ServerConfig,
    keys: Arc<CertifiedKey>,
    certified: bool,
}

impl Tls {
    pub fn new(secret: &[u8; 32], keylog: Option<&Path>, max_tickets: usize) -> std::io::Result<Self> {
        let signing = SigningKey::from_bytes(secret);
        let public = signing.verifying_key().to_bytes();
        let keys = Arc::new(CertifiedKey::new(
            vec![CertificateDer::from(spki(&public))],
            Arc::new(Identity(signing)),
        ));
        let provider = provider();
        let verifier = Arc::new(Verifier);
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(keys.clone())));
        client.enable_sni = false;
        // The cache counts servers and keeps eight tickets for each.
        client.resumption =
            Resumption::store(Arc::new(ClientSessionMemoryCache::new(max_tickets.div_ceil(8))));
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(keys.clone())));
        server.max_early_data_size = u32::MAX;
        if let Some(path) = keylog {
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            let log: Arc<dyn KeyLog> = Arc::new(KeyLogFile(Mutex::new(file)));
            client.key_log = log.clone();
            server.key_log = log;
        }
        Ok(Self { public, client, server, keys, certified: false })
    }

    /// The endpoint's own key.
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    pub fn client(&self, alpns: Vec<Vec<u8>>, early_data: bool) -> QuicClientConfig {
        let mut config = self.client.clone();
        config.alpn_protocols = alpns;
        config.enable_early_data = early_data;
        QuicClientConfig::try_from(config).expect("the provider has the initial suite")
    }

    /// From now on the endpoint shows an ordinary certificate to those who connect, in place of its key,
    /// and asks them for none.
    pub fn use_certificate(
        &mut self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), Error> {
        let key_log = self.server.key_log.clone();
        let builder = ServerConfig::builder_with_provider(self.server.crypto_provider().clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        self.server = builder.with_no_client_auth().with_single_cert(chain, key)?;
        self.server.key_log = key_log;
        self.certified = true;
        Ok(())
    }

    /// Whether those who connect stay without a key.
    pub fn is_certified(&self) -> bool {
        self.certified
    }

    pub fn server(&self, alpns: Vec<Vec<u8>>) -> QuicServerConfig {
        let mut config = self.server.clone();
        config.alpn_protocols = alpns;
        QuicServerConfig::try_from(config).expect("the provider has the initial suite")
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("certificates", &self.keys.cert.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_keys() {
        let key = SigningKey::from_bytes(&[0; 32]).verifying_key().to_bytes();
        let name = server_name(&key);
        assert_eq!(name, "7dl2ff6emqi2qol3l382krodedij45bn3nh479hqo14a32qpr8kg.iroh.invalid");
        assert_eq!(key_of_name(&name), Some(key));
        assert_eq!(key_of_name("short.iroh.invalid"), None);
        assert_eq!(key_of_name("example.org"), None);
        assert_eq!(key_of_spki(&spki(&key)), Some(key));
        assert_eq!(key_of_spki(&key), None);
    }
}
