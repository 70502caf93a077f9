//! The rows of one segment in the stages of a comparison: near and middle codes for all, far and fine codes for those
//! that remain.

use super::super::layout::{Kind, Layout, ROW_BOUND, expect_part, get_u32, read_row_id};
use super::super::query::{FromCentroid, Known, Query};
use super::super::{IndexError, Pages, RowId};
use crate::simd::Within;

/// A row that is within reach so far.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    slot: u16,
    known: Known,
    row: RowId,
}

/// The candidates of a segment, in the order of their slots, and the pages that hold more of them.
#[derive(Debug)]
pub struct Candidates {
    /// Whether every stage's bound is sure, and so the greatest of them; else only that of the last one is.
    sure: bool,
    within: Within,
    rows: Vec<Candidate>,
    far_pages: Vec<u32>,
    fine_pages: Vec<u32>,
}

impl Candidates {
    pub fn new(layout: &Layout, sure: bool) -> Self {
        Self {
            sure,
            within: Within::new(layout.slots),
            rows: Vec::with_capacity(layout.slots),
            far_pages: Vec::with_capacity(layout.far_pages),
            fine_pages: Vec::with_capacity(layout.fine_pages),
        }
    }

    pub fn clear(&mut self) {
        self.rows.clear();
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Removes the rows that remain, with their bounds.
    pub fn drain(&mut self) -> impl Iterator<Item = (f32, RowId)> {
        self.rows.drain(..).map(|candidate| (candidate.known.bound, candidate.row))
    }

    /// Near and middle stage of the first `used` slots of a segment's page; `bound` is that of the whole segment.
    pub fn scan(&mut self, page: &[u8], used: usize, query: &Query, at: &FromCentroid, bound: f32, reach: f32) {
        let layout = &query.layout;
        let found = query.near(at, page, used, reach, &mut self.within);
        for (slot, near) in self.within.rows[..found].iter().zip(&self.within.bounds) {
            let slot = *slot as usize;
            let bound = bound.max(*near).max(query.after_near(at, page, slot, *near));
            if bound > reach {
                continue;
            }
            let mut known = query.middle(at, page, slot);
            if self.sure {
                known.bound = known.bound.max(bound);
            }
            if known.bound <= reach {
                let row = read_row_id(page, layout.row_id_at(slot));
                self.rows.push(Candidate { slot: slot as u16, known, row });
            }
        }
        self.far_pages.clear();
        self.fine_pages.clear();
        if !self.rows.is_empty() {
            self.far_pages.extend((0..layout.far_pages).map(|i| get_u32(page, layout.far_page_at(i))));
            self.fine_pages.extend((0..layout.fine_pages).map(|i| get_u32(page, layout.fine_page_at(i))));
        }
    }

    /// Far and fine stage. Returns how many pages it read.
    pub fn refine<P: Pages>(
        &mut self,
        pages: &P,
        segment: u32,
        query: &Query,
        at: &FromCentroid,
        reach: f32,
    ) -> Result<u64, P::Error> {
        let (rows, layout) = (&mut self.rows, &query.layout);
        let mut read = 0;
        if layout.far > 0 {
            let length = ROW_BOUND + layout.far / 2;
            let stage = Stage { pages: &self.far_pages, kind: Kind::Far, segment, length, sure: self.sure, reach };
            let compare = |known, bytes: &[u8]| query.far(at, &bytes[..length], known);
            read += stage.run(pages, rows, |slot| layout.far_row(slot), compare)?;
        }
        if layout.fine {
            let length = ROW_BOUND + layout.padded / 2;
            let stage = Stage { pages: &self.fine_pages, kind: Kind::Fine, segment, length, sure: self.sure, reach };
            let compare = |known, bytes: &[u8]| query.fine(at, &bytes[..length], known);
            read += stage.run(pages, rows, |slot| layout.fine_row(slot), compare)?;
        }
        Ok(read)
    }
}

/// A stage whose codes lie on pages of their own.
struct Stage<'a> {
    pages: &'a [u32],
    kind: Kind,
    segment: u32,
    /// Bytes of a row.
    length: usize,
    sure: bool,
    reach: f32,
}

impl Stage<'_> {
    /// Takes the candidates through the stage; keeps those within reach. Returns how many pages it read.
    fn run<P: Pages>(
        &self,
        pages: &P,
        candidates: &mut Vec<Candidate>,
        place: impl Fn(usize) -> (usize, usize),
        compare: impl Fn(Known, &[u8]) -> Known,
    ) -> Result<u64, P::Error> {
        for candidate in candidates.iter() {
            let (index, at) = place(candidate.slot.into());
            pages.expect(self.pages[index], at..at + self.length);
        }
        let (mut begin, mut kept, mut read) = (0, 0, 0);
        while begin < candidates.len() {
            let (index, _) = place(candidates[begin].slot.into());
            let of_page = candidates[begin..].iter().take_while(|candidate| place(candidate.slot.into()).0 == index);
            let end = begin + of_page.count();
            let page = self.pages[index];
            read += 1;
            pages.read(page, |content| {
                expect_part(content, page, self.kind, self.segment)?;
                for i in begin..end {
                    let mut candidate = candidates[i];
                    let after = compare(candidate.known, &content[place(candidate.slot.into()).1..]);
                    let bound = if self.sure { after.bound.max(candidate.known.bound) } else { after.bound };
                    candidate.known = Known { bound, ..after };
                    if candidate.known.bound <= self.reach {
                        candidates[kept] = candidate;
                        kept += 1;
                    }
                }
                Ok::<_, IndexError>(())
            })??;
            begin = end;
        }
        candidates.truncate(kept);
        Ok(read)
    }
}
