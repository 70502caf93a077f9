//! An index that is used and damaged in turn: nothing panics, nothing goes on for ever, and before the first damage every
//! answer is right.

use half::f16;
use ndarray::Array2;
use rand_xoshiro::Xoshiro256Plus;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};
use sketch_model::index::{
    Allowance, BuildOptions, Coder, IndexError, MemoryPages, Origin, PAGE_SIZE, Pages, Quantizer, RowId, Search,
    SearchOptions, Writer, check, initialize, insert, remove,
};
use sketch_model::simd;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

const ORIGIN: Origin = Origin { model: 1, codebook: 2 };
/// Dimension, bits, rows: without and with middle, far and fine codes, of one and of several segments; without rows. Small,
/// because training a rotation takes the third power of the dimension, and instruments make it slow.
const KINDS: [(usize, u8, usize); 5] = [(3, 4, 90), (64, 8, 60), (130, 4, 200), (150, 8, 60), (5, 8, 0)];
/// More rows than an index of these sizes can hold or repeat before it notices.
const ENDLESS: usize = 100_000;

type Rows = BTreeMap<RowId, Vec<f16>>;

#[derive(Clone)]
struct Index {
    dimension: usize,
    pages: MemoryPages,
    rows: Rows,
    /// Whether pages are still what was written.
    sound: bool,
}

/// Bytes that say what to do; zeros behind the end.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn next_u16(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.next(), self.next()]))
    }
}

pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut index = built()[usize::from(bytes.next()) % KINDS.len()].clone();
    // What changes is read anew now and then, as by another connection.
    let mut quantizer = index.load();
    for _ in 0..64 {
        if bytes.0.is_empty() {
            break;
        }
        match bytes.next() % 8 {
            0 | 1 => index.damage(&mut bytes),
            2 => index.swap(&mut bytes),
            3 => quantizer = index.load(),
            4 => index.search(quantizer.as_ref(), bytes.next()),
            5 => {
                index.insert(quantizer.as_ref(), &mut bytes);
                // The first row gives an index another quantizer, which the extension notices.
                if quantizer.as_ref().is_some_and(|quantizer| quantizer.dimension() == 0) {
                    quantizer = index.load();
                }
            }
            6 => index.remove(quantizer.as_ref(), bytes.next()),
            _ => index.check(quantizer.as_ref()),
        }
    }
    let quantizer = index.load();
    index.search(quantizer.as_ref(), 1);
    index.check(quantizer.as_ref());
    index.remove(quantizer.as_ref(), 3);
    index.insert(quantizer.as_ref(), &mut Bytes(&[9, 9]));
    if let Err(error) = initialize(&mut index.pages, index.dimension) {
        index.excuse(&error);
    }
}

fn id(number: usize) -> RowId {
    RowId { block: number as u32 / 7, offset: (number % 7 + 1) as u16 }
}

fn values(dimension: usize, seed: u64) -> Vec<f16> {
    let mut rng = Xoshiro256Plus::seed_from_u64(seed);
    (0..dimension).map(|_| f16::from_f32((rng.next_u32() >> 16) as f32 / 32_768.0 - 1.0)).collect()
}

fn built() -> &'static [Index] {
    static BUILT: OnceLock<Vec<Index>> = OnceLock::new();
    BUILT.get_or_init(|| KINDS.map(|(dimension, bits, rows)| build(dimension, bits, rows)).to_vec())
}

fn build(dimension: usize, bits: u8, count: usize) -> Index {
    let options = BuildOptions { lists: 3, bits, seed: 7 };
    let rows: Rows = (0..count).map(|number| (id(number), values(dimension, number as u64))).collect();
    let mut pages = MemoryPages::default();
    if rows.is_empty() {
        Quantizer::empty(&options).create(&mut pages).expect("pages in memory");
        return Index { dimension, pages, rows, sound: true };
    }
    let sample = rows.values().flatten().map(|value| value.to_f32()).collect();
    let sample = Array2::from_shape_vec((count, dimension), sample).expect("rows of one length");
    let mut go_on = || ControlFlow::Continue(());
    let quantizer = Quantizer::train(sample.view(), count as f64, &options, &mut go_on).expect("not interrupted");
    quantizer.create(&mut pages).expect("pages in memory");
    let quantizer = Quantizer::load(&pages).expect("what was written is read");
    let mut coder = Coder::new(&quantizer);
    let mut coded: Vec<_> = rows
        .iter()
        .map(|(row, values)| {
            let coded = coder.code(values).expect("of the index's dimension");
            (coded.list, coded.order, *row, coded.bytes.to_vec())
        })
        .collect();
    coded.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut writer = Writer::new(&quantizer, &mut pages);
    for (list, _, row, bytes) in coded {
        writer.push(list, row, ORIGIN, &bytes).expect("pages in memory");
    }
    writer.finish().expect("pages in memory");
    Index { dimension, pages, rows, sound: true }
}

impl Index {
    /// An index that nobody damaged has no errors.
    fn excuse(&self, error: &IndexError) {
        assert!(!self.sound, "{error:?}");
    }

    fn load(&self) -> Option<Arc<Quantizer>> {
        Quantizer::load(&self.pages).map(Arc::new).map_err(|error| self.excuse(&error)).ok()
    }

    fn page(&self, bytes: &mut Bytes) -> u32 {
        bytes.next_u16() as u32 % self.pages.count().expect("pages in memory")
    }

    fn damage(&mut self, bytes: &mut Bytes) {
        let (page, at) = (self.page(bytes), bytes.next_u16() % PAGE_SIZE);
        let value = [bytes.next(), bytes.next(), bytes.next(), bytes.next()];
        let length = (usize::from(bytes.next()) % 4 + 1).min(PAGE_SIZE - at);
        self.sound = false;
        let edit = |[content]: [&mut [u8]; 1]| {
            content[at..at + length].copy_from_slice(&value[..length]);
            Ok(())
        };
        self.pages.change([page], edit).expect("the page is there");
    }

    /// Puts a page in another's place.
    fn swap(&mut self, bytes: &mut Bytes) {
        let (from, to) = (self.page(bytes), self.page(bytes));
        self.sound = false;
        let content = self.pages.read(from, <[u8]>::to_vec).expect("the page is there");
        let edit = |[page]: [&mut [u8]; 1]| {
            page.copy_from_slice(&content);
            Ok(())
        };
        self.pages.change([to], edit).expect("the page is there");
    }

    fn search(&self, quantizer: Option<&Arc<Quantizer>>, seed: u8) {
        let Some(quantizer) = quantizer else { return };
        let query = values(self.dimension, seed.into());
        let part = f32::from(seed % 8) / 4.0;
        let allowance = if part < 1.0 { Allowance { lists: part, rows: part } } else { Allowance::SURE };
        let options = SearchOptions { max_lists: u32::from(seed) / 64, allowance, memory: usize::from(seed) << 4 };
        let exact = options.max_lists == 0 && allowance == Allowance::SURE;
        let mut search = match Search::new(quantizer.clone(), &query, ORIGIN, options) {
            Ok(search) => search,
            Err(error) => return self.excuse(&error),
        };
        let (mut found, mut before) = (0, 0.0);
        loop {
            match search.next(&self.pages) {
                Ok(Some(hit)) => {
                    found += 1;
                    assert!(found < ENDLESS, "the search goes on for ever");
                    if self.sound {
                        let distance = f64::from(simd::l2_squared(&self.rows[&hit.row], &query)).sqrt();
                        assert!(before <= hit.bound && hit.bound <= distance, "{hit:?} after {before}, is {distance}");
                        before = hit.bound;
                    }
                }
                Ok(None) => break,
                Err(error) => return self.excuse(&error),
            }
        }
        assert!(!self.sound || !exact || found == self.rows.len(), "{found} rows of {}", self.rows.len());
    }

    fn insert(&mut self, quantizer: Option<&Arc<Quantizer>>, bytes: &mut Bytes) {
        let Some(mut quantizer) = quantizer.cloned() else { return };
        let (row, values) = (id(1000 + bytes.next_u16()), values(self.dimension, bytes.next().into()));
        if self.rows.contains_key(&row) {
            return;
        }
        if quantizer.dimension() == 0 {
            if let Err(error) = initialize(&mut self.pages, self.dimension) {
                return self.excuse(&error);
            }
            let Some(loaded) = self.load() else { return };
            quantizer = loaded;
        }
        match insert(&mut self.pages, &quantizer, &values, ORIGIN, row) {
            Ok(()) => drop(self.rows.insert(row, values)),
            Err(error) => self.excuse(&error),
        }
    }

    fn remove(&mut self, quantizer: Option<&Arc<Quantizer>>, which: u8) {
        let Some(quantizer) = quantizer else { return };
        let dead = |row: RowId| row.block % 8 == u32::from(which) % 8;
        match remove(&mut self.pages, quantizer, dead) {
            Ok(removed) => {
                self.rows.retain(|row, _| !dead(*row));
                assert!(!self.sound || removed.left == self.rows.len() as u64, "{removed:?}");
            }
            Err(error) => self.excuse(&error),
        }
    }

    fn check(&self, quantizer: Option<&Arc<Quantizer>>) {
        let Some(quantizer) = quantizer else { return };
        let mut coder = Coder::new(quantizer);
        let checked = check(&self.pages, quantizer, |row, origin, stored| {
            let matches = match self.rows.get(&row) {
                Some(values) => stored.matches(&mut coder, values)?,
                None => false,
            };
            assert!(!self.sound || (matches && origin == ORIGIN), "{row:?}");
            Ok(())
        });
        match checked {
            Ok(checked) => assert!(!self.sound || checked.rows == self.rows.len() as u64, "{checked:?}"),
            Err(error) => self.excuse(&error),
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let kind = |kind: u8| {
        let mut seed = vec![kind];
        for step in 0..10 {
            seed.extend([5, step, 0, step, 4, 0, 6, step, 7, 3]);
        }
        // Fields of the meta page, of the entries and of a segment.
        for at in [8, 12, 16, 24, 32, 36, 48, 100] {
            for page in 0..6 {
                seed.extend([0, page, 0, at, 0, 1, 0, 0, 0, 3, 4, 0]);
            }
        }
        seed
    };
    (0..KINDS.len() as u8).map(kind).collect()
}
