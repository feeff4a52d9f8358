//! The paths of one connection that are open, and which of them do not answer.

use std::time::Duration;

use noq_proto::{Connection, FourTuple, NetworkChangeHint, PathId, PathStatus};

use crate::{
    Instant,
    connection::path_number,
    event::{ConnId, Event},
    witness::seen,
};

/// How often a path that ought to answer is looked at.
const INTERVAL: Duration = Duration::from_millis(100);
/// Shorter silences mean nothing, unless the peer itself thinks little of the path.
const MIN_PATIENCE: Duration = Duration::from_secs(1);
/// After a longer one a path that is alone asks at once: else it would ask much later, as it has done so in vain more
/// and more seldom.
const LONG_SILENCE: Duration = Duration::from_secs(5);
/// What a peer may take to acknowledge.
const ACK_DELAY: Duration = Duration::from_millis(25);

#[derive(Debug)]
struct Open {
    path: PathId,
    silent: bool,
    received: u64,
    heard: Instant,
}

impl Open {
    /// Whether anything has come since the last look.
    fn hears(&mut self, conn: &mut Connection, now: Instant) -> bool {
        let received = conn.path_stats(self.path).map_or(0, |stats| stats.udp_rx.datagrams);
        let is_heard = received != std::mem::replace(&mut self.received, received);
        if is_heard {
            self.heard = now;
        }
        is_heard
    }
}

/// How a path answers.
#[derive(Debug, Clone, Copy)]
pub struct Answers {
    /// How long something has been waiting for an answer; zero if nothing is.
    pub unanswered: Duration,
    /// How long it may.
    pub patience: Duration,
    /// Bytes that wait for an answer.
    pub outstanding: u64,
    /// Since when nothing has come from the peer, neither answers nor anything else.
    pub quiet: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct PathWatch {
    open: Vec<Open>,
    /// When to look.
    pub due: Option<Instant>,
}

impl PathWatch {
    pub fn opened(&mut self, path: PathId, now: Instant) {
        if !self.is_open(path) {
            self.open.push(Open { path, silent: false, received: 0, heard: now });
        }
    }

    pub fn abandoned(&mut self, path: PathId) {
        self.open.retain(|open| open.path != path);
    }

    /// Whether data could use it, or could as soon as it is validated.
    pub fn is_open(&self, path: PathId) -> bool {
        self.open.iter().any(|open| open.path == path)
    }

    /// The connection has had a turn.
    pub fn after_turn(&mut self, now: Instant) {
        if !self.open.is_empty() && self.due.is_none() {
            self.due = Some(now + INTERVAL);
        }
    }

    /// Looks at all paths and tells of those that have fallen silent, or are heard again. Whether the
    /// connection has something to send then: a look alone is no turn, else each would bring the next one.
    pub fn look(&mut self, conn: &mut Connection, id: ConnId, now: Instant, events: &mut Vec<Event>) -> bool {
        self.due = None;
        if let [open] = &mut self.open[..] {
            // There is no other way, so nobody needs to know how it does.
            return revive(open, conn, now);
        }
        let mut asked = false;
        for open in &mut self.open {
            if open.hears(conn, now) && open.silent {
                // The state machine asks more and more seldom; an answer would come now.
                asked |= conn.ping_path(open.path).is_ok();
            }
            let answers = answers(conn, open.path, open.heard, now);
            let silent = answers.unanswered >= answers.patience;
            if silent != std::mem::replace(&mut open.silent, silent) {
                events.push(Event::PathSilent { conn: id, path: path_number(open.path), silent });
            }
            if !silent && !answers.unanswered.is_zero() {
                self.due = Some(now + INTERVAL);
            }
        }
        asked
    }

    /// None: no such path.
    pub fn answers(&self, conn: &Connection, path: PathId, now: Instant) -> Option<Answers> {
        let open = self.open.iter().find(|open| open.path == path)?;
        Some(answers(conn, path, open.heard, now))
    }
}

/// Has a path that was silent for long, and is heard again, ask what has arrived. Whether it does.
fn revive(open: &mut Open, conn: &mut Connection, now: Instant) -> bool {
    if !open.hears(conn, now) {
        return false;
    }
    let waiting = seen(conn, open.path).waiting;
    if waiting.is_none_or(|since| now.saturating_duration_since(since) < LONG_SILENCE) {
        return false;
    }
    wake(conn, now);
    true
}

/// Has every path of a connection ask now whether it works.
///
/// A ping would not do: what was sent in vain fills the window, which holds back pings, and acknowledgements, too;
/// the peer may wait for the same.
pub fn wake(conn: &mut Connection, now: Instant) {
    conn.handle_network_change(Some(&StillThere), now);
}

/// No path has lost its address.
#[derive(Debug)]
struct StillThere;

impl NetworkChangeHint for StillThere {
    fn is_path_recoverable(&self, _path: PathId, _network_path: FourTuple) -> bool {
        true
    }
}

fn answers(conn: &Connection, path: PathId, heard: Instant, now: Instant) -> Answers {
    let seen = seen(conn, path);
    let rtt = conn.rtt(path).unwrap_or_default();
    let asked_thrice = 3 * (rtt + 4 * seen.variation + ACK_DELAY);
    let doubted = conn.remote_path_status(path) == Some(PathStatus::Backup);
    Answers {
        unanswered: seen.waiting.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
        outstanding: seen.outstanding,
        patience: if doubted { asked_thrice } else { asked_thrice.max(MIN_PATIENCE) },
        quiet: now.saturating_duration_since(seen.answered.map_or(heard, |answered| answered.max(heard))),
    }
}
