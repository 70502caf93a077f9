//! Acting as another role for a while: what a function does then, it does with that role's rights, not its caller's.

use crate::error::Result;
use pgrx::prelude::*;

/// The caller's role, taken back when this is dropped; an error ends with the server doing so itself.
pub struct Acting {
    caller: pg_sys::Oid,
    context: i32,
    /// Level of settings that end with this.
    settings: Option<i32>,
}

impl Acting {
    /// Acts as `role` to run what is not our own, expressions of an index for one: in a security-restricted operation and
    /// with a fixed search path, as the server's own maintenance does.
    pub fn restricted(role: pg_sys::Oid) -> Self {
        let mut acting = Self::switch(role, pg_sys::SECURITY_RESTRICTED_OPERATION);
        // SAFETY: the name is a setting's, the value one that it takes; the level ends when this is dropped.
        unsafe {
            let level = pg_sys::NewGUCNestLevel();
            pg_sys::set_config_option(
                c"search_path".as_ptr(),
                c"pg_catalog, pg_temp".as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
            acting.settings = Some(level);
        }
        acting
    }

    fn switch(role: pg_sys::Oid, restriction: u32) -> Self {
        let (mut caller, mut context) = (pg_sys::InvalidOid, 0);
        // SAFETY: the two are given back as they were found.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut caller, &mut context);
            pg_sys::SetUserIdAndSecContext(role, context | restriction as i32);
        }
        Self { caller, context, settings: None }
    }
}

/// Runs `f` with the rights of the owner of `sketch.gallery`, the only role that may write the extension's tables.
///
/// Unlike `SECURITY DEFINER`, this covers one statement; everything else runs with the caller's rights.
///
/// # Errors
/// Those of `f`.
pub fn as_owner<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: plain look-ups in the catalog.
    let owner = unsafe {
        let schema = pg_sys::get_namespace_oid(c"sketch".as_ptr(), false);
        let table = pg_sys::table_open(
            pg_sys::get_relname_relid(c"gallery".as_ptr(), schema),
            pg_sys::AccessShareLock as pg_sys::LOCKMODE,
        );
        let owner = (*(*table).rd_rel).relowner;
        pg_sys::table_close(table, pg_sys::NoLock as pg_sys::LOCKMODE);
        owner
    };
    // The same switch that checks of foreign keys make.
    let _owner = Acting::switch(owner, pg_sys::SECURITY_LOCAL_USERID_CHANGE);
    f()
}

impl Drop for Acting {
    fn drop(&mut self) {
        // The end of a failed transaction or subtransaction does both.
        if !std::thread::panicking() {
            // SAFETY: as they were found.
            unsafe {
                if let Some(level) = self.settings {
                    pg_sys::AtEOXact_GUC(false, level);
                }
                pg_sys::SetUserIdAndSecContext(self.caller, self.context);
            }
        }
    }
}
