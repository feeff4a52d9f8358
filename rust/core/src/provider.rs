//! The library that does the cryptography of every TLS and QUIC connection, relays' too.
//!
//! AWS-LC, whose key agreement and signatures take half as long as ring's; in browsers, for which it cannot
//! be compiled, ring. On the wire nobody can tell which.

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
use rustls::crypto::aws_lc_rs as library;
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use rustls::crypto::ring as library;

/// One for all endpoints.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || {
        // What upstream offers, in its order. AWS-LC would add groups that upstream does not know.
        let kx_groups =
            vec![library::kx_group::X25519, library::kx_group::SECP256R1, library::kx_group::SECP384R1];
        Arc::new(CryptoProvider { kx_groups, ..library::default_provider() })
    };
    PROVIDER.get_or_init(make).clone()
}

#[cfg(test)]
mod tests {
    use rustls::{CipherSuite, NamedGroup};

    use super::*;

    #[test]
    fn offers_what_upstream_offers() {
        let groups: Vec<_> = provider().kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(groups, [NamedGroup::X25519, NamedGroup::secp256r1, NamedGroup::secp384r1]);
        let suites: Vec<_> = provider().cipher_suites.iter().map(|suite| suite.suite()).collect();
        assert_eq!(
            suites,
            [
                CipherSuite::TLS13_AES_256_GCM_SHA384,
                CipherSuite::TLS13_AES_128_GCM_SHA256,
                CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
            ]
        );
    }
}
