//! Removal of rows.

use super::layout::{FREE, Kind, SegmentHeader, expect_kind, get_f32, kind, put, read_row_id};
use super::quantizer::Quantizer;
use super::segment::free_slot;
use super::{IndexError, Pages, RowId};

/// What [`remove`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    pub removed: u64,
    pub left: u64,
}

/// Frees the slots of all rows for which `dead` returns true. Reads every page once, in order, including those added in the
/// meantime.
///
/// # Errors
/// If a page cannot be read or written.
pub fn remove<P: Pages>(
    pages: &mut P,
    quantizer: &Quantizer,
    mut dead: impl FnMut(RowId) -> bool,
) -> Result<Removed, P::Error> {
    let layout = &quantizer.layout;
    let mut total = Removed::default();
    let mut page = 1;
    while page < pages.count()? {
        let mut gone = Vec::new();
        let left = pages.read(page, |content| {
            if !matches!(kind(content), Some((Kind::Segment, _))) {
                return Ok(0);
            }
            let header = SegmentHeader::read(content, page, layout)?;
            if header.list as usize >= quantizer.lists() {
                return Err(IndexError::Damaged { page, what: "segment is of no list" });
            }
            let mut free = 0;
            for slot in 0..usize::from(header.used) {
                if get_f32(content, layout.near_base_at(slot)) == FREE {
                    free += 1;
                } else {
                    let row = read_row_id(content, layout.row_id_at(slot));
                    if dead(row) {
                        gone.push((slot, row));
                    }
                }
            }
            if free != header.free {
                return Err(IndexError::Damaged { page, what: "segment has another number of free slots" });
            }
            Ok(u64::from(header.used - header.free) - gone.len() as u64)
        })??;
        total.left += left;
        total.removed += gone.len() as u64;
        if !gone.is_empty() {
            let list = pages.change([page], |[content]| {
                let mut header = SegmentHeader::read(content, page, layout)?;
                for (slot, row) in &gone {
                    // Nobody else takes rows out; a slot holds what it held.
                    debug_assert_eq!(read_row_id(content, layout.row_id_at(*slot)), *row);
                    free_slot(content, layout, *slot);
                    header.free += 1;
                }
                header.write(content);
                Ok(header.list)
            })?;
            let (entries, at) = quantizer.entry_place(list);
            pages.change([entries], |[content]| {
                expect_kind(content, entries, Kind::Entries)?;
                put(content, at + 4, page.to_le_bytes());
                Ok(())
            })?;
        }
        page += 1;
    }
    Ok(total)
}
