//! What the server asks of an access method.

use super::{build, cost, insert, options, scan, vacuum};
use pgrx::prelude::*;

/// The one strategy of an operator class: its operator `<->`.
const STRATEGIES: u16 = 1;

/// The routines of `ivfexact`.
///
/// The server passes no argument, whatever the declaration in SQL says.
#[pg_extern(volatile, strict, parallel_safe, sql = false)]
fn ivfexact_handler(_call: pg_sys::FunctionCallInfo) -> PgBox<pg_sys::IndexAmRoutine> {
    // SAFETY: a node of this type, which the server frees.
    let mut routine = unsafe { PgBox::<pg_sys::IndexAmRoutine>::alloc_node(pg_sys::NodeTag::T_IndexAmRoutine) };
    routine.amstrategies = STRATEGIES;
    routine.amcanorderbyop = true;
    // No column is asked for by a condition: the price keeps the planner from scans without order.
    routine.amoptionalkey = true;
    routine.amparallelvacuumoptions = pg_sys::VACUUM_OPTION_PARALLEL_BULKDEL as u8;
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    {
        routine.amcanbuildparallel = true;
    }
    routine.ambuild = Some(build::build);
    routine.ambuildempty = Some(build::build_empty);
    routine.ambuildphasename = Some(build::phase_name);
    routine.aminsert = Some(insert::insert);
    routine.ambulkdelete = Some(vacuum::bulk_delete);
    routine.amvacuumcleanup = Some(vacuum::cleanup);
    routine.amcostestimate = Some(cost::estimate);
    routine.amoptions = Some(options::parse);
    routine.amvalidate = Some(validate);
    routine.ambeginscan = Some(scan::begin);
    routine.amrescan = Some(scan::rescan);
    routine.amgettuple = Some(scan::next);
    routine.amendscan = Some(scan::end);
    routine.into_pg_boxed()
}

/// Takes every operator class: there is no support function to look for, and the extension makes the only one.
#[pg_guard]
unsafe extern "C-unwind" fn validate(_opclass: pg_sys::Oid) -> bool {
    true
}
