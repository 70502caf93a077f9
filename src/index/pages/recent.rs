//! Where the pages of an index were found in the server's buffers.
//!
//! The server looks a page up in a hash table that all backends share. A scan reads thousands of pages, and that took a
//! fifth of its time. Mostly, a page lies where it lay before; whether it still does is quick to check.

use pgrx::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;

/// Indexes that a backend remembers this of: 4 bytes a page, some 300 kB for a million rows.
const KEPT: usize = 4;

thread_local! {
    static INDEXES: RefCell<Vec<(pg_sys::Oid, Rc<Recent>)>> = const { RefCell::new(Vec::new()) };
}

/// The buffers of the pages of one index; 0 for those unknown.
#[derive(Default)]
pub struct Recent(RefCell<Vec<pg_sys::Buffer>>);

impl Recent {
    /// # Safety
    /// `relation` is open.
    pub unsafe fn of(relation: pg_sys::Relation) -> Rc<Self> {
        // SAFETY: the caller's promise.
        let file = unsafe { crate::index::cache::file(relation) };
        INDEXES.with_borrow_mut(|kept| {
            if let Some((_, recent)) = kept.iter().find(|(known, _)| *known == file) {
                return recent.clone();
            }
            if kept.len() == KEPT {
                kept.remove(0);
            }
            let recent = Rc::new(Self::default());
            kept.push((file, recent.clone()));
            recent
        })
    }

    pub fn get(&self, fork: pg_sys::ForkNumber::Type, page: u32) -> Option<pg_sys::Buffer> {
        let buffer = self.0.borrow().get(page as usize).copied().unwrap_or_default();
        (buffer != 0 && fork == pg_sys::ForkNumber::MAIN_FORKNUM).then_some(buffer)
    }

    pub fn set(&self, fork: pg_sys::ForkNumber::Type, page: u32, buffer: pg_sys::Buffer) {
        if fork == pg_sys::ForkNumber::MAIN_FORKNUM && buffer != 0 {
            let mut buffers = self.0.borrow_mut();
            if buffers.len() <= page as usize {
                buffers.resize(page as usize + 1, 0);
            }
            buffers[page as usize] = buffer;
        }
    }
}

/// Pins the buffer that a page was in, if it is still there.
///
/// # Safety
/// `relation` is open; `buffer` was one of the server's or, for a temporary table, of this backend's.
pub unsafe fn pin(
    relation: pg_sys::Relation,
    fork: pg_sys::ForkNumber::Type,
    page: u32,
    buffer: pg_sys::Buffer,
) -> bool {
    // SAFETY: the caller's promise; the counters are this backend's own.
    unsafe {
        #[cfg(feature = "pg15")]
        let file = (*relation).rd_node;
        #[cfg(not(feature = "pg15"))]
        let file = (*relation).rd_locator;
        if !pg_sys::ReadRecentBuffer(file, fork, page, buffer) {
            return false;
        }
        // As ReadBuffer counts, for pg_statio_user_indexes.
        if let Some(counters) = (*relation).pgstat_info.as_mut() {
            #[cfg(feature = "pg15")]
            {
                counters.t_counts.t_blocks_fetched += 1;
                counters.t_counts.t_blocks_hit += 1;
            }
            #[cfg(not(feature = "pg15"))]
            {
                counters.counts.blocks_fetched += 1;
                counters.counts.blocks_hit += 1;
            }
        }
        true
    }
}
