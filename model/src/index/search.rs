//! Search: rows in ascending order of a sure lower bound of their distance.
//!
//! A search goes in rounds. A round finds the rows with the least bounds beyond those of the rounds before, first few,
//! then eight times as many each time, up to what memory allows. It visits the nearest lists first; the worst bound
//! that it still keeps is its reach, and what lies beyond it is left out: lists by their radius, segments by
//! theirs, rows after each stage of their codes.
//!
//! A row's bound is the greatest of all that were on the way to it. None of those changes while the search lives (the
//! entries of the lists are read once, the rest never changes for a row that it may see), so that a row that one
//! round leaves out is found by a later one, and none is found twice.

use super::frame::Frame;
use super::layout::{
    FREE, Kind, Layout, ListEntry, NONE, ROW_BOUND, SegmentHeader, expect_kind, expect_part, get_f32, get_u32,
    read_row_id,
};
use super::query::{FromCentroid, Known, Query};
use super::{IndexError, Origin, Pages, RowId};
use crate::simd::{self, GROUP, Kernel};
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// Rows of the first round: some more than a usual LIMIT, for the last of those need a look at their successors.
const FIRST_ROUND: usize = 32;
/// In place of the bound of a row whose origin does not fit the query: the operator calls it infinitely far.
const UNFIT: f32 = f32::INFINITY;
/// How many times as many rows each round has.
const GROWTH: usize = 8;
/// Lists that a search visits in order of distance before all others, which reach ends soon.
const ORDERED_LISTS: usize = 64;

#[derive(Clone, Copy, Debug)]
pub struct SearchOptions {
    /// Visit so many lists at most; 0 for as many as an exact answer takes.
    pub max_lists: u32,
    /// Bytes that the rows of a round may take.
    pub memory: usize,
}

/// What a search has looked at so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visits {
    pub lists: u64,
    /// Rows whose near codes were compared.
    pub rows: u64,
    /// Rows of those that were near enough for their far codes.
    pub refined: u64,
    pub pages: u64,
    pub rounds: u64,
}

/// A row, and a lower bound of its distance as the operator computes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    pub row: RowId,
    pub bound: f64,
}

/// A row by its bound; of equal bounds by its id.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Found {
    bound: f32,
    row: RowId,
}

impl Eq for Found {}

impl Ord for Found {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bound.total_cmp(&other.bound).then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A row that a stage has left.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    slot: u16,
    known: Known,
    row: RowId,
}

/// A list on the way: its number, and a lower bound of its centroid's squared distance.
#[derive(Clone, Copy, Debug)]
struct Listed {
    list: u32,
    centroid: f32,
}

/// A search that can go on.
#[derive(Debug)]
pub struct Search {
    frame: Arc<Frame>,
    kernel: Kernel,
    query: Query,
    origin: Origin,
    options: SearchOptions,
    entries: Vec<ListEntry>,
    lists: Vec<Listed>,
    /// Pages that the index has at least.
    page_count: u32,
    /// The longest embedding of the index.
    longest: f32,
    started: bool,
    finished: bool,
    capacity: usize,
    heap: BinaryHeap<Found>,
    /// The rows of the round, the last one first.
    ready: Vec<Found>,
    last: Option<Found>,
    candidates: Vec<Candidate>,
    far_pages: Vec<u32>,
    fine_pages: Vec<u32>,
    visits: Visits,
}

impl Search {
    /// Begins a search for the rows nearest to `query`.
    ///
    /// # Errors
    /// [`IndexError::Dimension`] if the index holds embeddings of another dimension.
    pub fn new(frame: Arc<Frame>, query: &[f16], origin: Origin, options: SearchOptions) -> Result<Self, IndexError> {
        let kernel = simd::widest();
        let mut values = vec![0.0; frame.layout.padded];
        if frame.dimension() > 0 {
            frame.expect(query.len())?;
            query.convert_to_f32_slice(&mut values[..query.len()]);
        }
        let query = Query::new(&frame, &kernel, &values);
        Ok(Self {
            kernel,
            query,
            origin,
            options,
            entries: Vec::new(),
            lists: Vec::new(),
            page_count: 0,
            longest: 0.0,
            started: false,
            finished: frame.dimension() == 0,
            capacity: FIRST_ROUND,
            heap: BinaryHeap::with_capacity(FIRST_ROUND),
            ready: Vec::new(),
            last: None,
            candidates: Vec::with_capacity(frame.layout.slots),
            far_pages: Vec::with_capacity(frame.layout.far_pages),
            fine_pages: Vec::with_capacity(frame.layout.fine_pages),
            visits: Visits::default(),
            frame,
        })
    }

    pub fn visits(&self) -> Visits {
        self.visits
    }

    /// The next row; rows come in ascending order of their bounds. `None` after the last one.
    ///
    /// Rows whose origin does not fit the query come last, infinitely far.
    ///
    /// # Errors
    /// If a page cannot be read or is damaged.
    pub fn next<P: Pages>(&mut self, pages: &P) -> Result<Option<Hit>, P::Error> {
        while self.ready.is_empty() {
            if self.finished {
                return Ok(None);
            }
            self.round(pages)?;
        }
        Ok(self.ready.pop().map(|found| Hit { row: found.row, bound: self.operator_bound(found.bound) }))
    }

    /// What the operator's distance of a row with this bound is at least.
    ///
    /// Between the two lie the rotation's rounding, that of the bound's sums, and the operator's own.
    fn operator_bound(&self, bound: f32) -> f64 {
        let layout = &self.frame.layout;
        let longest = f64::from(self.longest);
        let norm = f64::from(self.query.norm);
        // Each of the terms of a bound is at most the square of this, and rounded a few times, those of a sum of many
        // products a few times more.
        let most = norm + 3.0 * longest.max(f64::from(self.frame.centroids.longest()));
        let rounded = (layout.padded as f64 / 32.0 + 24.0) * f64::from(f32::EPSILON);
        let exact = (f64::from(bound) - most * most * rounded).max(0.0).sqrt();
        let (shift, stretch) = self.frame.rotation.slack(layout.padded);
        let embedding = ((exact - shift * (norm + longest)) / (1.0 + stretch)).max(0.0);
        // The error of simd::l2_squared, and a bit for the roots.
        embedding * (1.0 - (layout.padded as f64 / 64.0 + 12.0) * f64::from(f32::EPSILON))
    }

    fn start<P: Pages>(&mut self, pages: &P) -> Result<(), P::Error> {
        let count = self.frame.lists();
        self.entries.reserve(count);
        for page in self.frame.entries_page.. {
            if self.entries.len() == count {
                break;
            }
            let entries = &mut self.entries;
            self.visits.pages += 1;
            pages.read(page, |content| {
                expect_kind(content, page, Kind::Entries)?;
                let left = (count - entries.len()).min(ListEntry::PER_PAGE) as u32;
                entries.extend((0..left).map(|entry| ListEntry::read(content, ListEntry::place(entry).1)));
                Ok::<_, IndexError>(())
            })??;
        }
        let mut bounds = Vec::with_capacity(count);
        self.frame.centroids.bounds(&self.query.rotated, &mut bounds);
        self.lists.extend(bounds.into_iter().enumerate().filter_map(|(list, centroid)| {
            (self.entries[list].head != NONE).then_some(Listed { list: list as u32, centroid })
        }));
        let ordered = match self.options.max_lists {
            0 => ORDERED_LISTS,
            most => most as usize,
        };
        let nearer = |a: &Listed, b: &Listed| a.centroid.total_cmp(&b.centroid);
        if ordered < self.lists.len() {
            self.lists.select_nth_unstable_by(ordered, nearer);
            if self.options.max_lists > 0 {
                self.lists.truncate(ordered);
            }
        }
        let ordered = ordered.min(self.lists.len());
        self.lists[..ordered].sort_unstable_by(nearer);
        self.longest = self.entries.iter().fold(0.0, |longest, entry| longest.max(entry.norm));
        self.started = true;
        Ok(())
    }

    /// Finds the rows that come next.
    fn round<P: Pages>(&mut self, pages: &P) -> Result<(), P::Error> {
        if !self.started {
            self.start(pages)?;
        } else {
            let most = (self.options.memory / size_of::<Found>()).max(FIRST_ROUND);
            self.capacity = (self.capacity * GROWTH).min(most);
        }
        self.visits.rounds += 1;
        self.heap.reserve(self.capacity.min(4096));
        for i in 0..self.lists.len() {
            let Listed { list, centroid } = self.lists[i];
            let entry = self.entries[list as usize];
            let coarse = beyond(centroid.sqrt(), entry.radius);
            if coarse > self.reach() {
                continue;
            }
            let at = self.query.distances_to(&self.frame, &self.kernel, list as usize);
            let bound = coarse.max(beyond(at.all, entry.radius));
            if bound > self.reach() {
                continue;
            }
            self.visits.lists += 1;
            self.visit(pages, list, entry.head, &at, bound)?;
        }
        self.finished = self.heap.len() < self.capacity;
        self.ready.clear();
        self.ready.extend(std::mem::take(&mut self.heap).into_sorted_vec().into_iter().rev());
        self.last = self.ready.first().copied().or(self.last);
        Ok(())
    }

    /// The bound up to which rows are wanted.
    #[inline]
    fn reach(&self) -> f32 {
        match self.heap.peek() {
            // Beyond the greatest lie free slots alone, and rows that do not fit, which are offered whatever the reach.
            Some(worst) if self.heap.len() == self.capacity => worst.bound.min(f32::MAX),
            _ => f32::MAX,
        }
    }

    fn offer(&mut self, bound: f32, row: RowId) {
        let found = Found { bound, row };
        if self.last.is_some_and(|last| found <= last) {
            return;
        }
        if self.heap.len() < self.capacity {
            self.heap.push(found);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && found < *worst
        {
            *worst = found;
        }
    }

    fn visit<P: Pages>(
        &mut self,
        pages: &P,
        list: u32,
        head: u32,
        at: &FromCentroid,
        bound: f32,
    ) -> Result<(), P::Error> {
        let frame = self.frame.clone();
        let layout = &frame.layout;
        let mut segment = head;
        let mut segments = 0;
        while segment != NONE {
            segments += 1;
            if segments > self.page_count {
                // Pages are counted again only now: the server asks the file system.
                self.page_count = pages.count()?;
            }
            if segments > self.page_count {
                return Err(IndexError::Damaged { page: segment, what: "segments form a circle" }.into());
            }
            self.visits.pages += 1;
            let next = pages.read(segment, |page| self.scan(page, segment, list, layout, at, bound))??;
            self.refine(pages, segment, layout, at)?;
            segment = next;
        }
        Ok(())
    }

    /// Near and middle stage of a segment: leaves its candidates. Returns the next segment.
    fn scan(
        &mut self,
        page: &[u8],
        segment: u32,
        list: u32,
        layout: &Layout,
        at: &FromCentroid,
        bound: f32,
    ) -> Result<u32, IndexError> {
        let header = SegmentHeader::of_list(page, segment, layout, list)?;
        self.candidates.clear();
        let used = usize::from(header.used);
        if !self.origin.fits(header.origin) {
            let rows = (0..used).filter(|slot| get_f32(page, layout.near_base_at(*slot)) != FREE);
            rows.for_each(|slot| self.offer(UNFIT, read_row_id(page, layout.row_id_at(slot))));
            return Ok(header.next);
        }
        let bound = bound.max(beyond(at.all, header.outer)).max(beyond(header.inner, at.all));
        if bound > self.reach() {
            return Ok(header.next);
        }
        let reach = self.reach();
        self.visits.rows += used as u64;
        for group in 0..used.div_ceil(GROUP) {
            let bounds = self.query.near(&self.kernel, at, page, layout, group);
            for (i, near) in bounds.into_iter().enumerate().filter(|(_, near)| *near <= reach) {
                let slot = group * GROUP + i;
                if slot >= used {
                    break;
                }
                let bound = bound.max(near).max(self.query.after_near(&self.kernel, at, page, layout, slot, near));
                if bound > reach {
                    continue;
                }
                let mut known = self.query.middle(&self.kernel, at, page, layout, slot);
                known.bound = known.bound.max(bound);
                if known.bound <= reach {
                    let row = read_row_id(page, layout.row_id_at(slot));
                    self.candidates.push(Candidate { slot: slot as u16, known, row });
                }
            }
        }
        self.far_pages.clear();
        self.fine_pages.clear();
        if !self.candidates.is_empty() {
            self.far_pages.extend((0..layout.far_pages).map(|i| get_u32(page, layout.far_page_at(i))));
            self.fine_pages.extend((0..layout.fine_pages).map(|i| get_u32(page, layout.fine_page_at(i))));
        }
        Ok(header.next)
    }

    /// Far and fine stage of the candidates of a segment.
    fn refine<P: Pages>(
        &mut self,
        pages: &P,
        segment: u32,
        layout: &Layout,
        at: &FromCentroid,
    ) -> Result<(), P::Error> {
        self.visits.refined += self.candidates.len() as u64;
        let (query, kernel) = (&self.query, &self.kernel);
        let reach = self.reach();
        if layout.far > 0 {
            let length = ROW_BOUND + layout.far / 2;
            let numbers = Numbers { pages: &self.far_pages, kind: Kind::Far, segment };
            self.visits.pages += stage(
                pages,
                &mut self.candidates,
                numbers,
                |slot| layout.far_row(slot),
                |known, bytes| query.far(kernel, at, &bytes[..length], known),
                reach,
            )?;
        }
        if layout.fine {
            let length = ROW_BOUND + layout.padded / 2;
            let numbers = Numbers { pages: &self.fine_pages, kind: Kind::Fine, segment };
            self.visits.pages += stage(
                pages,
                &mut self.candidates,
                numbers,
                |slot| layout.fine_row(slot),
                |known, bytes| query.fine(kernel, at, &bytes[..length], known),
                reach,
            )?;
        }
        for i in 0..self.candidates.len() {
            let Candidate { known, row, .. } = self.candidates[i];
            self.offer(known.bound.max(0.0), row);
        }
        Ok(())
    }
}

/// The pages of a stage of a segment.
struct Numbers<'a> {
    pages: &'a [u32],
    kind: Kind,
    segment: u32,
}

/// Takes the candidates, which are sorted by slot, through a stage; keeps those within reach. Returns how many pages it read.
fn stage<P: Pages>(
    pages: &P,
    candidates: &mut Vec<Candidate>,
    numbers: Numbers<'_>,
    place: impl Fn(usize) -> (usize, usize),
    compare: impl Fn(Known, &[u8]) -> Known,
    reach: f32,
) -> Result<u64, P::Error> {
    let (mut begin, mut kept, mut read) = (0, 0, 0);
    while begin < candidates.len() {
        let (index, _) = place(candidates[begin].slot.into());
        let of_page = candidates[begin..].iter().take_while(|candidate| place(candidate.slot.into()).0 == index);
        let end = begin + of_page.count();
        let page = numbers.pages[index];
        read += 1;
        pages.read(page, |content| {
            expect_part(content, page, numbers.kind, numbers.segment)?;
            for i in begin..end {
                let mut candidate = candidates[i];
                let after = compare(candidate.known, &content[place(candidate.slot.into()).1..]);
                candidate.known = Known { bound: after.bound.max(candidate.known.bound), ..after };
                if candidate.known.bound <= reach {
                    candidates[kept] = candidate;
                    kept += 1;
                }
            }
            Ok(())
        })??;
        begin = end;
    }
    candidates.truncate(kept);
    Ok(read)
}

/// Square of what `far` is beyond `near`, 0 if it is not.
#[inline]
fn beyond(far: f32, near: f32) -> f32 {
    let gap = (far - near).max(0.0);
    gap * gap
}
