//! Servers that prove a name by an ordinary certificate, and what they say of the client's address.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use aioiroh_core::{
    config::Transport,
    event::{Close, ConnId, Event},
    noq_proto::crypto::rustls::QuicClientConfig,
    provider::provider,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::world::{CLIENT, Nowhere, PERFECT, SERVER, World};

const PEM: &[u8] = include_bytes!("../../../relay/tests/relay.test.pem");
const NAME: &str = "relay.test";

fn certificate() -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(PEM).unwrap()
}

fn trusting(roots: RootCertStore) -> Arc<QuicClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"test".to_vec()];
    Arc::new(QuicClientConfig::try_from(config).unwrap())
}

/// A server that reports addresses, shown the certificate of `NAME`.
fn world(report: bool) -> World {
    let transport = Transport { send_observed_addresses: report, max_paths: 0, ..Transport::default() };
    let mut world = World::new(1, PERFECT, transport);
    let key = PrivateKeyDer::from_pem_slice(PEM).unwrap();
    world.nodes[SERVER].engine.use_certificate(vec![certificate()], key).unwrap();
    world
}

fn dial(world: &mut World, name: &str, roots: RootCertStore) -> ConnId {
    let server = world.nodes[SERVER].address;
    let transport = Transport { receive_observed_addresses: true, max_paths: 0, ..Transport::default() };
    world.nodes[CLIENT]
        .engine
        .connect_named(world.now, server, name, trusting(roots), Some(&transport))
        .unwrap()
}

fn known() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(certificate()).unwrap();
    roots
}

/// Why the client gives up.
fn refusal(world: &mut World) -> String {
    let mut reason = None;
    world.run_until(Duration::from_secs(30), |world| {
        let now = world.now;
        let knock = |event: &Event| if let Event::Incoming { id, .. } = event { Some(*id) } else { None };
        if let Some(id) = world.find(SERVER, knock) {
            let _ = world.nodes[SERVER].engine.accept(now, id, None, None, &mut Nowhere).unwrap();
        }
        reason = world.find(CLIENT, |event| match event {
            Event::Closed { close, .. } => Some(close.clone()),
            _ => None,
        });
        reason.is_some()
    });
    match reason.unwrap() {
        Close::Transport { reason, .. } => reason,
        Close::PeerTransport { reason, .. } => String::from_utf8_lossy(&reason).into_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_client_hears_its_address_and_nobody_has_a_key() {
    let mut world = world(true);
    dial(&mut world, NAME, known());
    let mut peers = Vec::new();
    let mut observed = None;
    world.run_until(Duration::from_secs(5), |world| {
        let now = world.now;
        for node in [CLIENT, SERVER] {
            let found = world.find(node, |event| match event {
                Event::Connected { peer, alpn, .. } => Some((node, *peer, alpn.clone())),
                _ => None,
            });
            peers.extend(found);
        }
        let knock = |event: &Event| if let Event::Incoming { id, .. } = event { Some(*id) } else { None };
        if let Some(id) = world.find(SERVER, knock) {
            world.nodes[SERVER].engine.accept(now, id, None, None, &mut Nowhere).unwrap().unwrap();
        }
        observed = observed.or_else(|| {
            world.find(CLIENT, |event| match event {
                Event::PathObserved { address, .. } => Some(*address),
                _ => None,
            })
        });
        observed.is_some() && peers.len() == 2
    });
    assert_eq!(observed, Some(SocketAddr::from(([10, 0, 0, 1], 4000))));
    for (_, peer, alpn) in peers {
        assert_eq!((peer, &alpn[..]), (None, &b"test"[..]));
    }
}

#[test]
fn nothing_is_reported_that_was_not_agreed_on() {
    let mut world = world(false);
    dial(&mut world, NAME, known());
    world.accept();
    world.run_for(Duration::from_secs(1));
    let observed = |event: &Event| matches!(event, Event::PathObserved { .. }).then_some(());
    assert_eq!(world.find(CLIENT, observed), None);
}

#[test]
fn a_server_of_another_name_is_refused() {
    let mut world = world(true);
    dial(&mut world, "other.test", known());
    assert!(refusal(&mut world).contains("not valid for name"));
}

#[test]
fn a_certificate_of_unknown_origin_is_refused() {
    let mut world = world(true);
    dial(&mut world, NAME, RootCertStore::empty());
    assert!(refusal(&mut world).contains("UnknownIssuer"));
}

#[test]
fn a_peer_dialled_by_key_may_not_show_a_certificate() {
    let mut world = world(true);
    world.dial(false);
    assert!(refusal(&mut world).contains("IncorrectCertificateTypeExtension"));
}
