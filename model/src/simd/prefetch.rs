//! Prefetching a table's next embedding while the distance of this one is computed.

#[cfg(target_arch = "x86_64")]
pub(super) use super::x86::fetch;
use half::f16;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};

/// Two rows of one page of 8 KiB lie no further apart than this, in bytes.
const NEAR: usize = 4096;

/// Bytes before a row's values that are read with them: headers of row and value, short columns.
const HEADER: usize = 64;

/// Predicts where a sequential scan finds its next embedding, and prefetches it.
///
/// The rows of a page lie in equal steps, but backwards, and each page starts elsewhere: too irregular for the CPU's own
/// prefetcher. Without this, a scan spends half its time waiting for memory: 1 million
/// embeddings of 512 dimensions took 1.01 times as long as pgvector's `halfvec`, and 0.67 times with it (Zen 4,
/// `make bench-scan`).
///
/// Use one for each argument of a function, for the life of the process; a constant argument costs nothing.
#[derive(Debug, Default)]
pub struct Prefetch {
    /// Address of the last values.
    last: AtomicUsize,
    /// Bytes from row to row in this page, 0 if unknown.
    step: AtomicIsize,
}

impl Prefetch {
    pub const fn new() -> Self {
        Self { last: AtomicUsize::new(0), step: AtomicIsize::new(0) }
    }

    /// Records the address of `values`, and prefetches what lies one step further.
    #[inline]
    pub fn next(&self, values: &[f16]) {
        if let Some(next) = self.guess(values.as_ptr().addr()) {
            fetch(next.wrapping_sub(HEADER), HEADER + size_of_val(values));
        }
    }

    /// Returns the address of the next row, if it can be predicted.
    #[inline]
    fn guess(&self, address: usize) -> Option<usize> {
        let step = address.wrapping_sub(self.last.load(Relaxed)).cast_signed();
        self.last.store(address, Relaxed);
        if step.unsigned_abs() <= NEAR {
            self.step.store(step, Relaxed);
            return (step != 0).then(|| address.wrapping_add_signed(step));
        }
        // The first row of a page: the second is a step away as in the page before. If it is not, this is no scan.
        let before = self.step.load(Relaxed);
        self.step.store(0, Relaxed);
        (before != 0).then(|| address.wrapping_add_signed(before))
    }
}

/// Stable Rust has no prefetch for other CPUs.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn fetch(_start: usize, _length: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    fn guesses(addresses: &[usize]) -> Vec<Option<usize>> {
        let prefetch = Prefetch::new();
        addresses.iter().map(|&address| prefetch.guess(address)).collect()
    }

    #[test]
    fn rows_of_a_scan_are_guessed_but_for_the_first_of_a_page() {
        let addresses = [107_000, 106_000, 105_000, 115_000, 114_000, 113_000];
        let guessed = [None, Some(105_000), Some(104_000), Some(114_000), Some(113_000), Some(112_000)];
        assert_eq!(guesses(&addresses), guessed);
    }

    #[test]
    fn a_constant_is_not_guessed() {
        assert_eq!(guesses(&[107_000; 3]), [None; 3]);
    }

    #[test]
    fn rows_here_and_there_are_not_guessed() {
        assert_eq!(guesses(&[107_000, 900_000, 400_000, 1_000_000, 1_000]), [None; 5]);
        assert_eq!(guesses(&[107_000, 106_000, 400_000, 1_000_000]), [None, Some(105_000), Some(399_000), None]);
    }

    #[test]
    fn any_place_may_be_guessed() {
        guesses(&[0, 16, usize::MAX - 1, 8, 0]);
        let prefetch = Prefetch::new();
        let values = [f16::ONE; 100];
        for start in 0..100 {
            prefetch.next(&values[start..]);
            fetch(start.wrapping_sub(50), 100);
        }
    }
}
