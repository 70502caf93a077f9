//! Insertion of one row. The caller must prevent concurrent insertions.

use super::code::{Coded, Coder};
use super::layout::{
    ANY_DISTANCE, FREE, Kind, LAST, Layout, ListEntry, Meta, NONE, SegmentHeader, expect_kind, expect_part, get_f32,
    get_u32, put, start_page,
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
        0 => Quantizer::plain(dimension, meta.bits, meta.id.wrapping_add(dimension as u64)).create(pages),
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
    insert_coded(pages, quantizer, &Coder::new(quantizer).code(values)?, origin, row)
}

/// As [`insert`], of a row that was coded before: coding needs no protection from others who insert.
///
/// # Errors
/// If a page cannot be read or written.
pub fn insert_coded<P: Pages>(
    pages: &mut P,
    quantizer: &Quantizer,
    coded: &Coded<'_>,
    origin: Origin,
    row: RowId,
) -> Result<(), P::Error> {
    let mut chosen = reusable(pages, quantizer, coded, origin)?;
    loop {
        let (segment, slot) = match chosen {
            Some(slot) => slot,
            None => appendable(pages, quantizer, coded.list, origin)?,
        };
        let place = with_pages(pages, &quantizer.layout, segment, slot)?;
        widen(pages, quantizer, coded)?;
        if write(pages, quantizer, place, origin, row, coded.bytes)? {
            return Ok(());
        }
        // Meanwhile all rows of the segment were removed.
        chosen = Some((segment, 0));
    }
}

/// Makes radius and length of the longest embedding of the row's list large enough for it.
fn widen<P: Pages>(pages: &mut P, quantizer: &Quantizer, coded: &Coded<'_>) -> Result<(), P::Error> {
    let entry = quantizer.entry(pages, coded.list)?;
    let (radius, norm) = (entry.radius.max(distance(coded.bytes)), entry.norm.max(length(coded.bytes)));
    if (radius, norm) != (entry.radius, entry.norm) {
        change_entry(pages, quantizer, coded.list, |entry| (entry.radius, entry.norm) = (radius, norm))?;
    }
    Ok(())
}

/// Changes what is to be changed of a list's entry alone: removal may change another part of it.
fn change_entry<P: Pages>(
    pages: &mut P,
    quantizer: &Quantizer,
    list: u32,
    edit: impl FnOnce(&mut ListEntry),
) -> Result<(), P::Error> {
    let (page, at) = quantizer.entry_place(list);
    pages.change([page], |[content]| {
        expect_kind(content, page, Kind::Entries)?;
        let mut entry = ListEntry::read(content, at);
        edit(&mut entry);
        entry.write(content, at);
        Ok(())
    })
}

/// A slot of the first segment that the list has to be filled up, if the row may take it. Full segments are taken off.
fn reusable<P: Pages>(
    pages: &mut P,
    quantizer: &Quantizer,
    coded: &Coded<'_>,
    origin: Origin,
) -> Result<Option<(u32, usize)>, P::Error> {
    let (layout, away) = (&quantizer.layout, distance(coded.bytes));
    loop {
        let segment = quantizer.entry(pages, coded.list)?.free;
        if segment == NONE {
            return Ok(None);
        }
        let slot = pages.read(segment, |page| {
            let header = SegmentHeader::of_list(page, segment, layout, coded.list)?;
            let used = usize::from(header.used);
            let free = (0..used).find(|slot| get_f32(page, layout.near_base_at(*slot)) == FREE);
            let next = (header.is_open() && used < layout.slots).then_some(used);
            let fits = header.inner < away && away <= header.outer && (used == 0 || header.origin == origin);
            Ok::<_, IndexError>(free.or(next).map(|slot| fits.then_some((segment, slot))))
        })??;
        match slot {
            Some(slot) => return Ok(slot),
            None => take_off(pages, quantizer, coded.list, segment)?,
        }
    }
}

/// Takes the first of the segments to be filled up off, if it still is the first.
fn take_off<P: Pages>(pages: &mut P, quantizer: &Quantizer, list: u32, segment: u32) -> Result<(), P::Error> {
    let (page, at) = quantizer.entry_place(list);
    pages.change([segment, page], |[content, entries]| {
        let mut header = SegmentHeader::of_list(content, segment, &quantizer.layout, list)?;
        expect_kind(entries, page, Kind::Entries)?;
        let mut entry = ListEntry::read(entries, at);
        if entry.free == segment {
            entry.free = if header.next_free == LAST { NONE } else { header.next_free };
            entry.write(entries, at);
            header.next_free = NONE;
            header.write(content);
        }
        Ok(())
    })
}

/// The next slot of the list's newest segment that insertion made, or of one more.
fn appendable<P: Pages>(
    pages: &mut P,
    quantizer: &Quantizer,
    list: u32,
    origin: Origin,
) -> Result<(u32, usize), P::Error> {
    let layout = &quantizer.layout;
    let head = quantizer.entry(pages, list)?.head;
    if head != NONE {
        let header = pages.read(head, |page| SegmentHeader::of_list(page, head, layout, list))??;
        let fits = header.is_open() && (header.used == 0 || header.origin == origin);
        if fits && usize::from(header.used) < layout.slots {
            return Ok((head, header.used.into()));
        }
    }
    // Rows of any distance may come.
    let header = SegmentHeader {
        list,
        next: head,
        used: 0,
        free: 0,
        origin,
        inner: ANY_DISTANCE.0,
        outer: ANY_DISTANCE.1,
        next_free: NONE,
    };
    let segment = pages.add(|page| header.write(page))?;
    change_entry(pages, quantizer, list, |entry| entry.head = segment)?;
    Ok((segment, 0))
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

/// Writes a row to its place, all at once. Returns whether the place was still there: rows that are used up may be removed
/// meanwhile, and the segment starts again.
fn write<P: Pages>(
    pages: &mut P,
    quantizer: &Quantizer,
    place: Place,
    origin: Origin,
    id: RowId,
    bytes: &[u8],
) -> Result<bool, P::Error> {
    let (layout, row, slot) = (&quantizer.layout, quantizer.row_layout(), place.slot);
    let near = |page: &mut [u8]| {
        let mut header = SegmentHeader::read(page, place.segment, layout)?;
        if slot > usize::from(header.used) {
            return Ok(false);
        }
        if header.used == 0 {
            header.origin = origin;
        }
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
        Ok(true)
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
