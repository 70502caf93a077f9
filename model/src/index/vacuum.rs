//! Removal of rows.

use super::layout::{
    ANY_DISTANCE, FREE, Kind, LAST, ListEntry, NONE, SegmentHeader, expect_kind, get_f32, kind, read_row_id,
};
use super::quantizer::Quantizer;
use super::segment::free_slot;
use super::{IndexError, Pages, RowId};

/// The part of a segment's slots that must be free, one in so many, so that insertion fills it up.
const REUSED: usize = 4;

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
            free(pages, quantizer, page, &gone)?;
        }
        page += 1;
    }
    Ok(total)
}

/// Frees slots of a segment. One that takes rows of any distance, or that no row is left in, is filled up by insertion again.
fn free<P: Pages>(pages: &mut P, quantizer: &Quantizer, page: u32, gone: &[(usize, RowId)]) -> Result<(), P::Error> {
    let layout = &quantizer.layout;
    let list = pages.read(page, |content| SegmentHeader::read(content, page, layout))??.list;
    let (entries_page, at) = quantizer.entry_place(list);
    pages.change([page, entries_page], |[content, entries]| {
        let mut header = SegmentHeader::of_list(content, page, layout, list)?;
        for (slot, row) in gone {
            // Nobody else takes rows out; a slot holds what it held.
            debug_assert_eq!(read_row_id(content, layout.row_id_at(*slot)), *row);
            free_slot(content, layout, *slot);
            header.free += 1;
        }
        if header.free == header.used {
            (header.used, header.free) = (0, 0);
            (header.inner, header.outer) = ANY_DISTANCE;
        }
        expect_kind(entries, entries_page, Kind::Entries)?;
        let mut entry = ListEntry::read(entries, at);
        let worth_it =
            header.is_open() && layout.slots - usize::from(header.used - header.free) >= layout.slots / REUSED;
        if header.next_free == NONE && (worth_it || entry.free == NONE) {
            header.next_free = if matches!(entry.free, NONE) || entry.free == page { LAST } else { entry.free };
            entry.free = page;
            entry.write(entries, at);
        }
        header.write(content);
        Ok(())
    })
}
