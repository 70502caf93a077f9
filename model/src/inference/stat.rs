//! Counters of what was embedded, by model and device, in memory that processes may share.

use crate::inference::device::Device;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

/// Pairs of model and device that are counted apart; later ones are counted together, under model 0.
const ENTRIES: usize = 64;

/// Who ran the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The process that asked.
    Connection,
    /// The service for all.
    Worker,
}

/// What is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Tag of the model.
    pub model: u32,
    pub device: Device,
    pub place: Place,
}

impl Key {
    /// Never 0. Codes of devices stay below 2^24, so that bit 31 is free for the place and bit 30 marks a key.
    fn code(self) -> u64 {
        let place = u64::from(self.place == Place::Worker) << 31;
        u64::from(self.model) << 32 | 1 << 30 | place | u64::from(self.device.code())
    }

    fn from_code(code: u64) -> Option<Self> {
        let place = if code >> 31 & 1 == 1 { Place::Worker } else { Place::Connection };
        let device = Device::from_code(code as u32 & 0x3fff_ffff)?;
        (code != 0).then_some(Self { model: (code >> 32) as u32, device, place })
    }
}

/// Declares the counters once: as atomics, and as the plain numbers that are read of them.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of one key.
        #[derive(Debug, Default)]
        pub struct Entry {
            key: AtomicU64,
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        /// What the counters said.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Entry {
            fn counts(&self) -> Counts {
                Counts { $($name: self.$name.load(Relaxed),)* }
            }

            fn reset(&self) {
                $(self.$name.store(0, Relaxed);)*
            }
        }
    };
}

counters! {
    /// Calls that embedded, each of one image or, in bulk, of many.
    requests,
    /// Images that went through the network.
    images,
    /// Runs of the network.
    batches,
    /// Microseconds that images waited for a run, summed over images.
    wait,
    /// Microseconds that the network ran.
    run,
    /// Images that were not embedded: the network failed, or the service stopped.
    errors,
    /// Images that were not embedded because who asked had left, or had waited too long.
    left,
}

/// All counters.
#[derive(Debug)]
pub struct StatTable {
    entries: [Entry; ENTRIES],
    others: Entry,
    reset_at: AtomicU64,
}

impl Default for StatTable {
    fn default() -> Self {
        Self { entries: std::array::from_fn(|_| Entry::default()), others: Entry::default(), reset_at: 0.into() }
    }
}

impl Entry {
    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Relaxed);
    }
}

impl StatTable {
    /// The counters of a key; made at first use.
    pub fn entry(&self, key: Key) -> &Entry {
        let code = key.code();
        for entry in &self.entries {
            let found = entry.key.load(Acquire);
            let is_ours = found == code
                || found == 0
                    && match entry.key.compare_exchange(0, code, AcqRel, Acquire) {
                        Ok(_) => true,
                        Err(other) => other == code,
                    };
            if is_ours {
                return entry;
            }
        }
        &self.others
    }

    /// All keys with their counts, in the order in which they came; at last what is counted together, if there is any.
    pub fn counts(&self) -> Vec<(Option<Key>, Counts)> {
        let known = self
            .entries
            .iter()
            .map_while(|entry| Key::from_code(entry.key.load(Acquire)).map(|key| (Some(key), entry.counts())));
        let others = Some((None, self.others.counts())).filter(|(_, counts)| *counts != Counts::default());
        known.chain(others).collect()
    }

    /// Sets all counters to 0. `now`: what [`reset_at`](Self::reset_at) is to return.
    pub fn reset(&self, now: u64) {
        self.entries.iter().for_each(Entry::reset);
        self.others.reset();
        self.reset_at.store(now, Relaxed);
    }

    /// When the counters were last set to 0.
    pub fn reset_at(&self) -> u64 {
        self.reset_at.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn key(model: u32) -> Key {
        Key { model, device: Device::Cpu, place: Place::Worker }
    }

    #[test]
    fn keys_come_back_as_they_went_in() {
        for device in [Device::Auto, Device::Cpu, Device::Cuda(65535), Device::CoreMl] {
            for place in [Place::Connection, Place::Worker] {
                for model in [0, 1, u32::MAX] {
                    let key = Key { model, device, place };
                    assert_eq!(Key::from_code(key.code()), Some(key));
                }
            }
        }
        assert_eq!(Key::from_code(0), None);
    }

    #[test]
    fn what_threads_count_adds_up() {
        let table = StatTable::default();
        thread::scope(|scope| {
            for thread in 0..4u32 {
                let table = &table;
                scope.spawn(move || {
                    for i in 0..10_000 {
                        Entry::add(&table.entry(key((i + thread) % 7)).images, 1);
                    }
                });
            }
        });
        let counts = table.counts();
        assert_eq!(counts.len(), 7);
        assert_eq!(counts.iter().map(|(_, counts)| counts.images).sum::<u64>(), 40_000);
        table.reset(5);
        assert_eq!(table.reset_at(), 5);
        assert!(table.counts().iter().all(|(_, counts)| *counts == Counts::default()));
    }

    #[test]
    fn what_does_not_fit_is_counted_together() {
        let table = StatTable::default();
        for model in 1..=100 {
            Entry::add(&table.entry(key(model)).images, 1);
        }
        let counts = table.counts();
        assert_eq!(counts.len(), ENTRIES + 1);
        assert_eq!(counts.last().map(|(key, counts)| (*key, counts.images)), Some((None, 100 - ENTRIES as u64)));
    }
}
