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
