//! Whether a client is still there (relay protocol, section 4.1).

use std::time::Duration;

/// The first answer may take as long as this; nothing is known of the way yet.
const LONGEST: Duration = Duration::from_secs(5);
const SHORTEST: Duration = Duration::from_millis(500);
const RTT_FACTOR: u32 = 3;

/// Pings of one connection. Only the latest counts.
#[derive(Debug)]
pub struct Liveness {
    /// Silence after which it is asked.
    interval: Duration,
    heard: Duration,
    asked: Option<([u8; 8], Duration)>,
    rtt: Option<Duration>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    Nothing,
    /// A ping is to be sent.
    Ask,
    /// It has not answered.
    Dead,
}

impl Liveness {
    pub fn new(interval: Duration, now: Duration) -> Self {
        Self { interval, heard: now, asked: None, rtt: None }
    }

    pub fn deadline(&self) -> Duration {
        match self.asked {
            Some((_, at)) => at + self.rtt.map_or(LONGEST, |rtt| (rtt * RTT_FACTOR).clamp(SHORTEST, LONGEST)),
            None => self.heard + self.interval,
        }
    }

    pub fn due(&self, now: Duration) -> Due {
        if now < self.deadline() {
            Due::Nothing
        } else if self.asked.is_some() {
            Due::Dead
        } else {
            Due::Ask
        }
    }

    pub fn ask(&mut self, data: [u8; 8], now: Duration) {
        self.asked = Some((data, now));
    }

    pub fn frame_came(&mut self, now: Duration) {
        self.heard = now;
    }

    pub fn pong_came(&mut self, data: [u8; 8], now: Duration) {
        if let Some((asked, at)) = self.asked
            && asked == data
        {
            self.rtt = Some(now.saturating_sub(at));
            self.asked = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_is_silent_is_asked_and_then_given_up() {
        let s = Duration::from_secs;
        let mut liveness = Liveness::new(s(16), s(100));
        assert_eq!((liveness.deadline(), liveness.due(s(115))), (s(116), Due::Nothing));
        liveness.frame_came(s(110));
        assert_eq!((liveness.due(s(116)), liveness.due(s(126))), (Due::Nothing, Due::Ask));
        liveness.ask([1; 8], s(126));
        assert_eq!((liveness.deadline(), liveness.due(s(131))), (s(131), Due::Dead));
        liveness.pong_came([2; 8], s(127));
        assert_eq!(liveness.due(s(131)), Due::Dead);
        liveness.pong_came([1; 8], s(127));
        liveness.frame_came(s(127));
        assert_eq!(liveness.deadline(), s(143));
        liveness.ask([3; 8], s(143));
        assert_eq!(liveness.deadline(), s(146));
    }
}
