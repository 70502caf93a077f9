//! Bulk build: writes all rows, sorted by list.

use super::code::RowLayout;
use super::layout::{Kind, Layout, ListEntry, NONE, SegmentHeader, put, start_page};
use super::quantizer::Quantizer;
use super::segment::{distance, length, write_near};
use super::{Origin, PAGE_SIZE, Pages, RowId};

/// Writes the rows of a new index.
///
/// The rows of a list come one after another, those far from the centroid first: a segment then holds a thin shell, and
/// a search that reaches into the list but not to its rim reads the inner ones alone.
#[derive(Debug)]
pub struct Writer<'a, P: Pages> {
    quantizer: &'a Quantizer,
    row: RowLayout,
    pages: &'a mut P,
    list: u32,
    entry: ListEntry,
    /// The segment that is being filled; `used` 0 for none.
    header: SegmentHeader,
    segment: Vec<u8>,
    far: Vec<Vec<u8>>,
    fine: Vec<Vec<u8>>,
}

const NOTHING: SegmentHeader = SegmentHeader {
    list: 0,
    next: NONE,
    used: 0,
    free: 0,
    origin: Origin { model: 0, codebook: 0 },
    inner: f32::INFINITY,
    outer: 0.0,
    next_free: NONE,
};

impl<'a, P: Pages> Writer<'a, P> {
    /// Starts after [`Quantizer::create`]; `quantizer` is what [`Quantizer::load`] then returns.
    pub fn new(quantizer: &'a Quantizer, pages: &'a mut P) -> Self {
        let layout = &quantizer.layout;
        Self {
            quantizer,
            row: quantizer.row_layout(),
            pages,
            list: 0,
            entry: ListEntry::EMPTY,
            header: NOTHING,
            segment: vec![0; PAGE_SIZE],
            far: vec![vec![0; PAGE_SIZE]; layout.far_pages],
            fine: vec![vec![0; PAGE_SIZE]; layout.fine_pages],
        }
    }

    /// Adds a row that [`Coder::code`](super::Coder::code) has coded. Rows are sorted by `list`, then by `order`.
    ///
    /// # Errors
    /// If a page cannot be written.
    pub fn push(&mut self, list: u32, id: RowId, origin: Origin, bytes: &[u8]) -> Result<(), P::Error> {
        let layout = self.quantizer.layout;
        if list != self.list {
            self.end_list()?;
            self.list = list;
        }
        if usize::from(self.header.used) == layout.slots || (self.header.used > 0 && self.header.origin != origin) {
            self.end_segment()?;
        }
        let slot = usize::from(self.header.used);
        write_near(&mut self.segment, &layout, &self.row, slot, id, bytes);
        if layout.far > 0 {
            let (page, at) = layout.far_row(slot);
            put(&mut self.far[page], at, &bytes[self.row.far..self.row.fine]);
        }
        if layout.fine {
            let (page, at) = layout.fine_row(slot);
            put(&mut self.fine[page], at, &bytes[self.row.fine..]);
        }
        self.header.used += 1;
        self.header.origin = origin;
        let away = distance(bytes);
        // A coded distance is rounded up, and must not keep a row out on the inner side.
        self.header.inner = self.header.inner.min(away.next_down());
        self.header.outer = self.header.outer.max(away);
        self.entry.radius = self.entry.radius.max(away);
        self.entry.norm = self.entry.norm.max(length(bytes));
        Ok(())
    }

    /// Writes what is still buffered.
    ///
    /// # Errors
    /// If a page cannot be written.
    pub fn finish(mut self) -> Result<(), P::Error> {
        self.end_list()
    }

    fn end_list(&mut self) -> Result<(), P::Error> {
        self.end_segment()?;
        if self.entry.head != NONE {
            let (page, at) = self.quantizer.entry_place(self.list);
            let entry = self.entry;
            self.pages.change([page], |[content]| {
                entry.write(content, at);
                Ok(())
            })?;
        }
        self.entry = ListEntry::EMPTY;
        Ok(())
    }

    fn end_segment(&mut self) -> Result<(), P::Error> {
        let used = usize::from(self.header.used);
        if used == 0 {
            return Ok(());
        }
        let Layout { far_per_page, fine_per_page, .. } = self.quantizer.layout;
        // The segment's number comes first: its other pages name it.
        let segment = self.pages.add(|_| ())?;
        let parts = [(Kind::Far, &mut self.far, far_per_page), (Kind::Fine, &mut self.fine, fine_per_page)];
        for (kind, contents, per_page) in parts {
            for (index, content) in contents.iter_mut().enumerate() {
                let mut number = NONE;
                if index * per_page < used {
                    start_page(content, kind, segment);
                    number = self.pages.add(|page| page.copy_from_slice(content))?;
                    content.fill(0);
                }
                let at = match kind {
                    Kind::Far => self.quantizer.layout.far_page_at(index),
                    _ => self.quantizer.layout.fine_page_at(index),
                };
                put(&mut self.segment, at, number.to_le_bytes());
            }
        }
        SegmentHeader { list: self.list, next: self.entry.head, ..self.header }.write(&mut self.segment);
        let content = &mut self.segment;
        self.pages.change([segment], |[page]| {
            page.copy_from_slice(content);
            Ok(())
        })?;
        content.fill(0);
        self.entry.head = segment;
        self.header = NOTHING;
        Ok(())
    }
}
