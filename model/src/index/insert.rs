//! Insertion of one row. The caller must prevent concurrent insertions.

use super::code::Coder;
use super::layout::{
    FREE, Kind, Layout, ListEntry, Meta, NONE, SegmentHeader, expect_part, get_f32, get_u32, put, start_page,
};
use super::quantizer::Quantizer;
use super::segment::{distance, length, write_near};
use super::{IndexError, Origin, Pages, RowId};
use half::f16;

/// Where a row goes: a slot of a segment, and the far and fine page that hold it, which may be new.
#[derive(Clone, Copy, Debug)]
struct Place {
    segment: u32,
    slot: usize,
    far: u32,
    fine: u32,
}

/// Gives an index that was built without rows a quantizer for its first row: one list around zero.
///
/// # Errors
/// If a page cannot be written.
pub fn initialize<P: Pages>(pages: &mut P, dimension: usize) -> Result<(), P::Error> {
    let meta = pages.read(0, Meta::read)??;
    match meta.dimension {
        0 => Quantizer::plain(dimension, meta.bits, meta.id.wrapping_add(1)).create(pages),
        _ => Ok(()),
    }
}

/// Adds a row to an index.
///
/// `quantizer` is what [`Quantizer::load`] returns now. The pages that the row needs and the list's radius are written
/// first; then the row appears atomically.
///
/// # Errors
/// [`IndexError::Dimension`] if the embedding has another dimension than the index, or if a page cannot be read or written.
pub fn insert<P: Pages>(
    pages: &mut P,
    quantizer: &Quantizer,
    values: &[f16],
    origin: Origin,
    row: RowId,
) -> Result<(), P::Error> {
    let mut coder = Coder::new(quantizer);
    let coded = coder.code(values)?;
    let mut entry = quantizer.entry(pages, coded.list)?;
    let before = entry;
    entry.radius = entry.radius.max(distance(coded.bytes));
    entry.norm = entry.norm.max(length(coded.bytes));

    let slot = match reusable(pages, quantizer, (coded.list, &mut entry), origin, distance(coded.bytes))? {
        Some(slot) => slot,
        None => appendable(pages, quantizer, coded.list, &mut entry, origin)?,
    };
    let (segment, slot) = slot;
    let place = with_pages(pages, &quantizer.layout, segment, slot)?;
    if entry != before {
        let (page, at) = quantizer.entry_place(coded.list);
        pages.change([page], |[content]| {
            entry.write(content, at);
            Ok(())
        })?;
    }
    write(pages, quantizer, place, row, coded.bytes)
}

/// A free slot of the segment that the list's entry names, if the row may take it.
fn reusable<P: Pages>(
    pages: &P,
    quantizer: &Quantizer,
    (list, entry): (u32, &mut ListEntry),
    origin: Origin,
    away: f32,
) -> Result<Option<(u32, usize)>, P::Error> {
    if entry.free == NONE {
        return Ok(None);
    }
    let (segment, layout) = (entry.free, &quantizer.layout);
    let slot = pages.read(segment, |page| {
        let header = SegmentHeader::of_list(page, segment, layout, list)?;
        let free = (0..usize::from(header.used)).find(|slot| get_f32(page, layout.near_base_at(*slot)) == FREE);
        let fits = header.origin == origin && header.inner < away && away <= header.outer;
        Ok::<_, IndexError>(free.map(|slot| fits.then_some(slot)))
    })??;
    match slot {
        Some(slot) => Ok(slot.map(|slot| (segment, slot))),
        None => {
            entry.free = NONE;
            Ok(None)
        }
    }
}

/// The next slot of the list's newest segment that insertion made, or of one more.
fn appendable<P: Pages>(
    pages: &mut P,
    quantizer: &Quantizer,
    list: u32,
    entry: &mut ListEntry,
    origin: Origin,
) -> Result<(u32, usize), P::Error> {
    let layout = &quantizer.layout;
    if entry.head != NONE {
        let segment = entry.head;
        let header = pages.read(segment, |page| SegmentHeader::of_list(page, segment, layout, list))??;
        let open = header.outer == f32::INFINITY && header.origin == origin;
        if open && usize::from(header.used) < layout.slots {
            return Ok((segment, header.used.into()));
        }
    }
    // Rows of any distance may come.
    let header = SegmentHeader { list, next: entry.head, used: 0, free: 0, origin, inner: -1.0, outer: f32::INFINITY };
    entry.head = pages.add(|page| header.write(page))?;
    Ok((entry.head, 0))
}

/// Adds the far and the fine page of a slot where the segment has none yet.
fn with_pages<P: Pages>(pages: &mut P, layout: &Layout, segment: u32, slot: usize) -> Result<Place, P::Error> {
    let mut place = Place { segment, slot, far: NONE, fine: NONE };
    if layout.far > 0 {
        let at = layout.far_page_at(layout.far_row(slot).0);
        place.far = page_at(pages, segment, at, Kind::Far)?;
    }
    if layout.fine {
        let at = layout.fine_page_at(layout.fine_row(slot).0);
        place.fine = page_at(pages, segment, at, Kind::Fine)?;
    }
    Ok(place)
}

fn page_at<P: Pages>(pages: &mut P, segment: u32, at: usize, kind: Kind) -> Result<u32, P::Error> {
    match pages.read(segment, |page| get_u32(page, at))? {
        NONE => pages.add(|page| start_page(page, kind, segment)),
        known => Ok(known),
    }
}

/// Writes a row to its place, all at once.
fn write<P: Pages>(
    pages: &mut P,
    quantizer: &Quantizer,
    place: Place,
    id: RowId,
    bytes: &[u8],
) -> Result<(), P::Error> {
    let (layout, row, slot) = (&quantizer.layout, quantizer.row_layout(), place.slot);
    let near = |page: &mut [u8]| {
        let mut header = SegmentHeader::read(page, place.segment, layout)?;
        if slot == usize::from(header.used) {
            header.used += 1;
        } else {
            let damaged = IndexError::Damaged { page: place.segment, what: "segment has more free slots than it says" };
            header.free = header.free.checked_sub(1).ok_or(damaged)?;
        }
        header.write(page);
        write_near(page, layout, &row, slot, id, bytes);
        if layout.far > 0 {
            put(page, layout.far_page_at(layout.far_row(slot).0), place.far.to_le_bytes());
        }
        if layout.fine {
            put(page, layout.fine_page_at(layout.fine_row(slot).0), place.fine.to_le_bytes());
        }
        Ok(())
    };
    let far = |page: &mut [u8]| {
        expect_part(page, place.far, Kind::Far, place.segment)?;
        put(page, layout.far_row(slot).1, &bytes[row.far..row.fine]);
        Ok(())
    };
    let fine = |page: &mut [u8]| {
        expect_part(page, place.fine, Kind::Fine, place.segment)?;
        put(page, layout.fine_row(slot).1, &bytes[row.fine..]);
        Ok(())
    };
    match (layout.far > 0, layout.fine) {
        (false, false) => pages.change([place.segment], |[segment]| near(segment)),
        (true, false) => pages.change([place.segment, place.far], |[segment, page]| {
            far(page)?;
            near(segment)
        }),
        (false, true) => pages.change([place.segment, place.fine], |[segment, page]| {
            fine(page)?;
            near(segment)
        }),
        (true, true) => pages.change([place.segment, place.far, place.fine], |[segment, far_page, fine_page]| {
            far(far_page)?;
            fine(fine_page)?;
            near(segment)
        }),
    }
}
