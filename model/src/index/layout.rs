//! The layout of the pages of an index.
//!
//! | page | holds |
//! | --- | --- |
//! | meta, page 0 | options of the index, and where quantizer and entries start |
//! | quantizer | a stream of bytes: rotation, scales, centroids |
//! | entries | a [`ListEntry`] for each list |
//! | segment | what a search reads first of the rows of one list: near and middle codes, bounds, row ids |
//! | far | the other codes of rows, of one segment each page |
//! | fine | the lower halves of all codes of rows, of one segment each page |
//!
//! Every page begins with its kind. Numbers are little-endian. A list is a chain of segments, the newest first.

use super::calibrate::Calibration;
use super::{IndexError, MAX_LISTS, Origin, PAGE_SIZE, RowId};
use crate::manifest::MAX_DIMENSION;
use crate::simd::{BLOCK, BLOCK_BYTES, GROUP, LANES, RESTS};
use half::bf16;
use std::ops::Range;

pub const MAGIC: u32 = u32::from_le_bytes(*b"ivfx");
/// Increases with every change of the layout.
pub const VERSION: u16 = 1;
/// Bytes at the start of every page but the meta page: kind, nothing in two bytes, and a number that the kind explains.
pub const HEADER: usize = 8;
/// No page: page 0 is the meta page.
pub const NONE: u32 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    Quantizer = 1,
    Entries = 2,
    Segment = 3,
    Far = 4,
    Fine = 5,
}

pub fn get<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("N bytes")
}
pub fn get_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(get(bytes, at))
}
pub fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(get(bytes, at))
}
pub fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(get(bytes, at))
}
pub fn get_f32(bytes: &[u8], at: usize) -> f32 {
    f32::from_le_bytes(get(bytes, at))
}
pub fn get_bf16(bytes: &[u8], at: usize) -> f32 {
    bf16::from_le_bytes(get(bytes, at)).to_f32()
}
pub fn put(bytes: &mut [u8], at: usize, value: impl AsRef<[u8]>) {
    let value = value.as_ref();
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Writes the header of a page.
pub fn start_page(page: &mut [u8], kind: Kind, number: u32) {
    put(page, 0, (kind as u16).to_le_bytes());
    put(page, 4, number.to_le_bytes());
}

/// The kind of a page and its number; `None` for the meta page and for invalid pages.
pub fn kind(page: &[u8]) -> Option<(Kind, u32)> {
    let kind = match get_u16(page, 0) {
        1 => Kind::Quantizer,
        2 => Kind::Entries,
        3 => Kind::Segment,
        4 => Kind::Far,
        5 => Kind::Fine,
        _ => return None,
    };
    Some((kind, get_u32(page, 4)))
}

/// The number of a page that must be of this kind.
///
/// # Errors
/// [`IndexError::Damaged`] if it is of another.
pub fn expect_kind(page: &[u8], at: u32, expected: Kind) -> Result<u32, IndexError> {
    match kind(page) {
        Some((kind, number)) if kind == expected => Ok(number),
        _ => Err(IndexError::Damaged { page: at, what: "page is of another kind" }),
    }
}

/// # Errors
/// [`IndexError::Damaged`] if this is not the far or fine page, as `expected` says, of the segment.
pub fn expect_part(page: &[u8], at: u32, expected: Kind, segment: u32) -> Result<(), IndexError> {
    match expect_kind(page, at, expected)? == segment {
        true => Ok(()),
        false => Err(IndexError::Damaged { page: at, what: "page is of another segment" }),
    }
}

/// What the meta page says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Meta {
    pub bits: u8,
    /// 0 before the first row.
    pub dimension: u32,
    pub lists: u32,
    /// A random number that identifies the quantizer.
    pub id: u64,
    pub quantizer_page: u32,
    pub quantizer_bytes: u64,
    pub entries_page: u32,
    pub calibration: Calibration,
}

/// Where the meta page has the calibration; an index that was built before there was one has zeros there.
const CALIBRATION: usize = 40;

impl Meta {
    pub fn write(&self, page: &mut [u8]) {
        put(page, 0, MAGIC.to_le_bytes());
        put(page, 4, VERSION.to_le_bytes());
        put(page, 6, [self.bits, 0]);
        put(page, 8, self.dimension.to_le_bytes());
        put(page, 12, self.lists.to_le_bytes());
        put(page, 16, self.id.to_le_bytes());
        put(page, 24, self.quantizer_bytes.to_le_bytes());
        put(page, 32, self.quantizer_page.to_le_bytes());
        put(page, 36, self.entries_page.to_le_bytes());
        self.calibration.write(&mut page[CALIBRATION..][..Calibration::SIZE]);
    }

    /// # Errors
    /// [`IndexError::Damaged`] if this is no meta page, [`IndexError::Version`] if it is one of another format.
    pub fn read(page: &[u8]) -> Result<Self, IndexError> {
        if get_u32(page, 0) != MAGIC {
            return Err(IndexError::Damaged { page: 0, what: "meta page has no mark" });
        }
        let found = get_u16(page, 4);
        if found != VERSION {
            return Err(IndexError::Version { found, expected: VERSION });
        }
        let damaged = IndexError::Damaged { page: 0, what: "meta page describes no index" };
        let Some(calibration) = Calibration::read(&page[CALIBRATION..][..Calibration::SIZE]) else {
            return Err(damaged);
        };
        let meta = Self {
            bits: page[6],
            dimension: get_u32(page, 8),
            lists: get_u32(page, 12),
            id: get_u64(page, 16),
            quantizer_bytes: get_u64(page, 24),
            quantizer_page: get_u32(page, 32),
            entries_page: get_u32(page, 36),
            calibration,
        };
        if meta.is_possible() { Ok(meta) } else { Err(damaged) }
    }

    /// Whether there can be an index of these sizes: none of them is used before this.
    fn is_possible(&self) -> bool {
        let (dimension, lists) = (self.dimension as usize, self.lists as usize);
        if !matches!(self.bits, 4 | 8) || dimension > MAX_DIMENSION || lists > MAX_LISTS {
            return false;
        }
        if dimension == 0 {
            return lists == 0;
        }
        let padded = dimension.next_multiple_of(BLOCK);
        let plain = 4 + 4 * padded + 2 * padded * lists;
        let rotated = plain + 4 * padded * padded;
        lists > 0
            && [plain as u64, rotated as u64].contains(&self.quantizer_bytes)
            && self.quantizer_page != NONE
            && self.entries_page != NONE
    }

    /// How many pages the quantizer takes, and the entries.
    pub fn page_counts(&self) -> [u64; 2] {
        let quantizer = self.quantizer_bytes.div_ceil((PAGE_SIZE - HEADER) as u64);
        [quantizer, u64::from(self.lists).div_ceil(ListEntry::PER_PAGE as u64)]
    }
}

/// Summary of a list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ListEntry {
    /// Its newest segment.
    pub head: u32,
    /// The first of the segments that insertion may fill up, if there is one.
    pub free: u32,
    /// The greatest distance of a row from the centroid.
    pub radius: f32,
    /// The length of the longest embedding.
    pub norm: f32,
}

impl ListEntry {
    pub const SIZE: usize = 16;
    pub const PER_PAGE: usize = (PAGE_SIZE - HEADER) / Self::SIZE;
    pub const EMPTY: Self = Self { head: NONE, free: NONE, radius: 0.0, norm: 0.0 };

    /// Page, counted from the first of the entries, and offset of a list's entry.
    pub fn place(list: u32) -> (u32, usize) {
        let list = list as usize;
        ((list / Self::PER_PAGE) as u32, HEADER + list % Self::PER_PAGE * Self::SIZE)
    }

    pub fn write(&self, page: &mut [u8], at: usize) {
        put(page, at, self.head.to_le_bytes());
        put(page, at + 4, self.free.to_le_bytes());
        put(page, at + 8, self.radius.to_le_bytes());
        put(page, at + 12, self.norm.to_le_bytes());
    }

    pub fn read(page: &[u8], at: usize) -> Self {
        Self {
            head: get_u32(page, at),
            free: get_u32(page, at + 4),
            radius: get_f32(page, at + 8),
            norm: get_f32(page, at + 12),
        }
    }
}

/// Sizes and offsets for a dimension and a number of bits.
///
/// Channels are padded with zeros to a multiple of [`BLOCK`]: the first block is near, the second, if there is one,
/// middle, the rest far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub padded: usize,
    pub middle: usize,
    pub far: usize,
    /// Whether codes have a lower half.
    pub fine: bool,
    /// Rows of a segment, a multiple of [`GROUP`].
    pub slots: usize,
    pub far_per_page: usize,
    pub fine_per_page: usize,
    pub far_pages: usize,
    pub fine_pages: usize,
}

/// Bytes at the start of a segment; the numbers of its far and fine pages follow.
const SEGMENT_HEADER: usize = 40;
/// Bytes of a slot beside its codes: two bases, scale, two errors, norms of the rest, row id.
const SLOT: usize = 4 + 4 + 2 + 2 + 2 + 2 * RESTS + 6;
/// Bytes of a far or fine row beside its codes.
pub const ROW_BOUND: usize = 6;

impl Layout {
    pub fn new(dimension: usize, bits: u8) -> Self {
        let padded = dimension.next_multiple_of(BLOCK).max(BLOCK);
        let middle = if padded > BLOCK { BLOCK } else { 0 };
        let far = padded - BLOCK - middle;
        let fine = bits > 4;
        let far_per_page = if far > 0 { (PAGE_SIZE - HEADER) / (far / 2 + ROW_BOUND) } else { 0 };
        let fine_per_page = if fine { (PAGE_SIZE - HEADER) / (padded / 2 + ROW_BOUND) } else { 0 };
        let with = |slots| {
            let (far_pages, fine_pages) = (pages_for(slots, far_per_page), pages_for(slots, fine_per_page));
            Self { padded, middle, far, fine, slots, far_per_page, fine_per_page, far_pages, fine_pages }
        };
        // The fewest pages for a row; of those the most rows.
        (1..)
            .map(|groups| with(groups * GROUP))
            .take_while(|layout| layout.end() <= PAGE_SIZE)
            .min_by_key(|layout| {
                ((1 + layout.far_pages + layout.fine_pages) * 10_000 / layout.slots, usize::MAX - layout.slots)
            })
            .expect("a group of the longest rows fits on a page")
    }

    pub fn far_page_at(&self, index: usize) -> usize {
        SEGMENT_HEADER + 4 * index
    }
    pub fn fine_page_at(&self, index: usize) -> usize {
        self.far_page_at(self.far_pages) + 4 * index
    }
    pub fn near_codes_at(&self, group: usize) -> usize {
        (self.fine_page_at(self.fine_pages)).next_multiple_of(8) + group * GROUP * BLOCK_BYTES
    }
    /// Offset of 4 bytes of a slot's near codes, which hold 8 channels.
    pub fn near_code_at(&self, slot: usize, eighth: usize) -> usize {
        self.near_codes_at(slot / GROUP) + (eighth * GROUP + slot % GROUP) * 4
    }
    pub fn middle_code_at(&self, slot: usize) -> usize {
        self.near_codes_at(self.slots / GROUP) + slot * self.middle / 2
    }
    pub fn near_base_at(&self, slot: usize) -> usize {
        self.middle_code_at(self.slots) + 4 * slot
    }
    pub fn middle_base_at(&self, slot: usize) -> usize {
        self.near_base_at(self.slots) + 4 * slot
    }
    pub fn scale_at(&self, slot: usize) -> usize {
        self.middle_base_at(self.slots) + 2 * slot
    }
    pub fn near_error_at(&self, slot: usize) -> usize {
        self.scale_at(self.slots) + 2 * slot
    }
    pub fn middle_error_at(&self, slot: usize) -> usize {
        self.near_error_at(self.slots) + 2 * slot
    }
    pub fn rest_at(&self, part: usize, slot: usize) -> usize {
        self.middle_error_at(self.slots) + 2 * (part * self.slots + slot)
    }
    pub fn row_id_at(&self, slot: usize) -> usize {
        self.rest_at(RESTS, 0) + 6 * slot
    }

    /// What the near stage reads of a segment's page: header and near codes, then bounds.
    pub fn near_parts(&self) -> [Range<usize>; 2] {
        [0..self.near_codes_at(1), self.near_base_at(0)..self.near_base_at(0) + 64]
    }

    /// The channels of a part of the rest; parts may be empty.
    pub fn rest(&self, part: usize) -> Range<usize> {
        if part == 0 {
            return BLOCK..BLOCK + self.middle;
        }
        let width = self.far.div_ceil(RESTS - 1).next_multiple_of(LANES);
        let end = |parts: usize| BLOCK + self.middle + (parts * width).min(self.far);
        end(part - 1)..end(part)
    }

    fn end(&self) -> usize {
        debug_assert_eq!(self.row_id_at(self.slots) - self.near_base_at(0), self.slots * SLOT);
        self.row_id_at(self.slots)
    }

    /// Index of the far page and offset of a slot's far row: its bounds, then its codes.
    pub fn far_row(&self, slot: usize) -> (usize, usize) {
        (slot / self.far_per_page, HEADER + slot % self.far_per_page * (self.far / 2 + ROW_BOUND))
    }

    /// Index of the fine page and offset of a slot's fine row: its bounds, then the lower halves of its codes.
    pub fn fine_row(&self, slot: usize) -> (usize, usize) {
        (slot / self.fine_per_page, HEADER + slot % self.fine_per_page * (self.padded / 2 + ROW_BOUND))
    }
}

/// The number of pages for these slots; 0 if there are no such pages.
pub fn pages_for(slots: usize, per_page: usize) -> usize {
    if per_page == 0 { 0 } else { slots.div_ceil(per_page) }
}

/// The start of a segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SegmentHeader {
    pub list: u32,
    pub next: u32,
    /// Slots that hold or have held a row.
    pub used: u16,
    /// Those of them that are free again.
    pub free: u16,
    pub origin: Origin,
    /// Every row's distance from the centroid lies between these two. They never change while a row in it is visible: a
    /// search may come back to it and must find the same bounds.
    pub inner: f32,
    pub outer: f32,
    /// The next of the list's segments that insertion may fill up, [`LAST`] for none; [`NONE`] if this is none of them.
    pub next_free: u32,
}

/// Inner and outer bound of a segment that takes rows of any distance.
pub const ANY_DISTANCE: (f32, f32) = (-1.0, f32::INFINITY);

/// In place of the segment after the last one that insertion may fill up.
pub const LAST: u32 = u32::MAX;

impl SegmentHeader {
    /// Whether rows of any distance may come.
    pub fn is_open(&self) -> bool {
        self.outer == f32::INFINITY
    }

    pub fn write(&self, page: &mut [u8]) {
        start_page(page, Kind::Segment, self.list);
        put(page, 8, self.next.to_le_bytes());
        put(page, 12, self.used.to_le_bytes());
        put(page, 14, self.free.to_le_bytes());
        put(page, 16, self.origin.model.to_le_bytes());
        put(page, 20, self.origin.codebook.to_le_bytes());
        put(page, 24, self.inner.to_le_bytes());
        put(page, 28, self.outer.to_le_bytes());
        put(page, 32, self.next_free.to_le_bytes());
    }

    /// # Errors
    /// [`IndexError::Damaged`] if the page is none.
    pub fn read(page: &[u8], at: u32, layout: &Layout) -> Result<Self, IndexError> {
        let list = expect_kind(page, at, Kind::Segment)?;
        let header = Self {
            list,
            next: get_u32(page, 8),
            used: get_u16(page, 12),
            free: get_u16(page, 14),
            origin: Origin { model: get_u32(page, 16), codebook: get_u32(page, 20) },
            inner: get_f32(page, 24),
            outer: get_f32(page, 28),
            next_free: get_u32(page, 32),
        };
        match usize::from(header.used) <= layout.slots && header.free <= header.used {
            true => Ok(header),
            false => Err(IndexError::Damaged { page: at, what: "segment has more rows than slots" }),
        }
    }
}

impl SegmentHeader {
    /// # Errors
    /// [`IndexError::Damaged`] if the page is no segment of this list.
    pub fn of_list(page: &[u8], at: u32, layout: &Layout, list: u32) -> Result<Self, IndexError> {
        let header = Self::read(page, at, layout)?;
        match header.list == list {
            true => Ok(header),
            false => Err(IndexError::Damaged { page: at, what: "segment is of another list" }),
        }
    }
}

/// Base of a free slot: its bound is beyond the reach of every search.
pub const FREE: f32 = f32::INFINITY;

pub fn read_row_id(page: &[u8], at: usize) -> RowId {
    RowId { block: get_u32(page, at), offset: get_u16(page, at + 4) }
}

pub fn write_row_id(page: &mut [u8], at: usize, row: RowId) {
    put(page, at, row.block.to_le_bytes());
    put(page, at + 4, row.offset.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_what_the_layout_says() {
        for dimension in [1, 3, 64, 65, 128, 129, 500, 512, 1280, 2048, 4096, 16_000] {
            for bits in [4, 8] {
                let layout = Layout::new(dimension, bits);
                assert_eq!(layout.padded, BLOCK + layout.middle + layout.far);
                assert!(layout.padded >= dimension && layout.slots >= GROUP && layout.slots.is_multiple_of(GROUP));
                assert!(layout.end() <= PAGE_SIZE);
                assert_eq!(layout.rest(0).start, BLOCK);
                assert!((1..RESTS).all(|part| layout.rest(part).start == layout.rest(part - 1).end));
                assert_eq!(layout.rest(RESTS - 1).end, layout.padded);
                let last = layout.slots - 1;
                if layout.far > 0 {
                    let (page, at) = layout.far_row(last);
                    assert!(page < layout.far_pages && at + ROW_BOUND + layout.far / 2 <= PAGE_SIZE);
                }
                assert_eq!(layout.fine, bits > 4);
                if layout.fine {
                    let (page, at) = layout.fine_row(last);
                    assert!(page < layout.fine_pages && at + ROW_BOUND + layout.padded / 2 <= PAGE_SIZE);
                }
            }
        }
        // Of six pages, each is nearly full.
        let layout = Layout::new(512, 8);
        assert_eq!((layout.slots, layout.far_pages, layout.fine_pages), (80, 2, 3));
    }

    #[test]
    fn what_is_written_is_read() {
        let mut page = vec![0; PAGE_SIZE];
        let meta = Meta {
            bits: 8,
            dimension: 512,
            lists: 9,
            id: 7,
            quantizer_page: 1,
            quantizer_bytes: 11_268,
            entries_page: 3,
            calibration: Calibration::default(),
        };
        meta.write(&mut page);
        assert_eq!(Meta::read(&page).unwrap(), meta);
        for impossible in [
            Meta { bits: 5, ..meta },
            Meta { dimension: 0, ..meta },
            Meta { dimension: 511, lists: 10, ..meta },
            Meta { dimension: u32::MAX, ..meta },
            Meta { lists: 0, ..meta },
            Meta { lists: u32::MAX, ..meta },
            Meta { quantizer_bytes: u64::MAX, ..meta },
            Meta { quantizer_page: NONE, ..meta },
            Meta { entries_page: NONE, ..meta },
        ] {
            impossible.write(&mut page);
            assert!(matches!(Meta::read(&page), Err(IndexError::Damaged { page: 0, .. })), "{impossible:?}");
        }
        page[4] = 9;
        assert!(matches!(Meta::read(&page), Err(IndexError::Version { found: 9, .. })));

        let entry = ListEntry { head: 5, free: 6, radius: 0.5, norm: 1.0 };
        let (_, at) = ListEntry::place(600);
        entry.write(&mut page, at);
        assert_eq!(ListEntry::read(&page, at), entry);

        let layout = Layout::new(100, 8);
        let origin = Origin { model: 1, codebook: 2 };
        let header =
            SegmentHeader { list: 3, next: 4, used: 8, free: 1, origin, inner: 0.1, outer: 0.2, next_free: LAST };
        header.write(&mut page);
        assert_eq!(SegmentHeader::read(&page, 9, &layout).unwrap(), header);
        let full = SegmentHeader { used: layout.slots as u16 + 1, ..header };
        full.write(&mut page);
        assert!(matches!(SegmentHeader::read(&page, 9, &layout), Err(IndexError::Damaged { page: 9, .. })));
    }
}
