//! The pages of an index: PostgreSQL's buffers in the extension, vectors in tests.

use super::IndexError;
use std::ops::Range;

/// Bytes of a page that are the index's own: 8 KiB less Postgres's page header.
pub const PAGE_SIZE: usize = 8192 - 24;

/// The pages of one index.
///
/// One process at a time adds rows ([`insert`](super::insert())), while any number may read and one may remove rows
/// ([`vacuum`](super::vacuum)). Page 0 is the first.
pub trait Pages {
    type Error: From<IndexError>;

    /// Returns the number of pages.
    fn count(&self) -> Result<u32, Self::Error>;

    /// Reads a page, which does not change while `look` runs.
    fn read<T>(&self, page: u32, look: impl FnOnce(&[u8]) -> T) -> Result<T, Self::Error>;

    /// Says that these bytes of a page will be read soon. There may be no such page: a page that leads there may be damaged.
    fn expect(&self, _page: u32, _bytes: Range<usize>) {}

    /// Changes up to four different pages atomically, also in the event of a crash. An edit that fails leaves
    /// the pages as they were, unless they are being built.
    fn change<T, const N: usize>(
        &mut self,
        pages: [u32; N],
        edit: impl FnOnce([&mut [u8]; N]) -> Result<T, IndexError>,
    ) -> Result<T, Self::Error>;

    /// Adds a page of zeros, has `fill` write to it, and returns its number. After a crash it may exist without any
    /// reference to it.
    fn add(&mut self, fill: impl FnOnce(&mut [u8])) -> Result<u32, Self::Error>;
}

/// Pages in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryPages(Vec<Vec<u8>>);

impl MemoryPages {
    fn page(&self, page: u32) -> Result<&Vec<u8>, IndexError> {
        self.0.get(page as usize).ok_or(IndexError::Damaged { page, what: "page is beyond the end" })
    }
}

impl Pages for MemoryPages {
    type Error = IndexError;

    fn count(&self) -> Result<u32, IndexError> {
        Ok(self.0.len() as u32)
    }

    fn read<T>(&self, page: u32, look: impl FnOnce(&[u8]) -> T) -> Result<T, IndexError> {
        Ok(look(self.page(page)?))
    }

    fn change<T, const N: usize>(
        &mut self,
        pages: [u32; N],
        edit: impl FnOnce([&mut [u8]; N]) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        for page in pages {
            self.page(page)?;
        }
        let chosen = self.0.get_disjoint_mut(pages.map(|page| page as usize));
        let chosen = chosen.map_err(|_| IndexError::Damaged { page: pages[0], what: "page leads to itself" })?;
        let mut edited = chosen.each_ref().map(|page| (**page).clone());
        let result = edit(edited.each_mut().map(Vec::as_mut_slice))?;
        chosen.into_iter().zip(edited).for_each(|(page, edited)| *page = edited);
        Ok(result)
    }

    fn add(&mut self, fill: impl FnOnce(&mut [u8])) -> Result<u32, IndexError> {
        let mut page = vec![0; PAGE_SIZE];
        fill(&mut page);
        self.0.push(page);
        Ok(self.0.len() as u32 - 1)
    }
}
