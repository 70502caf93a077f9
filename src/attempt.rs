//! Doing something that may fail, without failing oneself.

use crate::error::{Result, SqlError};
use pgrx::PgTryBuilder;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use std::panic::AssertUnwindSafe;

/// Runs `f` in a subtransaction, which is rolled back if `f` fails or raises an error, as PL/pgSQL does for a block with
/// exception handlers. A canceled statement is canceled all the same.
///
/// # Errors
/// Those that `f` returns or raises.
pub fn attempt<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: a transaction is in progress; the memory context and the resource owner are those of before.
    unsafe {
        let (context, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let result = PgTryBuilder::new(AssertUnwindSafe(f)).catch_others(|cause| Err(caught(cause))).execute();
        match result {
            Ok(_) => pg_sys::ReleaseCurrentSubTransaction(),
            Err(_) => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        result
    }
}

fn caught(cause: CaughtError) -> SqlError {
    let (CaughtError::PostgresError(report) | CaughtError::ErrorReport(report)) = &cause else { cause.rethrow() };
    if report.sql_error_code() == PgSqlErrorCode::ERRCODE_QUERY_CANCELED {
        cause.rethrow();
    }
    let error = SqlError::new(report.sql_error_code(), report.message());
    match report.detail() {
        Some(detail) => error.detail(detail),
        None => error,
    }
}
