//! Which of the waiting images go through the network together, and when.

use std::time::Duration;

/// An image that waits; `G` says which images may share a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting<G> {
    /// Where it is, for the caller.
    pub slot: usize,
    /// Smaller is older.
    pub ticket: u64,
    /// Microseconds.
    pub queued_at: u64,
    pub group: G,
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
pub enum Decision<G> {
    /// Run these, the oldest first.
    Run { group: G, slots: Vec<usize> },
    /// Look again after so long, or when another image comes.
    Wait(Duration),
    /// There is nothing to run.
    Idle,
}

impl Policy {
    /// Decides on a batch. `waiting`: what may run now, in any order; `now`: microseconds, as in `queued_at`.
    ///
    /// The group of the oldest image goes first, so that none is passed over for long: with its full batch, or with what
    /// there is of it once the oldest has waited for `max_wait`. Until then another group's full batch may run.
    pub fn decide<G: Copy + PartialEq>(&self, waiting: &mut [Waiting<G>], now: u64) -> Decision<G> {
        waiting.sort_unstable_by_key(|image| image.ticket);
        let Some(oldest) = waiting.first() else { return Decision::Idle };
        let batch = |group: G| -> Vec<usize> {
            waiting.iter().filter(|image| image.group == group).map(|image| image.slot).take(self.max_batch).collect()
        };
        let waited = Duration::from_micros(now.saturating_sub(oldest.queued_at));
        let rest = self.max_wait.saturating_sub(waited);
        if rest.is_zero() {
            return Decision::Run { group: oldest.group, slots: batch(oldest.group) };
        }
        for image in waiting.iter() {
            let slots = batch(image.group);
            if slots.len() >= self.max_batch {
                return Decision::Run { group: image.group, slots };
            }
        }
        Decision::Wait(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: Policy = Policy { max_batch: 4, max_wait: Duration::from_millis(2) };

    fn image(slot: usize, queued_at: u64, group: u8) -> Waiting<u8> {
        Waiting { slot, ticket: queued_at * 1000 + slot as u64, queued_at, group }
    }

    #[test]
    fn a_full_batch_goes_at_once_and_a_lone_image_waits() {
        let mut waiting: Vec<_> = (0..5).map(|slot| image(slot, 10, 0)).collect();
        assert_eq!(POLICY.decide(&mut waiting, 10), Decision::Run { group: 0, slots: vec![0, 1, 2, 3] });
        assert_eq!(POLICY.decide(&mut waiting[..3], 10), Decision::Wait(Duration::from_millis(2)));
        assert_eq!(POLICY.decide(&mut waiting[..3], 1510), Decision::Wait(Duration::from_micros(500)));
        assert_eq!(POLICY.decide(&mut waiting[..3], 2010), Decision::Run { group: 0, slots: vec![0, 1, 2] });
        assert_eq!(POLICY.decide::<u8>(&mut [], 0), Decision::Idle);
        let at_once = Policy { max_wait: Duration::ZERO, ..POLICY };
        assert_eq!(at_once.decide(&mut waiting[..1], 10), Decision::Run { group: 0, slots: vec![0] });
    }

    #[test]
    fn a_full_batch_of_others_does_not_wait_for_a_lone_image() {
        let mut waiting: Vec<_> = (0..5).map(|slot| image(slot, 10 + slot as u64, u8::from(slot > 0))).collect();
        assert_eq!(POLICY.decide(&mut waiting, 20), Decision::Run { group: 1, slots: vec![1, 2, 3, 4] });
        assert_eq!(POLICY.decide(&mut waiting, 3000), Decision::Run { group: 0, slots: vec![0] });
    }

    proptest! {
        /// Whatever waits: all of a batch are of one group, the oldest of the group first, and nobody waits longer than
        /// `max_wait` for company.
        #[test]
        fn batches_are_of_one_group_in_order_and_in_time(
            images in proptest::collection::vec((0u64..5000, 0u8..3), 1..20),
            now in 0u64..8000,
        ) {
            let mut waiting: Vec<_> =
                images.iter().enumerate().map(|(slot, &(queued_at, group))| image(slot, queued_at, group)).collect();
            let oldest = waiting.iter().min_by_key(|image| image.ticket).copied().unwrap();
            match POLICY.decide(&mut waiting, now) {
                Decision::Run { group, slots } => {
                    let mut expected: Vec<_> = waiting.iter().filter(|image| image.group == group).collect();
                    expected.sort_by_key(|image| image.ticket);
                    let expected: Vec<_> = expected.iter().map(|image| image.slot).take(POLICY.max_batch).collect();
                    prop_assert_eq!(&slots, &expected);
                    prop_assert!(slots.len() == POLICY.max_batch || now >= oldest.queued_at + 2000);
                }
                Decision::Wait(rest) => {
                    prop_assert!(now < oldest.queued_at + 2000);
                    prop_assert!(rest <= POLICY.max_wait);
                }
                Decision::Idle => prop_assert!(false, "there are images"),
            }
        }
    }
}
