//! The paths of one connection that are open, which of them do not answer, and how their packets are told lost.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use noq_proto::{Connection, FourTuple, NetworkChangeHint, PathId, PathStatus};

use crate::{
    Instant,
    connection::path_number,
    event::{ConnId, Event},
    witness::{insist, seen},
};

/// How often a path that ought to answer is looked at.
const INTERVAL: Duration = Duration::from_millis(100);
/// Shorter silences mean nothing, unless the peer itself thinks little of the path.
const MIN_PATIENCE: Duration = Duration::from_secs(1);
/// After a longer one a path that is alone asks at once: else it would ask much later, as it has done so in vain more
/// and more seldom.
const LONG_SILENCE: Duration = Duration::from_secs(5);
/// For how long the packets of a dead path take another way, too.
const DETOUR: Duration = Duration::from_secs(5);
/// What a peer may take to acknowledge.
const ACK_DELAY: Duration = Duration::from_millis(25);

#[derive(Debug)]
struct Open {
    path: PathId,
    silent: bool,
    /// Where the peer is on this path. What comes from elsewhere has taken a detour, and says nothing of it.
    remote: SocketAddr,
    heard: Instant,
    heard_now: bool,
    detour: Option<Detour>,
}

/// Another way for the packets of a path that is dead.
///
/// The library sends again what was under way on a path only when the peer has acknowledged a later packet of the same
/// path, or three probe time-outs after both sides have given it up. A later packet that comes by another way is
/// acknowledged as any other, since peers that punch holes take packets of a path from elsewhere.
#[derive(Debug, Clone, Copy)]
struct Detour {
    to: SocketAddr,
    until: Instant,
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
    pub fn opened(&mut self, conn: &Connection, path: PathId, now: Instant) {
        if let Ok(network) = conn.network_path(path)
            && !self.is_open(path)
        {
            let remote = network.remote();
            self.open.push(Open { path, silent: false, remote, heard: now, heard_now: false, detour: None });
        }
    }

    /// A datagram has come from there.
    pub fn heard(&mut self, remote: SocketAddr, now: Instant) {
        for open in &mut self.open {
            if open.remote == remote {
                open.heard = now;
                open.heard_now = true;
            }
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
        self.follow(conn);
        if let [open] = &mut self.open[..] {
            // There is no other way, so nobody needs to know how it does.
            return revive(open, conn, now);
        }
        let mut asked = false;
        for open in &mut self.open {
            let is_heard = std::mem::take(&mut open.heard_now);
            let answers = answers(conn, open.path, open.heard, now);
            open.detour.take_if(|detour| detour.until <= now);
            let asks_again = open.detour.is_some() && !answers.unanswered.is_zero();
            // The state machine asks more and more seldom; an answer would come now.
            if is_heard && open.silent || asks_again {
                asked |= conn.ping_path(open.path).is_ok();
            }
            if open.detour.is_some() {
                self.due = Some(now + INTERVAL);
            }
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

    /// A peer may move with a path; but where another path leads it is on a detour.
    fn follow(&mut self, conn: &Connection) {
        for index in 0..self.open.len() {
            if let Ok(network) = conn.network_path(self.open[index].path)
                && !self.open.iter().any(|open| open.remote == network.remote())
            {
                self.open[index].remote = network.remote();
            }
        }
    }

    /// For a while what is sent on `path`, which is dead, goes to where `by` leads, too; asks at once what has arrived.
    pub fn detour(
        &mut self,
        conn: &mut Connection,
        path: PathId,
        by: PathId,
        now: Instant,
    ) -> Result<(), String> {
        let open = self.open.iter_mut().find(|open| open.path == path).ok_or("no such path")?;
        let to = conn.network_path(by).map_err(|error| error.to_string())?.remote();
        open.detour = Some(Detour { to, until: now + DETOUR });
        self.due = Some(now + INTERVAL);
        insist(conn, path);
        conn.ping_path(path).map_err(|error| error.to_string())
    }

    /// Where a datagram goes, too, that is sent from and to these addresses.
    pub fn detour_of(
        &self,
        conn: &Connection,
        remote: SocketAddr,
        local: Option<IpAddr>,
    ) -> Option<SocketAddr> {
        let leaves = |path| {
            conn.network_path(path)
                .is_ok_and(|network| network.remote() == remote && network.local_ip() == local)
        };
        self.open.iter().find_map(|open| open.detour.filter(|_| leaves(open.path))).map(|detour| detour.to)
    }

    /// None: no such path.
    pub fn answers(&self, conn: &Connection, path: PathId, now: Instant) -> Option<Answers> {
        let open = self.open.iter().find(|open| open.path == path)?;
        Some(answers(conn, path, open.heard, now))
    }
}

/// Has a path that was silent for long, and is heard again, ask what has arrived. Whether it does.
fn revive(open: &mut Open, conn: &mut Connection, now: Instant) -> bool {
    if !std::mem::take(&mut open.heard_now) {
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
        quiet: now.saturating_duration_since(heard),
    }
}
