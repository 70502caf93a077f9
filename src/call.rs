//! One call of a SQL function, below what pgrx offers: raw arguments, and state that lasts as long as the statement.

use pgrx::prelude::*;
use pgrx::{PgMemoryContexts, pg_sys};

/// What a query sees of the tables: of two that are the same, what one has read the other would read.
///
/// PL/pgSQL keeps the state of an expression for the whole transaction, over commands that change the tables.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct View {
    first_running: pg_sys::TransactionId,
    first_unknown: pg_sys::TransactionId,
    running: (u32, i32),
    own: (pg_sys::TransactionId, pg_sys::SubTransactionId),
    command: pg_sys::CommandId,
}

impl View {
    /// That of the query in progress, `None` outside of one.
    pub fn now() -> Option<Self> {
        // SAFETY: the snapshot is active, hence valid. Below `xmax` transactions only end: their number tells which. What the
        // own one has written counts by its commands, until it, or the part of it since a savepoint, is rolled back.
        unsafe {
            let snapshot = if pg_sys::ActiveSnapshotSet() { pg_sys::GetActiveSnapshot().as_ref() } else { None };
            snapshot.map(|snapshot| Self {
                first_running: snapshot.xmin,
                first_unknown: snapshot.xmax,
                running: (snapshot.xcnt, snapshot.subxcnt),
                own: (pg_sys::GetTopTransactionIdIfAny(), pg_sys::GetCurrentSubTransactionId()),
                command: snapshot.curcid,
            })
        }
    }
}

/// The call in progress.
#[derive(Clone, Copy)]
pub struct Call(pg_sys::FunctionCallInfo);

impl Call {
    /// # Safety
    /// `fcinfo` is the server's, for a call that is in progress, with no argument NULL.
    pub unsafe fn new(fcinfo: pg_sys::FunctionCallInfo) -> Self {
        Self(fcinfo)
    }

    /// Number of arguments.
    pub fn len(self) -> usize {
        // SAFETY: see `new`.
        unsafe { (*self.0).nargs as usize }
    }

    /// The argument at `index` as it was passed.
    pub fn datum(self, index: usize) -> pg_sys::Datum {
        assert!(index < self.len());
        // SAFETY: see `new`; the index is in range.
        unsafe { pgrx::fcinfo::pg_getarg_datum_raw(self.0, index) }
    }

    /// Length of a variable-length argument before compression, in bytes, without reading it.
    pub fn raw_size(self, index: usize) -> usize {
        // SAFETY: the caller's SQL declares the argument as a variable-length type.
        unsafe { pg_sys::toast_raw_datum_size(self.datum(index)) }
    }

    /// The bytes of a variable-length argument as it was passed, maybe compressed; `None` if they lie elsewhere.
    pub fn inline_bytes(self, index: usize) -> Option<&'static [u8]> {
        let datum: *mut pg_sys::varlena = self.datum(index).cast_mut_ptr();
        // SAFETY: the caller's SQL declares the argument as a variable-length type; what is not external is as long as
        // its header says, and lives as long as the call.
        unsafe {
            let external = pgrx::varlena::varatt_is_1b_e(datum);
            (!external).then(|| std::slice::from_raw_parts(datum.cast(), pgrx::varlena::varsize_any(datum)))
        }
    }

    /// The argument at `index` as a value of `T`.
    pub fn arg<T: FromDatum>(self, index: usize) -> T {
        // SAFETY: the caller's SQL declares the argument as a type that `T` reads.
        unsafe { T::from_datum(self.datum(index), false) }.expect("the function is strict")
    }

    /// State that lasts as long as the statement, or the transaction in PL/pgSQL; made on the first call.
    pub fn state<T: Default + 'static>(self) -> &'static mut T {
        // SAFETY: `fn_extra` is ours alone, null at first; what it points to is dropped with the statement's context,
        // and no two borrows of it overlap, since a function takes its state once in each call.
        unsafe {
            let flinfo = (*self.0).flinfo;
            if (*flinfo).fn_extra.is_null() {
                let state = PgMemoryContexts::For((*flinfo).fn_mcxt).leak_and_drop_on_delete(T::default());
                (*flinfo).fn_extra = state.cast();
            }
            &mut *(*flinfo).fn_extra.cast::<T>()
        }
    }
}
