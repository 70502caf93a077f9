//! Images prepared on several threads, ahead of what takes them.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope};
use std::{io, num::NonZero};

/// Results that wait to be taken, for each thread.
const WAITING: usize = 2;

/// The results of one function for the items of a slice, made by several threads and taken in order.
///
/// At most two for each thread are made before they are taken.
pub struct Ahead<'scope, O> {
    shared: &'scope Shared<O>,
    count: usize,
}

/// What the threads and the taker share.
pub struct Shared<O> {
    state: Mutex<State<O>>,
    changed: Condvar,
}

struct State<O> {
    /// The first item that no thread has begun, and the first whose result was not taken.
    next: usize,
    taken: usize,
    made: BTreeMap<usize, Result<O, Box<dyn Any + Send>>>,
    is_dropped: bool,
}

impl<O> Default for Shared<O> {
    fn default() -> Self {
        let state = State { next: 0, taken: 0, made: BTreeMap::new(), is_dropped: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<O> Shared<O> {
    fn lock(&self) -> MutexGuard<'_, State<O>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<O>>) -> MutexGuard<'a, State<O>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// The item that a thread makes next, `None` at the end.
    fn begin(&self, count: usize, window: usize) -> Option<usize> {
        let mut state = self.lock();
        while !state.is_dropped && state.next < count && state.next >= state.taken + window {
            state = self.wait(state);
        }
        let item = state.next;
        state.next += 1;
        (!state.is_dropped && item < count).then_some(item)
    }
}

impl<'scope, O: Send + 'scope> Ahead<'scope, O> {
    /// Starts the threads, which inherit the signal mask of the caller's. They end when all is taken, or this is dropped.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start<'env, I: Sync>(
        scope: &'scope Scope<'scope, 'env>,
        shared: &'env Shared<O>,
        items: &'env [I],
        threads: NonZero<usize>,
        make: &'env (impl Fn(&I) -> O + Sync),
    ) -> io::Result<Self> {
        // Dropped if a thread cannot be started, which ends those before it.
        let ahead = Self { shared, count: items.len() };
        for _ in 0..threads.get().min(items.len()) {
            Builder::new().spawn_scoped(scope, move || {
                while let Some(item) = shared.begin(items.len(), WAITING * threads.get()) {
                    let result = catch_unwind(AssertUnwindSafe(|| make(&items[item])));
                    shared.lock().made.insert(item, result);
                    shared.changed.notify_all();
                }
            })?;
        }
        Ok(ahead)
    }
}

/// A panic of the function goes on in the thread that takes its result.
impl<O> Iterator for Ahead<'_, O> {
    type Item = O;

    fn next(&mut self) -> Option<O> {
        let mut state = self.shared.lock();
        let item = state.taken;
        if item == self.count {
            return None;
        }
        let result = loop {
            match state.made.remove(&item) {
                Some(result) => break result,
                None => state = self.shared.wait(state),
            }
        };
        state.taken += 1;
        drop(state);
        self.shared.changed.notify_all();
        Some(result.unwrap_or_else(|panic| resume_unwind(panic)))
    }
}

impl<O> Drop for Ahead<'_, O> {
    fn drop(&mut self) {
        self.shared.lock().is_dropped = true;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::thread::{self, sleep};
    use std::time::Duration;

    const TWO: NonZero<usize> = NonZero::new(2).unwrap();

    #[test]
    fn results_come_in_order_and_not_too_early() {
        let items: Vec<usize> = (0..200).collect();
        let (begun, shared) = (AtomicUsize::new(0), Shared::default());
        let make = |item: &usize| {
            begun.fetch_add(1, SeqCst);
            // The even ones overtake the odd ones.
            sleep(Duration::from_micros(300 * (item % 2) as u64));
            item * item
        };
        thread::scope(|scope| {
            let ahead = Ahead::start(scope, &shared, &items, TWO, &make).unwrap();
            for (taken, result) in ahead.enumerate() {
                assert_eq!(result, taken * taken);
                assert!(begun.load(SeqCst) <= taken + 1 + WAITING * TWO.get());
            }
        });
        assert_eq!(begun.load(SeqCst), 200);
    }

    #[test]
    fn nothing_of_nothing() {
        let shared = Shared::<usize>::default();
        thread::scope(|scope| {
            assert!(Ahead::start(scope, &shared, &[0_usize; 0], TWO, &|_| 0).unwrap().next().is_none())
        });
    }

    #[test]
    fn threads_end_with_what_takes_from_them() {
        let (begun, shared) = (AtomicUsize::new(0), Shared::default());
        let make = |_: &usize| begun.fetch_add(1, SeqCst);
        thread::scope(|scope| assert!(Ahead::start(scope, &shared, &[0; 1000], TWO, &make).unwrap().next().is_some()));
        assert!(begun.load(SeqCst) <= 1 + WAITING * TWO.get());
    }

    #[test]
    fn a_panic_goes_on_where_its_result_is_taken() {
        let shared = Shared::default();
        let make = |item: &usize| assert!(*item != 3, "the fourth");
        let taken = AtomicUsize::new(0);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            thread::scope(|scope| {
                for _ in Ahead::start(scope, &shared, &[0, 1, 2, 3, 4, 5], TWO, &make).unwrap() {
                    taken.fetch_add(1, SeqCst);
                }
            });
        }));
        assert_eq!(*outcome.unwrap_err().downcast::<&str>().unwrap(), "the fourth");
        assert_eq!(taken.load(SeqCst), 3);
    }
}
