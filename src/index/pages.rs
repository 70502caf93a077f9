//! The pages of an index, in Postgres's buffers.

mod recent;

use crate::error::{Result, SqlError};
use pgrx::prelude::*;
use recent::Recent;
use sketch_model::index::{IndexError, PAGE_SIZE, Pages};
use sketch_model::simd;
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::slice;

/// Bytes of a page's header.
const HEADER: usize = size_of::<pg_sys::PageHeaderData>();
const _: () = assert!(HEADER + PAGE_SIZE == pg_sys::BLCKSZ as usize);

/// InvalidSubTransactionId.
const NO_SUBTRANSACTION: pg_sys::SubTransactionId = 0;

/// How changes reach the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Each change is one record of the write-ahead log.
    Logged,
    /// Nobody else sees the index yet: what is written goes to the log at the end, page by page.
    Build,
}

/// The pages of one fork of an index.
pub struct IndexPages {
    relation: pg_sys::Relation,
    fork: pg_sys::ForkNumber::Type,
    mode: Mode,
    strategy: pg_sys::BufferAccessStrategy,
    before_page: fn(),
    /// Pages that there were at least, when last counted.
    known: Cell<u32>,
    recent: Rc<Recent>,
    /// The page of which the server was last told that it will be read.
    announced: Cell<u32>,
}

impl IndexPages {
    /// # Safety
    /// `relation` is an open index of this access method, and stays open as long as the result lives.
    pub unsafe fn new(relation: pg_sys::Relation) -> Self {
        Self {
            relation,
            fork: pg_sys::ForkNumber::MAIN_FORKNUM,
            mode: Mode::Logged,
            strategy: std::ptr::null_mut(),
            before_page: check_for_interrupts,
            known: Cell::new(0),
            // SAFETY: the caller's promise.
            recent: unsafe { Recent::of(relation) },
            announced: Cell::new(pg_sys::InvalidBlockNumber),
        }
    }

    /// Pages that are being built; [`IndexPages::log`] ends it.
    ///
    /// # Safety
    /// As [`IndexPages::new`]; and no other backend writes the index meanwhile.
    pub unsafe fn build(relation: pg_sys::Relation, fork: pg_sys::ForkNumber::Type) -> Self {
        // SAFETY: the caller's promise.
        Self { fork, mode: Mode::Build, ..unsafe { Self::new(relation) } }
    }

    /// Pages for VACUUM, which rests between them as its cost settings say.
    ///
    /// # Safety
    /// As [`IndexPages::new`]; `strategy` outlives the result.
    pub unsafe fn vacuum(relation: pg_sys::Relation, strategy: pg_sys::BufferAccessStrategy) -> Self {
        // SAFETY: the caller's promise.
        Self { strategy, before_page: rest, ..unsafe { Self::new(relation) } }
    }

    /// Writes all that was built to the write-ahead log.
    pub fn log(self) -> Result<()> {
        // SAFETY: the relation is open.
        unsafe {
            if self.fork == pg_sys::ForkNumber::INIT_FORKNUM || needs_wal(self.relation) {
                pg_sys::log_newpage_range(self.relation, self.fork, 0, self.count()?, true);
            }
        }
        Ok(())
    }

    /// # Errors
    /// [`IndexError::Damaged`] if there is no such page: the server would take one number of all for a page to add.
    fn lock(&self, page: u32, mode: u32) -> Result<Buffer> {
        (self.before_page)();
        if page >= self.known.get() {
            self.known.set(self.count()?);
            if page >= self.known.get() {
                return Err(IndexError::Damaged { page, what: "page is beyond the end" }.into());
            }
        }
        // SAFETY: the relation is open.
        unsafe {
            let buffer = Buffer(self.pin(page));
            pg_sys::LockBuffer(buffer.0, mode as i32);
            Ok(buffer)
        }
    }

    /// # Safety
    /// The relation is open and has this page.
    unsafe fn pin(&self, page: u32) -> pg_sys::Buffer {
        // SAFETY: the caller's promise.
        unsafe {
            if let Some(buffer) = self.recent.get(self.fork, page)
                && recent::pin(self.relation, self.fork, page, buffer)
            {
                return buffer;
            }
            let mode = pg_sys::ReadBufferMode::RBM_NORMAL;
            let buffer = pg_sys::ReadBufferExtended(self.relation, self.fork, page, mode, self.strategy);
            self.recent.set(self.fork, page, buffer);
            buffer
        }
    }

    /// A new page at the end, locked.
    fn extend(&self) -> Buffer {
        // SAFETY: the relation is open, and the lock keeps others from adding the same page.
        unsafe {
            pg_sys::LockRelationForExtension(self.relation, pg_sys::ExclusiveLock as i32);
            let buffer = Buffer(pg_sys::ReadBufferExtended(
                self.relation,
                self.fork,
                pg_sys::InvalidBlockNumber,
                pg_sys::ReadBufferMode::RBM_ZERO_AND_LOCK,
                self.strategy,
            ));
            pg_sys::UnlockRelationForExtension(self.relation, pg_sys::ExclusiveLock as i32);
            buffer
        }
    }
}

impl Pages for IndexPages {
    type Error = SqlError;

    fn count(&self) -> Result<u32> {
        // SAFETY: the relation is open.
        Ok(unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.relation, self.fork) })
    }

    fn read<T>(&self, page: u32, look: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let buffer = self.lock(page, pg_sys::BUFFER_LOCK_SHARE)?;
        // SAFETY: the page is pinned and locked until `buffer` is dropped.
        Ok(look(unsafe { content(pg_sys::BufferGetPage(buffer.0)) }))
    }

    fn expect(&self, page: u32, bytes: Range<usize>) {
        if let Some(buffer) = self.recent.get(self.fork, page) {
            // SAFETY: a buffer that was there once is there for the life of the server, whatever it holds by now.
            let start = unsafe { pg_sys::BufferGetPage(buffer) }.cast::<u8>();
            simd::fetch_soon(start.wrapping_add(HEADER + bytes.start), bytes.len());
        } else if page < self.known.get() && self.announced.replace(page) != page {
            // SAFETY: the relation is open and has this page.
            let found = unsafe { pg_sys::PrefetchBuffer(self.relation, self.fork, page) };
            self.recent.set(self.fork, page, found.recent_buffer);
        }
    }

    fn change<T, const N: usize>(
        &mut self,
        pages: [u32; N],
        edit: impl FnOnce([&mut [u8]; N]) -> Result<T, IndexError>,
    ) -> Result<T> {
        // In ascending order, so that two who change the same pages do not wait for each other.
        let mut order: [usize; N] = std::array::from_fn(|index| index);
        order.sort_unstable_by_key(|&index| pages[index]);
        if let Some(twice) = order.windows(2).find(|pair| pages[pair[0]] == pages[pair[1]]) {
            return Err(IndexError::Damaged { page: pages[twice[0]], what: "page leads to itself" }.into());
        }
        let mut buffers = [const { None }; N];
        for index in order {
            buffers[index] = Some(self.lock(pages[index], pg_sys::BUFFER_LOCK_EXCLUSIVE)?);
        }
        let buffers = buffers.map(|buffer: Option<Buffer>| buffer.expect("all were locked"));
        let change = Change::start(self.relation, self.mode);
        // SAFETY: the buffers are locked for this change alone, and no two are the same.
        let contents = buffers.each_ref().map(|buffer| unsafe { content(change.page(buffer, 0)) });
        match edit(contents) {
            Ok(result) => {
                change.finish(&buffers);
                Ok(result)
            }
            Err(error) => {
                change.abort();
                Err(error.into())
            }
        }
    }

    fn add(&mut self, fill: impl FnOnce(&mut [u8])) -> Result<u32> {
        (self.before_page)();
        let buffer = self.extend();
        let change = Change::start(self.relation, self.mode);
        let page = change.page(&buffer, pg_sys::GENERIC_XLOG_FULL_IMAGE);
        // SAFETY: the buffer is locked for this change alone. With its content in front of `pd_lower`, no hole is left
        // out of the write-ahead log.
        unsafe {
            pg_sys::PageInit(page, pg_sys::BLCKSZ as usize, 0);
            let header = page.cast::<pg_sys::PageHeaderData>();
            (*header).pd_lower = pg_sys::BLCKSZ as u16;
            fill(content(page));
        }
        change.finish(slice::from_ref(&buffer));
        // SAFETY: the buffer is pinned.
        Ok(unsafe { pg_sys::BufferGetBlockNumber(buffer.0) })
    }
}

/// What a page holds behind its header.
///
/// # Safety
/// `page` is a page, or an image of one, that stays where it is, and that nobody else changes, for `'a`.
unsafe fn content<'a>(page: pg_sys::Page) -> &'a mut [u8] {
    // SAFETY: a page has BLCKSZ bytes.
    unsafe { slice::from_raw_parts_mut(page.cast::<u8>().add(HEADER), PAGE_SIZE) }
}

/// A pinned, locked buffer.
struct Buffer(pg_sys::Buffer);

impl Drop for Buffer {
    fn drop(&mut self) {
        // An error ends the transaction or subtransaction, which releases locks and pins in its own order; it has
        // reset the count of held interrupts, too, that an unlocking would count down.
        if !std::thread::panicking() {
            // SAFETY: pinned and locked by whoever made this.
            unsafe { pg_sys::UnlockReleaseBuffer(self.0) };
        }
    }
}

/// A change of up to four pages in progress. Aborted, or dropped while an error unwinds, it leaves the pages as they
/// were, unless they are being built; in the latter case its memory goes with the transaction's.
struct Change {
    log: Option<*mut pg_sys::GenericXLogState>,
}

impl Change {
    fn start(relation: pg_sys::Relation, mode: Mode) -> Self {
        let log = (mode == Mode::Logged).then(|| {
            // SAFETY: the relation is open.
            unsafe { pg_sys::GenericXLogStart(relation) }
        });
        Self { log }
    }

    /// The page to change: an image of it if the change is logged.
    fn page(&self, buffer: &Buffer, flags: u32) -> pg_sys::Page {
        // SAFETY: the buffer is locked exclusively.
        match self.log {
            Some(log) => unsafe { pg_sys::GenericXLogRegisterBuffer(log, buffer.0, flags as i32) },
            None => unsafe { pg_sys::BufferGetPage(buffer.0) },
        }
    }

    fn abort(self) {
        if let Some(log) = self.log {
            // SAFETY: the change was started and is not finished.
            unsafe { pg_sys::GenericXLogAbort(log) };
        }
    }

    fn finish(self, buffers: &[Buffer]) {
        // SAFETY: the buffers are those that were registered, still locked.
        unsafe {
            match self.log {
                Some(log) => {
                    pg_sys::GenericXLogFinish(log);
                }
                None => buffers.iter().for_each(|buffer| pg_sys::MarkBufferDirty(buffer.0)),
            }
        }
    }
}

/// Whether changes of a relation are logged, as the server's macro of this name says.
///
/// # Safety
/// `relation` is open.
unsafe fn needs_wal(relation: pg_sys::Relation) -> bool {
    // SAFETY: the relation is open. XLogIsNeeded() is wal_level >= replica.
    unsafe {
        let permanent = (*(*relation).rd_rel).relpersistence as u8 == pg_sys::RELPERSISTENCE_PERMANENT;
        let minimal = pg_sys::wal_level < pg_sys::WalLevel::WAL_LEVEL_REPLICA as i32;
        let fresh = (*relation).rd_createSubid != NO_SUBTRANSACTION || first_file(relation);
        permanent && !(minimal && fresh)
    }
}

/// Whether this transaction gave the relation its file.
unsafe fn first_file(relation: pg_sys::Relation) -> bool {
    // SAFETY: the relation is open.
    #[cfg(feature = "pg15")]
    let subid = unsafe { (*relation).rd_firstRelfilenodeSubid };
    #[cfg(not(feature = "pg15"))]
    let subid = unsafe { (*relation).rd_firstRelfilelocatorSubid };
    subid != NO_SUBTRANSACTION
}

fn check_for_interrupts() {
    pgrx::check_for_interrupts!();
}

fn rest() {
    // SAFETY: no lock on a page is held.
    #[cfg(not(feature = "pg18"))]
    unsafe {
        pg_sys::vacuum_delay_point();
    }
    #[cfg(feature = "pg18")]
    unsafe {
        pg_sys::vacuum_delay_point(false);
    }
}

/// The lock that one inserter at a time holds; an error leaves it to the end of the transaction.
pub struct InsertLock(pg_sys::Relation);

impl InsertLock {
    const PAGE: pg_sys::BlockNumber = 0;

    /// Waits until nobody else inserts.
    ///
    /// # Safety
    /// `relation` is open as long as the result lives.
    pub unsafe fn take(relation: pg_sys::Relation) -> Self {
        // SAFETY: the caller's promise.
        unsafe { pg_sys::LockPage(relation, Self::PAGE, pg_sys::ExclusiveLock as i32) };
        Self(relation)
    }
}

impl Drop for InsertLock {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the relation is still open.
            unsafe { pg_sys::UnlockPage(self.0, Self::PAGE, pg_sys::ExclusiveLock as i32) };
        }
    }
}
