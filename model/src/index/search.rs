//! Search: rows in ascending order of a lower bound of their distance.
//!
//! A search goes in rounds. A round finds the rows with the least bounds beyond those of the rounds before, first few,
//! then eight times as many each time, up to what memory allows. It visits the nearest lists first; the worst bound
//! that it still keeps is its reach, and it leaves out what lies beyond: lists by their radius, segments by theirs, rows
//! after each stage of their codes.
//!
//! A row's bound is the greatest of those of its list, its segment and its stages. None of them changes during a search:
//! the entries of the lists are read once, and the rest is fixed once a row is visible. So a later round finds the rows
//! that an earlier one left out, and no row is returned twice.
//!
//! | look in | for |
//! | --- | --- |
//! | `lists` | which lists to visit, in which order |
//! | `candidates` | the rows of one segment on their way through the stages |
//! | `selection` | the rows that a round keeps |

mod candidates;
mod lists;
mod selection;

use super::layout::{FREE, NONE, SegmentHeader, get_f32, read_row_id};
use super::quantizer::Quantizer;
use super::query::{FromCentroid, Query};
use super::{IndexError, Origin, Pages, RowId};
use candidates::Candidates;
use half::f16;
use half::slice::HalfFloatSliceExt;
use lists::{Listed, Lists};
use selection::Selection;
use std::sync::Arc;

/// In place of the bound of a row whose origin does not fit the query: the operator calls it infinitely far.
const UNFIT: f32 = f32::INFINITY;

#[derive(Clone, Copy, Debug)]
pub struct SearchOptions {
    /// The most lists to visit; 0 for as many as an exact answer takes.
    pub max_lists: u32,
    pub allowance: Allowance,
    /// Memory for the rows of a round, in bytes.
    pub memory: usize,
}

/// How much nearer than the query's distance from a centroid its rows may be, as a part of what is possible at all.
///
/// By the Cauchy-Schwarz inequality, an inner product is at most the product of the lengths. In many dimensions it hardly ever
/// comes near that. A search that allows for a part of it alone visits far fewer rows, and may miss some.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Allowance {
    /// For the rows of a list or segment.
    pub lists: f32,
    /// For what the codes of a stage leave out.
    pub rows: f32,
}

impl Allowance {
    /// Misses nothing.
    pub const SURE: Self = Self { lists: 1.0, rows: 1.0 };
}

/// What a search has read so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visits {
    pub lists: u64,
    /// Rows whose near codes were compared.
    pub rows: u64,
    /// Those of them whose far codes were compared, too.
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

/// A search that can be continued.
#[derive(Debug)]
pub struct Search {
    quantizer: Arc<Quantizer>,
    query: Query,
    origin: Origin,
    max_lists: u32,
    allowance: Allowance,
    /// Read by the first round.
    lists: Option<Arc<Lists>>,
    selection: Selection,
    candidates: Candidates,
    /// The least number of pages that the index has.
    page_count: u32,
    visits: Visits,
}

impl Search {
    /// Starts a search for the rows nearest to `query`.
    ///
    /// # Errors
    /// [`IndexError::Dimension`] if the index holds embeddings of another dimension.
    pub fn new(
        quantizer: Arc<Quantizer>,
        query: &[f16],
        origin: Origin,
        options: SearchOptions,
    ) -> Result<Self, IndexError> {
        let mut values = vec![0.0; quantizer.layout.padded];
        if quantizer.dimension() > 0 {
            quantizer.expect(query.len())?;
            query.convert_to_f32_slice(&mut values[..query.len()]);
        }
        let mut allowance = options.allowance;
        // The bound of a row's last stage is what the executor relies on.
        if quantizer.layout.far == 0 && !quantizer.layout.fine {
            allowance.rows = 1.0;
        }
        Ok(Self {
            query: Query::new(&quantizer, &values),
            origin,
            max_lists: options.max_lists,
            allowance,
            lists: None,
            selection: Selection::new(options.memory),
            candidates: Candidates::new(&quantizer.layout, allowance == Allowance::SURE),
            page_count: 0,
            visits: Visits::default(),
            quantizer,
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
        while !self.selection.is_ready() {
            if self.quantizer.dimension() == 0 || self.selection.is_last() {
                return Ok(None);
            }
            self.round(pages)?;
        }
        let longest = self.lists.as_ref().map_or(0.0, |lists| lists.longest());
        Ok(self
            .selection
            .pop()
            .map(|(bound, row)| Hit { row, bound: self.query.operator_bound(&self.quantizer, longest, bound) }))
    }

    /// Finds the rows that come next.
    fn round<P: Pages>(&mut self, pages: &P) -> Result<(), P::Error> {
        let lists = match &self.lists {
            Some(lists) => lists.clone(),
            None => {
                let lists = Lists::read(pages, &self.quantizer, &self.query, self.max_lists, &mut self.visits)?;
                self.lists.insert(Arc::new(lists)).clone()
            }
        };
        self.visits.rounds += 1;
        self.selection.begin_round();
        let allowance = self.allowance;
        let coarse = |list: &Listed| least(list.centroid.sqrt(), 0.0, list.radius, allowance.lists);
        for (index, list) in lists.as_slice().iter().enumerate() {
            let bound = coarse(list);
            if bound > self.selection.reach() {
                continue;
            }
            let at = self.query.distances_to(&self.quantizer, list.number as usize, allowance.rows);
            let bound = bound.max(least(at.all, 0.0, list.radius, allowance.lists));
            if bound > self.selection.reach() {
                continue;
            }
            self.visits.lists += 1;
            if let Some(next) = lists.as_slice().get(index + 1)
                && coarse(next) <= self.selection.reach()
            {
                self.expect(pages, next.head);
            }
            self.visit(pages, list, &at, bound)?;
        }
        self.selection.end_round();
        Ok(())
    }

    /// Visits the segments of a list.
    fn visit<P: Pages>(&mut self, pages: &P, list: &Listed, at: &FromCentroid, bound: f32) -> Result<(), P::Error> {
        let mut segment = list.head;
        let mut segments = 0;
        while segment != NONE {
            segments += 1;
            if segments > self.page_count {
                // Counting pages costs a system call, so it is done only when needed.
                self.page_count = pages.count()?;
            }
            if segments > self.page_count {
                return Err(IndexError::Damaged { page: segment, what: "segments form a circle" }.into());
            }
            self.visits.pages += 1;
            let next = pages.read(segment, |page| self.scan(pages, page, segment, list.number, at, bound))??;
            self.visits.refined += self.candidates.len() as u64;
            let reach = self.selection.reach();
            self.visits.pages += self.candidates.refine(pages, segment, &self.query, at, reach)?;
            self.candidates.drain().for_each(|(bound, row)| self.selection.offer(bound.max(0.0), row));
            segment = next;
        }
        Ok(())
    }

    fn expect<P: Pages>(&self, pages: &P, segment: u32) {
        self.quantizer.layout.near_parts().into_iter().for_each(|part| pages.expect(segment, part));
    }

    /// Finds the candidates of a segment. Returns the next segment.
    fn scan<P: Pages>(
        &mut self,
        pages: &P,
        page: &[u8],
        segment: u32,
        list: u32,
        at: &FromCentroid,
        bound: f32,
    ) -> Result<u32, IndexError> {
        let layout = self.quantizer.layout;
        let header = SegmentHeader::of_list(page, segment, &layout, list)?;
        if header.next != NONE {
            self.expect(pages, header.next);
        }
        self.candidates.clear();
        let used = usize::from(header.used);
        if !self.origin.fits(header.origin) {
            let rows = (0..used).filter(|slot| get_f32(page, layout.near_base_at(*slot)) != FREE);
            rows.for_each(|slot| self.selection.offer(UNFIT, read_row_id(page, layout.row_id_at(slot))));
            return Ok(header.next);
        }
        let bound = bound.max(least(at.all, header.inner, header.outer, self.allowance.lists));
        let reach = self.selection.reach();
        if bound <= reach {
            self.visits.rows += used as u64;
            self.candidates.scan(page, used, &self.query, at, bound, reach);
        }
        Ok(header.next)
    }
}

/// The least squared distance of a row that lies between `inner` and `outer` from a centroid `away`.
#[inline]
fn least(away: f32, inner: f32, outer: f32, allowance: f32) -> f32 {
    let row = (allowance * away).max(inner).min(outer);
    let gap = away - row;
    gap * gap + 2.0 * (1.0 - allowance) * away * row
}
