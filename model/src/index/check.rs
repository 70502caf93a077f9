//! Verification of an index.

use super::code::Coder;
use super::layout::{
    FREE, Kind, Layout, ListEntry, NONE, SegmentHeader, expect_part, get_f32, get_u32, pages_for, read_row_id,
};
use super::quantizer::Quantizer;
use super::segment::{distance, length, read_near};
use super::{IndexError, Origin, Pages, RowId};
use half::f16;
use std::collections::HashSet;

/// The contents of an index, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub lists: u64,
    pub rows: u64,
    /// Slots of deleted rows.
    pub free: u64,
    pub pages: u64,
    /// Pages without any reference to them: a crash may leave some.
    pub unused_pages: u64,
}

/// A row as the index holds it.
#[derive(Clone, Copy, Debug)]
pub struct StoredRow<'a> {
    list: u32,
    header: SegmentHeader,
    entry: ListEntry,
    bytes: &'a [u8],
}

impl StoredRow<'_> {
    /// Whether this is what the index should hold of an embedding: the bytes that it is coded to in the row's list, within the
    /// bounds of its segment and list.
    ///
    /// # Errors
    /// [`IndexError::Dimension`] if the embedding is of another dimension.
    pub fn matches(&self, coder: &mut Coder, values: &[f16]) -> Result<bool, IndexError> {
        let coded = coder.code_in(self.list, values)?;
        let (away, norm) = (distance(coded.bytes), length(coded.bytes));
        let bounded = self.header.inner < away && away <= self.header.outer;
        let listed = away <= self.entry.radius && norm <= self.entry.norm;
        // Distance and length are not kept with the row.
        let parts = [0..super::code::DISTANCE, super::code::NEAR_CODES..coded.bytes.len()];
        let same = parts.into_iter().all(|part| self.bytes[part.clone()] == coded.bytes[part]);
        Ok(bounded && listed && same)
    }
}

/// Walks through all lists of an index, verifies that every page is what leads to it says, and calls `each` for every row.
///
/// # Errors
/// [`IndexError::Damaged`] for what is wrong, and what `each` returns.
pub fn check<P: Pages>(
    pages: &P,
    quantizer: &Quantizer,
    mut each: impl FnMut(RowId, Origin, StoredRow<'_>) -> Result<(), P::Error>,
) -> Result<Checked, P::Error> {
    let mut total = Checked { lists: quantizer.lists() as u64, pages: pages.count()?.into(), ..Checked::default() };
    let mut seen = HashSet::new();
    for list in 0..quantizer.lists() as u32 {
        let entry = quantizer.entry(pages, list)?;
        let mut segment = entry.head;
        while segment != NONE {
            let used = check_segment(pages, quantizer, (list, entry, segment), &mut seen, &mut total, &mut each)?;
            segment = used;
        }
        let damaged = |what| IndexError::Damaged { page: entry.free, what };
        if entry.free != NONE && !seen.contains(&entry.free) {
            return Err(damaged("segment with free slots is of no list").into());
        }
    }
    let entries = quantizer.lists().div_ceil(ListEntry::PER_PAGE) as u64;
    let first_entries = u64::from(quantizer.entries_page);
    // Meta page and quantizer lie before the entries, also in an index that was built without rows.
    let fixed = if quantizer.lists() == 0 { 1 } else { first_entries + entries };
    total.unused_pages = total.pages.saturating_sub(fixed + seen.len() as u64);
    Ok(total)
}

/// Verifies a segment with its pages; returns the next one.
fn check_segment<P: Pages>(
    pages: &P,
    quantizer: &Quantizer,
    (list, entry, segment): (u32, ListEntry, u32),
    seen: &mut HashSet<u32>,
    total: &mut Checked,
    each: &mut impl FnMut(RowId, Origin, StoredRow<'_>) -> Result<(), P::Error>,
) -> Result<u32, P::Error> {
    let (layout, row) = (&quantizer.layout, quantizer.row_layout());
    let damaged = |what| IndexError::Damaged { page: segment, what };
    if !seen.insert(segment) {
        return Err(damaged("segment is in two places").into());
    }
    let content = pages.read(segment, <[u8]>::to_vec)?;
    let header = SegmentHeader::of_list(&content, segment, layout, list)?;
    let used = usize::from(header.used);
    let far = parts(pages, &content, segment, Part::far(layout, used), seen)?;
    let fine = parts(pages, &content, segment, Part::fine(layout, used), seen)?;
    let mut bytes = vec![0; row.size];
    let mut free = 0;
    for slot in 0..used {
        if get_f32(&content, layout.near_base_at(slot)) == FREE {
            free += 1;
            continue;
        }
        read_near(&content, layout, &row, slot, &mut bytes);
        if layout.far > 0 {
            let (page, at) = layout.far_row(slot);
            bytes[row.far..row.fine].copy_from_slice(&far[page][at..][..row.fine - row.far]);
        }
        if layout.fine {
            let (page, at) = layout.fine_row(slot);
            bytes[row.fine..].copy_from_slice(&fine[page][at..][..row.size - row.fine]);
        }
        let stored = StoredRow { list, header, entry, bytes: &bytes };
        each(read_row_id(&content, layout.row_id_at(slot)), header.origin, stored)?;
        total.rows += 1;
    }
    if free != header.free {
        return Err(damaged("segment has another number of free slots").into());
    }
    total.free += u64::from(free);
    Ok(header.next)
}

/// The far or the fine pages of a segment.
struct Part {
    kind: Kind,
    count: usize,
    /// Offset of the first one's number.
    at: usize,
}

impl Part {
    fn far(layout: &Layout, used: usize) -> Self {
        Self { kind: Kind::Far, count: pages_for(used, layout.far_per_page), at: layout.far_page_at(0) }
    }

    fn fine(layout: &Layout, used: usize) -> Self {
        Self { kind: Kind::Fine, count: pages_for(used, layout.fine_per_page), at: layout.fine_page_at(0) }
    }
}

fn parts<P: Pages>(
    pages: &P,
    content: &[u8],
    segment: u32,
    part: Part,
    seen: &mut HashSet<u32>,
) -> Result<Vec<Vec<u8>>, P::Error> {
    let mut found = Vec::new();
    for index in 0..part.count {
        let page = get_u32(content, part.at + 4 * index);
        if page == NONE || !seen.insert(page) {
            return Err(IndexError::Damaged { page: segment, what: "segment lacks a page or shares it" }.into());
        }
        let content = pages.read(page, <[u8]>::to_vec)?;
        expect_part(&content, page, part.kind, segment)?;
        found.push(content);
    }
    Ok(found)
}
