//! What scans and inserts of this backend need of an index, kept from one to the next.

use super::pages::IndexPages;
use crate::catalog;
use crate::error::Result;
use pgrx::prelude::*;
use sketch_model::index::Quantizer;
use std::cell::RefCell;
use std::sync::Arc;

/// Quantizers that a backend keeps; one of 512 dimensions and 1,000 lists takes 3 MB.
const KEPT: usize = 4;

/// The file of an index, and the random number on its first page: a rebuilt index differs in one of them.
type Key = (pg_sys::Oid, u64);

thread_local! {
    static QUANTIZERS: RefCell<Vec<(Key, Arc<Quantizer>)>> = const { RefCell::new(Vec::new()) };
}

/// The quantizer of an index as it is now.
///
/// # Safety
/// `relation` is an open index of this access method.
pub unsafe fn quantizer(relation: pg_sys::Relation, pages: &IndexPages) -> Result<Arc<Quantizer>> {
    // SAFETY: the caller's promise.
    let (file, oid) = unsafe { (file(relation), (*relation).rd_id) };
    let id = Quantizer::id(pages).map_err(|error| match catalog::relation_name(oid) {
        Ok(name) => error.hint(format!("Run REINDEX INDEX {name}.")),
        Err(error) => error,
    })?;
    let key = (file, id);
    let known = QUANTIZERS
        .with_borrow(|kept| kept.iter().find(|(known, _)| *known == key).map(|(_, quantizer)| quantizer.clone()));
    if let Some(quantizer) = known {
        return Ok(quantizer);
    }
    let quantizer = Arc::new(Quantizer::load(pages)?);
    QUANTIZERS.with_borrow_mut(|kept| {
        kept.retain(|((file, _), _)| *file != key.0);
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push((key, quantizer.clone()));
    });
    Ok(quantizer)
}

/// The number of an index's file.
///
/// # Safety
/// `relation` is open.
pub unsafe fn file(relation: pg_sys::Relation) -> pg_sys::Oid {
    // SAFETY: the relation is open.
    #[cfg(feature = "pg15")]
    unsafe {
        (*relation).rd_node.relNode
    }
    #[cfg(not(feature = "pg15"))]
    unsafe {
        (*relation).rd_locator.relNumber
    }
}
