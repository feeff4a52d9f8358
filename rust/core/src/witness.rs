//! Remembers of a path when something was sent that ought to be answered, and when an answer came.
//!
//! The state machine has a congestion controller for each path and tells it just that; so the witness is
//! a controller around the real one.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use noq_proto::{
    Connection, PathId, RttEstimator,
    congestion::{Controller, ControllerFactory, ControllerMetrics},
};

use crate::Instant;

/// Bytes a second, for the first half of the initial window; all of it might leave at once (RFC 9002, section
/// 7.7). The state machine alone lets go of 10 ms' worth, so that on a far path the first request waits for what
/// goes before it. Not more than half: where the window is full and more is to be sent, it sends no
/// acknowledgements either, and two peers that fill theirs at once wait for each other.
const UNPACED: u64 = 1_000_000_000;
/// Bytes that may be sent on a dead path beyond its window, which is full of what was sent in vain.
const ROOM: u64 = 8 * 1024;

/// Makes the controllers of paths: those of `F`, with a witness.
#[derive(Debug)]
pub(crate) struct Witnessed<F>(pub Arc<F>);

impl<F: ControllerFactory + Send + Sync + 'static> ControllerFactory for Witnessed<F> {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Witness {
            inner: self.0.clone().build(now, current_mtu),
            seen: Seen::default(),
            sent: 0,
            insists: Arc::default(),
        })
    }
}

/// What the witness of a path has seen.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Seen {
    /// The first packet since the last answer that asks for one.
    pub waiting: Option<Instant>,
    /// The last answer.
    pub answered: Option<Instant>,
    /// Bytes that have been sent and not answered.
    pub outstanding: u64,
    /// How the time that answers take varies (RFC 9002, 5.3); the state machine keeps its own to itself.
    pub variation: Duration,
}

#[derive(Debug)]
struct Witness {
    inner: Box<dyn Controller>,
    seen: Seen,
    /// Bytes, ever.
    sent: u64,
    /// The path is dead, and has to ask nevertheless what has arrived. Shared with its copies.
    insists: Arc<AtomicBool>,
}

/// What is known of a path; nothing of one that is gone.
pub(crate) fn seen(conn: &Connection, path: PathId) -> Seen {
    witness(conn, path).map_or_else(Seen::default, |witness| witness.seen)
}

/// Lets a path that is dead ask, however much was sent in vain.
pub(crate) fn insist(conn: &Connection, path: PathId) {
    if let Some(witness) = witness(conn, path) {
        witness.insists.store(true, Ordering::Relaxed);
    }
}

fn witness(conn: &Connection, path: PathId) -> Option<Box<Witness>> {
    conn.congestion_state(path)?.clone_box().into_any().downcast().ok()
}

impl Controller for Witness {
    fn on_sent(&mut self, now: Instant, bytes: u64, largest_pn: u64) {
        self.inner.on_sent(now, bytes, largest_pn);
    }

    fn on_packet_sent(&mut self, now: Instant, bytes: u16, pn: u64) {
        self.seen.waiting.get_or_insert(now);
        self.seen.outstanding += u64::from(bytes);
        self.sent += u64::from(bytes);
        self.inner.on_packet_sent(now, bytes, pn);
    }

    fn on_cwnd_limited(&mut self) {
        self.inner.on_cwnd_limited();
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        pn: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.seen.waiting = None;
        if self.seen.answered.replace(now) != Some(now) {
            self.seen.variation = match self.seen.variation {
                Duration::ZERO => rtt.get() / 2,
                before => (3 * before + now.saturating_duration_since(sent).abs_diff(rtt.get())) / 4,
            };
        }
        self.inner.on_ack(now, sent, bytes, pn, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.seen.outstanding = in_flight;
        self.inner.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        is_ecn: bool,
        lost_bytes: u64,
        largest_lost_pn: u64,
    ) {
        self.inner.on_congestion_event(
            now,
            sent,
            is_persistent_congestion,
            is_ecn,
            lost_bytes,
            largest_lost_pn,
        );
    }

    fn on_packet_lost(&mut self, lost_bytes: u16, pn: u64, now: Instant) {
        self.seen.outstanding = self.seen.outstanding.saturating_sub(lost_bytes.into());
        self.inner.on_packet_lost(lost_bytes, pn, now);
    }

    fn on_spurious_congestion_event(&mut self) {
        self.inner.on_spurious_congestion_event();
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn on_ack_frequency_update(&mut self, ack_eliciting_threshold: u64, requested_max_ack_delay: Duration) {
        self.inner.on_ack_frequency_update(ack_eliciting_threshold, requested_max_ack_delay);
    }

    fn window(&self) -> u64 {
        let window = self.inner.window();
        if self.insists.load(Ordering::Relaxed) { window.max(self.seen.outstanding + ROOM) } else { window }
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.inner.metrics();
        if self.sent < self.inner.initial_window() / 2 {
            metrics.pacing_rate.get_or_insert(UNPACED);
        }
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            inner: self.inner.clone_box(),
            seen: self.seen,
            sent: self.sent,
            insists: self.insists.clone(),
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
