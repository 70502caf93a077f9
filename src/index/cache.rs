//! What scans and inserts of this backend need of an index, kept from one to the next.

use super::pages::IndexPages;
use crate::error::Result;
use pgrx::prelude::*;
use sketch_model::index::Frame;
use std::cell::RefCell;
use std::sync::Arc;

/// Frames that a backend keeps; one of 512 dimensions and 1,000 lists takes 3 MB.
const KEPT: usize = 4;

/// The file of an index, and the random number on its first page: a rebuilt index differs in one of them.
type Key = (pg_sys::Oid, u64);

thread_local! {
    static FRAMES: RefCell<Vec<(Key, Arc<Frame>)>> = const { RefCell::new(Vec::new()) };
}

/// The frame of an index as it is now.
///
/// # Safety
/// `relation` is an open index of this access method.
pub unsafe fn frame(relation: pg_sys::Relation, pages: &IndexPages) -> Result<Arc<Frame>> {
    // SAFETY: the caller's promise.
    let key = (unsafe { file(relation) }, Frame::id(pages)?);
    let known = FRAMES.with_borrow(|kept| kept.iter().find(|(known, _)| *known == key).map(|(_, frame)| frame.clone()));
    if let Some(frame) = known {
        return Ok(frame);
    }
    let frame = Arc::new(Frame::load(pages)?);
    FRAMES.with_borrow_mut(|kept| {
        kept.retain(|((file, _), _)| *file != key.0);
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push((key, frame.clone()));
    });
    Ok(frame)
}

unsafe fn file(relation: pg_sys::Relation) -> pg_sys::Oid {
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
