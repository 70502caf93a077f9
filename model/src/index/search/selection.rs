//! The rows that a round keeps: those with the least bounds beyond the rounds before.

use super::super::RowId;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Rows of the first round: more than a usual LIMIT, because the executor reads some rows ahead.
const FIRST_ROUND: usize = 32;
/// Factor between the capacities of two rounds.
const GROWTH: usize = 8;

/// A row by its bound; of equal bounds by its id.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Found {
    bound: f32,
    row: RowId,
}

impl Eq for Found {}

impl Ord for Found {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bound.total_cmp(&other.bound).then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[derive(Debug)]
pub struct Selection {
    /// The limit of `capacity`.
    most: usize,
    /// The most rows of this round; 0 before the first one.
    capacity: usize,
    heap: BinaryHeap<Found>,
    /// The rows of the round, the last one first.
    ready: Vec<Found>,
    last: Option<Found>,
    /// Whether the round had room for more rows than there are.
    complete: bool,
}

impl Selection {
    /// `memory`: bytes that the rows of a round may take.
    pub fn new(memory: usize) -> Self {
        let most = (memory / size_of::<Found>()).max(FIRST_ROUND);
        Self { most, capacity: 0, heap: BinaryHeap::new(), ready: Vec::new(), last: None, complete: false }
    }

    pub fn begin_round(&mut self) {
        self.capacity = (self.capacity * GROWTH).clamp(FIRST_ROUND, self.most);
        self.heap.reserve(self.capacity.min(4096));
    }

    /// The bound up to which rows are wanted.
    #[inline]
    pub fn reach(&self) -> f32 {
        match self.heap.peek() {
            // Beyond the greatest lie free slots alone, and rows that do not fit, which are offered whatever the reach.
            Some(worst) if self.heap.len() == self.capacity => worst.bound.min(f32::MAX),
            _ => f32::MAX,
        }
    }

    pub fn offer(&mut self, bound: f32, row: RowId) {
        let found = Found { bound, row };
        if self.last.is_some_and(|last| found <= last) {
            return;
        }
        if self.heap.len() < self.capacity {
            self.heap.push(found);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && found < *worst
        {
            *worst = found;
        }
    }

    pub fn end_round(&mut self) {
        self.complete = self.heap.len() < self.capacity;
        self.ready.clear();
        self.ready.extend(std::mem::take(&mut self.heap).into_sorted_vec().into_iter().rev());
        self.last = self.ready.first().copied().or(self.last);
    }

    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether no row is left for another round.
    pub fn is_last(&self) -> bool {
        self.complete
    }

    /// The next row of the round, with its bound.
    pub fn pop(&mut self) -> Option<(f32, RowId)> {
        self.ready.pop().map(|found| (found.bound, found.row))
    }
}
