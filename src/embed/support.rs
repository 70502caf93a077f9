//! What the planner is told of `sketch_embed` and `photo_embed`.

use pgrx::datum::Internal;
use pgrx::prelude::*;

/// Cost of one run of the network in units of `cpu_operator_cost`: some 15 ms against some 150 ns.
const RUN_COST: f64 = 100_000.0;

/// Answers the planner: what a call costs, and where it may be computed once for all rows.
#[pg_extern(immutable, strict, parallel_safe)]
fn embed_support(request: Internal) -> Internal {
    let node = request.unwrap().map_or(std::ptr::null_mut(), |datum| datum.cast_mut_ptr::<pg_sys::Node>());
    // SAFETY: a support function's argument is a node; its fields are read and written only once its tag is known.
    let answer = unsafe {
        if pgrx::is_a(node, pg_sys::NodeTag::T_SupportRequestSimplify) {
            once(&*node.cast())
        } else if pgrx::is_a(node, pg_sys::NodeTag::T_SupportRequestCost) {
            cost(&mut *node.cast());
            node
        } else {
            std::ptr::null_mut()
        }
    };
    // "No answer" is a null pointer, which is not SQL's NULL.
    Internal::from(Some(answer.into()))
}

/// With constants and parameters, the network runs once and then not again.
///
/// # Safety
/// `request` comes from the planner.
unsafe fn cost(request: &mut pg_sys::SupportRequestCost) {
    // SAFETY: the caller's promise.
    unsafe {
        let varies = request.node.is_null() || pg_sys::contain_var_clause(request.node);
        let run = RUN_COST * pg_sys::cpu_operator_cost;
        (request.startup, request.per_tuple) = if varies { (0.0, run) } else { (run, pg_sys::cpu_operator_cost) };
    }
}

/// `(SELECT f(…))` in place of a call `f(…)` that no row changes.
///
/// The executor runs such a query at most once, and hands out its result as a parameter. `postgres_fdw` sends a parameter
/// to the other server; a call that is not immutable it would not send, but fetch all rows.
///
/// # Safety
/// `request` comes from the planner.
unsafe fn once(request: &pg_sys::SupportRequestSimplify) -> *mut pg_sys::Node {
    // SAFETY: the planner's nodes are valid; those that are made here have the fields that a query without tables needs.
    unsafe {
        let call = request.fcall;
        if request.root.is_null() || !reads_tables((*request.root).parse) || !all((*call).args, |arg| is_fixed(arg)) {
            return std::ptr::null_mut();
        }
        let column =
            pg_sys::makeTargetEntry(pg_sys::copyObjectImpl(call.cast()).cast(), 1, std::ptr::null_mut(), false);
        let mut query = PgBox::<pg_sys::Query>::alloc_node(pg_sys::NodeTag::T_Query);
        query.commandType = pg_sys::CmdType::CMD_SELECT;
        query.canSetTag = true;
        query.targetList = pg_sys::lappend(std::ptr::null_mut(), column.cast());
        query.jointree = pg_sys::makeFromExpr(std::ptr::null_mut(), std::ptr::null_mut());
        let mut select = PgBox::<pg_sys::SubLink>::alloc_node(pg_sys::NodeTag::T_SubLink);
        select.subLinkType = pg_sys::SubLinkType::EXPR_SUBLINK;
        select.subselect = query.into_pg().cast();
        select.location = (*call).location;
        // The planner looks for such queries where this says that there are some.
        (*(*request.root).parse).hasSubLinks = true;
        select.into_pg().cast()
    }
}

/// Whether a query may have more than one row. The planner gives one without FROM a table that stands for a single row.
///
/// # Safety
/// `query` is a valid query.
unsafe fn reads_tables(query: *const pg_sys::Query) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        !all((*query).rtable, |table| (*table.cast::<pg_sys::RangeTblEntry>()).rtekind == pg_sys::RTEKind::RTE_RESULT)
    }
}

/// Whether an expression is the same for all rows of a query: of constants and parameters alone, and without a function that
/// may give another result at each call.
///
/// # Safety
/// `node` is an expression that the planner has simplified.
unsafe fn is_fixed(node: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller's promise; each node is read as what its tag says.
    unsafe {
        let fixed = match (*node).type_ {
            pg_sys::NodeTag::T_Const => true,
            pg_sys::NodeTag::T_Param => (*node.cast::<pg_sys::Param>()).paramkind == pg_sys::ParamKind::PARAM_EXTERN,
            pg_sys::NodeTag::T_FuncExpr => all((*node.cast::<pg_sys::FuncExpr>()).args, |arg| is_fixed(arg)),
            pg_sys::NodeTag::T_OpExpr => all((*node.cast::<pg_sys::OpExpr>()).args, |arg| is_fixed(arg)),
            pg_sys::NodeTag::T_RelabelType => is_fixed((*node.cast::<pg_sys::RelabelType>()).arg.cast()),
            pg_sys::NodeTag::T_CoerceViaIO => is_fixed((*node.cast::<pg_sys::CoerceViaIO>()).arg.cast()),
            _ => false,
        };
        fixed && !pg_sys::contain_volatile_functions(node)
    }
}

/// # Safety
/// `list` is a list of nodes, or null.
unsafe fn all(list: *const pg_sys::List, mut holds: impl FnMut(*mut pg_sys::Node) -> bool) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        list.is_null() || (0..(*list).length as usize).all(|i| holds((*(*list).elements.add(i)).ptr_value.cast()))
    }
}
