//! How fast a client may send (relay protocol, section 4.5).

use std::time::Duration;

const PERIOD: Duration = Duration::from_millis(100);
const PERIODS_PER_SECOND: u32 = 10;

/// Bytes per second, and how many at once. Neither is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub bytes_per_second: u32,
    pub burst: u32,
}

/// A bucket that is filled ten times a second. What was read is never taken back: the next read comes later.
#[derive(Debug)]
pub struct Pace {
    rate: Rate,
    fill: i64,
    filled_at: Duration,
}

impl Pace {
    /// It starts full.
    pub fn new(rate: Rate, now: Duration) -> Self {
        Self { rate, fill: i64::from(rate.burst), filled_at: now }
    }

    /// Bytes have come: for how long nothing may be read, if for any time.
    pub fn spend(&mut self, bytes: usize, now: Duration) -> Option<Duration> {
        let quantum = i64::from((self.rate.bytes_per_second / PERIODS_PER_SECOND).max(1));
        let periods = (now.saturating_sub(self.filled_at).as_nanos() / PERIOD.as_nanos()) as u32;
        self.filled_at += PERIOD * periods;
        let full = i64::from(self.rate.burst);
        self.fill = (self.fill + quantum * i64::from(periods)).min(full) - bytes as i64;
        if self.fill > 0 {
            return None;
        }
        let missing = u32::try_from(-self.fill / quantum).unwrap_or(u32::MAX - 1) + 1;
        Some((self.filled_at + PERIOD * missing).saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { bytes_per_second: 1000, burst: 150 };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_next_read_waits_for_what_was_overspent() {
        let mut pace = Pace::new(RATE, ms(1000));
        assert_eq!(pace.spend(149, ms(1000)), None);
        // Nothing is left: until one quantum has come.
        assert_eq!(pace.spend(1, ms(1030)), Some(ms(70)));
        // 100 came, 350 were spent: 250 missing are 3 periods.
        assert_eq!(pace.spend(350, ms(1100)), Some(ms(300)));
        // Never more than a full bucket.
        assert_eq!(pace.spend(149, ms(9000)), None);
        assert_eq!(pace.spend(1, ms(9000)), Some(ms(100)));
    }

    #[test]
    fn the_long_run_keeps_to_the_rate() {
        let mut pace = Pace::new(RATE, ms(0));
        let (mut now, mut bytes) = (ms(0), 0);
        while now < ms(60_000) {
            bytes += 77;
            now += pace.spend(77, now).unwrap_or_default();
        }
        assert!((60_000..60_400).contains(&bytes), "{bytes}");
    }
}
