//! The version of this library. The SQL of the extension has its own: a package replaces the library, `ALTER EXTENSION`
//! the SQL, and in between either may be ahead.

use crate::catalog::first_value;
use crate::error::{Result, SqlError};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

pub const LIBRARY: &str = env!("CARGO_PKG_VERSION");

#[pg_extern(stable, parallel_safe)]
fn library_version() -> &'static str {
    LIBRARY
}

/// Version of the extension's SQL in this database.
///
/// # Errors
/// If the catalog cannot be read.
pub fn of_sql() -> Result<String> {
    let version = first_value::<String>(
        "SELECT extversion FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'pg_sketch'",
        &[],
    )?;
    Ok(version.unwrap_or_default())
}

/// The error of what needs newer SQL than the database has.
///
/// # Errors
/// If the catalog cannot be read.
pub fn outdated(what: &str) -> Result<SqlError> {
    Ok(SqlError::new(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("{what} needs an update of extension \"pg_sketch\""),
    )
    .detail(format!("The library has version {LIBRARY}, the extension in this database {}.", of_sql()?))
    .hint("Run ALTER EXTENSION pg_sketch UPDATE."))
}

/// Whether the SQL in this database is later than version 0.1.0, which had neither `sketch.gallery` nor
/// `sketch.codebook_name`: its triggers told about galleries by their arguments, and a codebook's name was the database's.
pub fn is_later_than_0_1_0() -> bool {
    // SAFETY: plain look-ups in the catalog; no relation is in a schema that does not exist.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"sketch".as_ptr(), true);
        pg_sys::get_relname_relid(c"gallery".as_ptr(), schema) != pg_sys::InvalidOid
    }
}

/// Whether the SQL in this database has `sketch.queue`, the queue of the background worker.
pub fn has_queue() -> bool {
    // SAFETY: as above.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"sketch".as_ptr(), true);
        pg_sys::get_relname_relid(c"queue".as_ptr(), schema) != pg_sys::InvalidOid
    }
}

// Symbols that version 0.1.0 of the SQL names and later ones do not. Without them, a dump of it could not be restored; with
// other arguments than theirs, they would read what is not there.

#[pg_extern(volatile, parallel_unsafe)]
fn embed_rows() -> Result<(), ErrorReport> {
    Err(outdated("sketch_embed_rows")?.into())
}

#[pg_extern(volatile, parallel_unsafe)]
fn sketch_enable() -> Result<(), ErrorReport> {
    Err(outdated("sketch_enable")?.into())
}

#[pg_extern(volatile, parallel_unsafe)]
fn sketch_fuse() -> Result<(), ErrorReport> {
    Err(outdated("sketch_fuse")?.into())
}

#[pg_extern(volatile, parallel_unsafe)]
fn current_codebook() -> Result<(), ErrorReport> {
    Err(outdated("sketch_current_codebook")?.into())
}

#[pg_extern(volatile, parallel_unsafe)]
fn train_codebook() -> Result<(), ErrorReport> {
    Err(outdated("sketch_train_codebook")?.into())
}

#[pg_extern(volatile, parallel_unsafe)]
fn load_codebook() -> Result<(), ErrorReport> {
    Err(outdated("sketch_load_codebook")?.into())
}
