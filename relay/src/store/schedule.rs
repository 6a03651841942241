//! When a stub is pushed again for what was not fetched.

use std::time::Duration;

use sealpost_wire::payload::Priority;

/// The waits between the stubs for one message, by priority; the last one repeats until the message is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedules([Vec<u64>; 3]);

impl Schedules {
    /// Waits for critical, normal and bulk messages, each of at least one.
    #[must_use]
    pub fn new(critical: &[Duration], normal: &[Duration], bulk: &[Duration]) -> Option<Self> {
        let millis = |waits: &[Duration]| -> Option<Vec<u64>> {
            let waits: Vec<u64> =
                waits.iter().map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)).collect();
            (!waits.is_empty() && waits.iter().all(|wait| *wait > 0)).then_some(waits)
        };
        Some(Self([millis(critical)?, millis(normal)?, millis(bulk)?]))
    }

    /// The wait after stub number `step`, from 0 (milliseconds).
    pub(super) fn delay_ms(&self, priority: Priority, step: u8) -> u64 {
        let [critical, normal, bulk] = &self.0;
        let waits = match priority {
            Priority::Critical => critical,
            Priority::Normal => normal,
            Priority::Bulk => bulk,
        };
        waits.get(usize::from(step)).or(waits.last()).copied().unwrap_or(DAY_MS)
    }
}

impl Default for Schedules {
    fn default() -> Self {
        Self([vec![30_000, 120_000, 600_000, 3_600_000], vec![900_000, 21_600_000, DAY_MS], vec![DAY_MS]])
    }
}

const DAY_MS: u64 = 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_wait_repeats() {
        let schedules = Schedules::default();
        let critical: Vec<u64> = (0..6).map(|step| schedules.delay_ms(Priority::Critical, step)).collect();
        assert_eq!(critical, [30_000, 120_000, 600_000, 3_600_000, 3_600_000, 3_600_000]);
        assert_eq!(schedules.delay_ms(Priority::Bulk, 200), DAY_MS);
        let second = [Duration::from_secs(1)];
        assert_eq!(Schedules::new(&second, &[], &second), None);
        assert_eq!(Schedules::new(&second, &[Duration::ZERO], &second), None);
    }
}
