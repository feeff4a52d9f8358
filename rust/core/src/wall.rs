//! The date on address tokens, for engines whose time is simulated.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use noq_proto::TimeSource;

use crate::{Instant, SystemTime, UNIX_EPOCH};

/// 2026-01-01 00:00:00 UTC.
const START: Duration = Duration::from_secs(1_767_225_600);

/// A wall clock that follows the engine's time. With the machine's clock, which the library would read
/// by itself, a simulation does not repeat: whether a token is accepted depends on its date.
#[derive(Debug, Default)]
pub(crate) struct SimulatedWall {
    start: OnceLock<Instant>,
    nanos: AtomicU64,
}

impl SimulatedWall {
    pub(crate) fn advance(&self, now: Instant) {
        let start = *self.start.get_or_init(|| now);
        let nanos = now.saturating_duration_since(start).as_nanos() as u64;
        self.nanos.store(nanos, Ordering::Relaxed);
    }
}

impl TimeSource for SimulatedWall {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + START + Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_time_it_is_given() {
        let wall = SimulatedWall::default();
        assert_eq!(wall.now(), UNIX_EPOCH + START);
        let first = Instant::now();
        wall.advance(first);
        assert_eq!(wall.now(), UNIX_EPOCH + START);
        wall.advance(first + Duration::from_secs(86_400));
        assert_eq!(wall.now(), UNIX_EPOCH + START + Duration::from_secs(86_400));
    }
}
