//! Which lists a search visits, in which order.

use super::super::layout::{Kind, ListEntry, NONE, expect_kind};
use super::super::quantizer::Quantizer;
use super::super::query::Query;
use super::super::{IndexError, Pages};
use super::Visits;
use crate::simd;

/// Lists that are visited in order of distance; after these the reach is small, and most others are skipped in any order.
const ORDERED: usize = 64;

/// A list to visit.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    pub number: u32,
    pub head: u32,
    pub radius: f32,
    /// Squared distance of its centroid, or a lower bound of it.
    pub centroid: f32,
}

/// The lists that have rows, the nearest first.
#[derive(Debug)]
pub struct Lists {
    lists: Vec<Listed>,
    longest: f32,
}

impl Lists {
    /// Reads the entries of all lists. `most`: how many of the nearest to keep, 0 for all.
    pub fn read<P: Pages>(
        pages: &P,
        quantizer: &Quantizer,
        query: &Query,
        most: u32,
        visits: &mut Visits,
    ) -> Result<Self, P::Error> {
        let count = quantizer.lists();
        let mut entries = Vec::with_capacity(count);
        for page in quantizer.entries_page.. {
            if entries.len() == count {
                break;
            }
            visits.pages += 1;
            pages.read(page, |content| {
                expect_kind(content, page, Kind::Entries)?;
                let left = (count - entries.len()).min(ListEntry::PER_PAGE) as u32;
                entries.extend((0..left).map(|entry| ListEntry::read(content, ListEntry::place(entry).1)));
                Ok::<_, IndexError>(())
            })??;
        }
        let mut bounds = Vec::with_capacity(count);
        quantizer.centroids.bounds(&query.rotated, &mut bounds);
        let listed = (0..).zip(&entries).zip(bounds).filter(|((_, entry), _)| entry.head != NONE);
        let listed = listed.map(|((number, entry), centroid)| Listed {
            number,
            head: entry.head,
            radius: entry.radius,
            centroid,
        });
        let longest = entries.iter().fold(0.0f32, |longest, entry| longest.max(entry.norm));
        let kernel = simd::widest();
        let distance = |list: u32| quantizer.centroids.distance(&kernel, &query.rotated, list as usize);
        Ok(Self { lists: ordered(listed.collect(), most as usize, distance), longest })
    }

    pub fn as_slice(&self) -> &[Listed] {
        &self.lists
    }

    /// Length of the longest embedding of the index.
    pub fn longest(&self) -> f32 {
        self.longest
    }
}

/// Puts the nearest lists in front, by the distances of their centroids.
fn ordered(mut lists: Vec<Listed>, most: usize, distance: impl Fn(u32) -> f32) -> Vec<Listed> {
    let wanted = if most == 0 { ORDERED } else { most }.min(lists.len());
    let nearer = |a: &Listed, b: &Listed| a.centroid.total_cmp(&b.centroid);
    if wanted < lists.len() {
        lists.select_nth_unstable_by(wanted, nearer);
    }
    // Of the others, those may be nearer whose bounds are.
    let mut exact = wanted;
    let mut limit = f32::NEG_INFINITY;
    for index in 0..lists.len() {
        if index >= wanted && lists[index].centroid >= limit {
            continue;
        }
        lists[index].centroid = distance(lists[index].number);
        if index < wanted {
            limit = limit.max(lists[index].centroid);
        } else {
            lists.swap(index, exact);
            exact += 1;
        }
    }
    lists[..exact].sort_unstable_by(nearer);
    if most > 0 {
        lists.truncate(wanted);
    }
    lists
}
