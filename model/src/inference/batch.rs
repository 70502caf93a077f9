//! Which of the waiting images go through the network together, and when.

use std::time::Duration;

/// An image that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Where it is, for the caller.
    pub slot: usize,
    /// Smaller is older.
    pub ticket: u64,
    /// Microseconds.
    pub queued_at: u64,
}

/// How batches are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub max_batch: usize,
    /// How long an image may wait for others to share its batch.
    pub max_wait: Duration,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Run these slots, the oldest first.
    Run(Vec<usize>),
    /// Look again after so long, or when another image comes.
    Wait(Duration),
    /// There is nothing to run.
    Idle,
}

impl Policy {
    /// Decides on a batch of at most `share` images. `waiting`: what may run now, in any order; `now`: microseconds, as in
    /// `queued_at`; `is_ahead`: whether it is one to go on with while another runs.
    ///
    /// The oldest go first: as soon as they fill a batch, or once the oldest has waited for `max_wait`. Ahead, only a full
    /// batch is worth making: what comes until the other ends may join one that is not.
    pub fn decide(&self, waiting: &mut [Waiting], now: u64, share: usize, is_ahead: bool) -> Decision {
        waiting.sort_unstable_by_key(|image| image.ticket);
        let Some(oldest) = waiting.first() else { return Decision::Idle };
        let waited = Duration::from_micros(now.saturating_sub(oldest.queued_at));
        let rest = self.max_wait.saturating_sub(waited);
        if waiting.len() >= self.max_batch || (rest.is_zero() && !is_ahead) {
            return Decision::Run(waiting.iter().map(|image| image.slot).take(self.max_batch.min(share)).collect());
        }
        if is_ahead { Decision::Idle } else { Decision::Wait(rest) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: Policy = Policy { max_batch: 4, max_wait: Duration::from_millis(2) };

    fn image(slot: usize, queued_at: u64) -> Waiting {
        Waiting { slot, ticket: queued_at * 1000 + slot as u64, queued_at }
    }

    #[test]
    fn a_full_batch_goes_at_once_and_a_lone_image_waits() {
        let mut waiting: Vec<_> = (0..5).map(|slot| image(slot, 10)).collect();
        assert_eq!(POLICY.decide(&mut waiting, 10, 99, false), Decision::Run(vec![0, 1, 2, 3]));
        assert_eq!(POLICY.decide(&mut waiting[..3], 10, 99, false), Decision::Wait(Duration::from_millis(2)));
        assert_eq!(POLICY.decide(&mut waiting[..3], 1510, 99, false), Decision::Wait(Duration::from_micros(500)));
        assert_eq!(POLICY.decide(&mut waiting[..3], 2010, 99, false), Decision::Run(vec![0, 1, 2]));
        assert_eq!(POLICY.decide(&mut [], 0, 99, false), Decision::Idle);
        assert_eq!(POLICY.decide(&mut waiting, 10, 2, false), Decision::Run(vec![0, 1]));
        let at_once = Policy { max_wait: Duration::ZERO, ..POLICY };
        assert_eq!(at_once.decide(&mut waiting[..1], 10, 99, false), Decision::Run(vec![0]));
    }

    #[test]
    fn ahead_of_its_time_only_a_full_batch_is_made() {
        let mut waiting: Vec<_> = (0..5).map(|slot| image(slot, 10)).collect();
        assert_eq!(POLICY.decide(&mut waiting, 10, 99, true), Decision::Run(vec![0, 1, 2, 3]));
        assert_eq!(POLICY.decide(&mut waiting[..3], 9000, 99, true), Decision::Idle);
    }

    proptest! {
        /// Whatever waits: the oldest go first, and nobody waits longer than `max_wait` for company.
        #[test]
        fn batches_are_in_order_and_in_time(
            images in proptest::collection::vec(0u64..5000, 1..20),
            now in 0u64..8000,
        ) {
            let mut waiting: Vec<_> =
                images.iter().enumerate().map(|(slot, &queued_at)| image(slot, queued_at)).collect();
            let mut by_age = waiting.clone();
            by_age.sort_by_key(|image| image.ticket);
            let oldest = by_age[0].queued_at;
            match POLICY.decide(&mut waiting, now, 99, false) {
                Decision::Run(slots) => {
                    let expected: Vec<_> = by_age.iter().map(|image| image.slot).take(POLICY.max_batch).collect();
                    prop_assert_eq!(&slots, &expected);
                    prop_assert!(slots.len() == POLICY.max_batch || now >= oldest + 2000);
                }
                Decision::Wait(rest) => {
                    prop_assert!(now < oldest + 2000);
                    prop_assert!(rest <= POLICY.max_wait);
                }
                Decision::Idle => prop_assert!(false, "there are images"),
            }
        }
    }
}
