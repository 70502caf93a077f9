//! The index gives every row once, in the order of bounds that no distance undercuts, whatever was inserted and removed.

use half::f16;
use ndarray::Array2;
use ndarray_rand::rand::{Rng, SeedableRng};
use proptest::prelude::*;
use rand_xoshiro::Xoshiro256Plus;
use sketch_model::index::{
    Allowance, BuildOptions, Coder, IndexError, MemoryPages, Origin, PAGE_SIZE, Pages, Quantizer, RowId, Search,
    SearchOptions, Writer, calibrate, calibration_queries, check, initialize, insert, remove,
};
use sketch_model::simd;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

const OPTIONS: BuildOptions = BuildOptions { lists: 0, bits: 8, seed: 7 };
const EXACT: SearchOptions = SearchOptions { max_lists: 0, allowance: Allowance::SURE, memory: 1 << 20 };
const ORIGIN: Origin = Origin { model: 1, codebook: 2 };

type Rows = BTreeMap<RowId, Vec<f16>>;

fn id(number: usize) -> RowId {
    RowId { block: number as u32 / 7, offset: (number % 7 + 1) as u16 }
}

/// What rows look like.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Uniform,
    Clustered,
    /// A few rows, many times each.
    Duplicates,
    /// All at the same distance from zero along one axis each.
    Axes,
    /// Lengths from tiny to the greatest that the type holds.
    Lengths,
}

const KINDS: [Kind; 5] = [Kind::Uniform, Kind::Clustered, Kind::Duplicates, Kind::Axes, Kind::Lengths];

fn embedding(kind: Kind, d: usize, rng: &mut Xoshiro256Plus) -> Vec<f16> {
    fn noise(d: usize, reach: f32, rng: &mut Xoshiro256Plus) -> Vec<f32> {
        (0..d).map(|_| rng.gen_range(-reach..reach)).collect()
    }
    let values: Vec<f32> = match kind {
        Kind::Uniform => noise(d, 1.0, rng),
        Kind::Clustered => {
            let own = noise(d, 0.1, rng);
            let mut centre = Xoshiro256Plus::seed_from_u64(rng.gen_range(0..6));
            own.iter().map(|own| own + centre.gen_range(-1.0f32..1.0)).collect()
        }
        Kind::Duplicates => {
            let mut one = Xoshiro256Plus::seed_from_u64(rng.gen_range(0..3));
            (0..d).map(|_| one.gen_range(-1.0f32..1.0)).collect()
        }
        Kind::Axes => {
            let axis = rng.gen_range(0..d);
            (0..d).map(|i| if i == axis { 1.0 } else { 0.0 }).collect()
        }
        Kind::Lengths => {
            let length = 10f32.powi(rng.gen_range(-6..5)).min(60_000.0);
            noise(d, length, rng)
        }
    };
    values.into_iter().map(f16::from_f32).collect()
}

fn build(rows: &Rows, d: usize, options: &BuildOptions) -> (MemoryPages, Arc<Quantizer>) {
    let sample: Vec<f32> = rows.values().flat_map(|row| row.iter().map(|value| value.to_f32())).collect();
    let sample = Array2::from_shape_vec((rows.len(), d), sample).unwrap();
    let quantizer =
        Quantizer::train(sample.view(), rows.len() as f64, options, &mut || ControlFlow::Continue(())).unwrap();
    let mut pages = MemoryPages::default();
    quantizer.create(&mut pages).unwrap();
    let quantizer = Quantizer::load(&pages).unwrap();
    let mut coder = Coder::new(&quantizer);
    let mut coded: Vec<_> = rows
        .iter()
        .map(|(row, values)| {
            let coded = coder.code(values).unwrap();
            (coded.list, coded.order, *row, coded.bytes.to_vec())
        })
        .collect();
    coded.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut writer = Writer::new(&quantizer, &mut pages);
    for (list, _, row, bytes) in coded {
        writer.push(list, row, ORIGIN, &bytes).unwrap();
    }
    writer.finish().unwrap();
    (pages, Arc::new(quantizer))
}

fn operator(a: &[f16], b: &[f16]) -> f64 {
    f64::from(simd::l2_squared(a, b)).sqrt()
}

/// Asks for all rows, and holds them to the rows that there are.
fn assert_ordered(pages: &MemoryPages, quantizer: &Arc<Quantizer>, rows: &Rows, query: &[f16], options: SearchOptions) {
    let missing = missing_rows(pages, quantizer, rows, query, options);
    assert!(missing.is_empty(), "{} rows of {} are missing", missing.len(), rows.len());
}

/// Asks for all rows, and returns those that do not come; those that come are there, once, in the order of sure bounds.
fn missing_rows(
    pages: &MemoryPages,
    quantizer: &Arc<Quantizer>,
    rows: &Rows,
    query: &[f16],
    options: SearchOptions,
) -> Rows {
    let mut search = Search::new(quantizer.clone(), query, ORIGIN, options).unwrap();
    let mut missing = rows.clone();
    let mut before = 0.0;
    while let Some(hit) = search.next(pages).unwrap() {
        let row = missing.remove(&hit.row).expect("a row that is there, once");
        assert!(hit.bound >= before, "bounds ascend");
        let exact = operator(&row, query);
        assert!(hit.bound <= exact, "bound {} of a row at {exact}", hit.bound);
        before = hit.bound;
    }
    // The end stays the end.
    assert_eq!(search.next(pages).unwrap(), None);
    missing
}

fn assert_sound(pages: &MemoryPages, quantizer: &Quantizer, rows: &Rows) {
    let mut coder = Coder::new(quantizer);
    let mut seen = 0;
    let checked = check(pages, quantizer, |row, origin, stored| {
        assert_eq!(origin, ORIGIN);
        assert!(stored.matches(&mut coder, &rows[&row])?);
        seen += 1;
        Ok(())
    });
    assert_eq!((checked.unwrap().rows, seen), (rows.len() as u64, rows.len()));
}

fn some_rows(kind: Kind, d: usize, count: usize, seed: u64) -> Rows {
    let mut rng = Xoshiro256Plus::seed_from_u64(seed);
    (0..count).map(|number| (id(number), embedding(kind, d, &mut rng))).collect()
}

#[test]
fn every_kind_of_rows_in_every_dimension() {
    for (d, count) in [(1, 300), (3, 500), (64, 700), (100, 500), (200, 900), (512, 900)] {
        for kind in KINDS {
            for bits in [4, 8] {
                let rows = some_rows(kind, d, count, d as u64);
                let (pages, quantizer) = build(&rows, d, &BuildOptions { bits, ..OPTIONS });
                assert_sound(&pages, &quantizer, &rows);
                let mut rng = Xoshiro256Plus::seed_from_u64(99);
                for asked in KINDS {
                    let query = embedding(asked, d, &mut rng);
                    assert_ordered(&pages, &quantizer, &rows, &query, EXACT);
                }
                // A row itself, and rounds that memory keeps small.
                let few = SearchOptions { memory: 0, ..EXACT };
                assert_ordered(&pages, &quantizer, &rows, rows.values().next().unwrap(), few);
            }
        }
    }
}

#[test]
fn the_longest_embeddings() {
    let d = 16_000;
    let rows = some_rows(Kind::Clustered, d, 40, 1);
    let (mut pages, quantizer) = build(&rows, d, &OPTIONS);
    let mut rows = rows;
    let row = embedding(Kind::Lengths, d, &mut Xoshiro256Plus::seed_from_u64(5));
    insert(&mut pages, &quantizer, &row, ORIGIN, id(1000)).unwrap();
    rows.insert(id(1000), row.clone());
    assert_sound(&pages, &quantizer, &rows);
    assert_ordered(&pages, &quantizer, &rows, &row, EXACT);
}

#[test]
fn few_rows_are_looked_at() {
    let rows = some_rows(Kind::Clustered, 512, 5000, 3);
    let (pages, quantizer) = build(&rows, 512, &OPTIONS);
    let query = embedding(Kind::Clustered, 512, &mut Xoshiro256Plus::seed_from_u64(8));
    let mut search = Search::new(quantizer.clone(), &query, ORIGIN, EXACT).unwrap();
    let mut exact: Vec<f64> = rows.values().map(|row| operator(row, &query)).collect();
    exact.sort_by(f64::total_cmp);
    let mut fetched = 0;
    while search.next(&pages).unwrap().is_some_and(|hit| hit.bound <= exact[9]) {
        fetched += 1;
    }
    assert!((10..=30).contains(&fetched), "{fetched} rows to be sure of ten");
    let visits = search.visits();
    assert!(visits.rows < 1500 && visits.refined < 1000 && visits.rounds == 1, "{visits:?}");
}

#[test]
fn approximate_searches_visit_the_nearest_lists() {
    let rows = some_rows(Kind::Uniform, 64, 2000, 3);
    let (pages, quantizer) = build(&rows, 64, &OPTIONS);
    let query = rows[&id(5)].clone();
    let options = SearchOptions { max_lists: 3, ..EXACT };
    let mut search = Search::new(quantizer, &query, ORIGIN, options).unwrap();
    assert_eq!(search.next(&pages).unwrap().unwrap().row, id(5));
    while search.next(&pages).unwrap().is_some() {}
    assert!(search.visits().lists <= 3 * search.visits().rounds);
    assert!(search.visits().rows < 2000);
}

#[test]
fn a_calibrated_search_finds_what_it_says() {
    let rows = some_rows(Kind::Clustered, 512, 5000, 3);
    let (mut pages, quantizer) = build(&rows, 512, &OPTIONS);
    assert!(!quantizer.calibration().is_known());
    assert_eq!(quantizer.calibration().allowance(0.5), Allowance::SURE);
    let sample: Vec<f32> = rows.values().flat_map(|row| row.iter().map(|value| value.to_f32())).collect();
    let sample = Array2::from_shape_vec((rows.len(), 512), sample).unwrap();
    let queries = calibration_queries(sample.view(), 1);
    calibrate(&mut pages, &quantizer, &queries, || ()).unwrap();
    let quantizer = Arc::new(Quantizer::load(&pages).unwrap());
    assert!(quantizer.calibration().is_known());
    assert_eq!(quantizer.calibration().allowance(1.0), Allowance::SURE);

    let others = calibration_queries(sample.view(), 2);
    let nearest = |query: &[f16], allowance| {
        let mut search = Search::new(quantizer.clone(), query, ORIGIN, SearchOptions { allowance, ..EXACT }).unwrap();
        let rows: Vec<RowId> = (0..10).map(|_| search.next(&pages).unwrap().unwrap().row).collect();
        (rows, search.visits().rows)
    };
    let mut rows_before = u64::MAX;
    for wanted in [0.99, 0.9, 0.7] {
        let allowance = quantizer.calibration().allowance(wanted);
        let (mut found, mut visited) = (0, 0);
        for query in &others {
            let (exact, all) = nearest(query, Allowance::SURE);
            let (near, few) = nearest(query, allowance);
            found += near.iter().filter(|row| exact.contains(row)).count();
            visited += few;
            assert!(few <= all);
        }
        let recall = found as f64 / (10 * others.len()) as f64;
        assert!(recall > wanted - 0.08, "{recall} where {wanted} was asked for");
        assert!(visited <= rows_before, "more rows for a recall of {wanted}");
        rows_before = visited;
    }
}

#[test]
fn rows_that_change_again_and_again_do_not_take_more_and_more_pages() {
    let mut rows = some_rows(Kind::Clustered, 130, 2000, 3);
    let (mut pages, quantizer) = build(&rows, 130, &OPTIONS);
    let fresh = pages.count().unwrap();
    for round in 1..=20 {
        let start = 2000 * round;
        let new = some_rows(Kind::Clustered, 130, 2000, 3 + round as u64);
        let new: Rows = new.into_values().enumerate().map(|(number, row)| (id(start + number), row)).collect();
        for (row, values) in &new {
            insert(&mut pages, &quantizer, values, ORIGIN, *row).unwrap();
        }
        remove(&mut pages, &quantizer, |row| rows.contains_key(&row)).unwrap();
        rows = new;
        assert_sound(&pages, &quantizer, &rows);
    }
    assert_ordered(&pages, &quantizer, &rows, &rows[&id(40_007)], EXACT);
    // Old and new rows are there at the same time; and a list's last segment has room.
    let (pages, most) = (pages.count().unwrap(), 3 * fresh);
    assert!(pages <= most, "{pages} pages after 20 rounds, {fresh} when it was new");
}

#[test]
fn an_index_without_rows_is_founded() {
    let mut pages = MemoryPages::default();
    Quantizer::empty(&OPTIONS).create(&mut pages).unwrap();
    let quantizer = Arc::new(Quantizer::load(&pages).unwrap());
    assert_eq!(quantizer.dimension(), 0);
    assert_ordered(&pages, &quantizer, &Rows::new(), &[f16::ONE], EXACT);

    let before = Quantizer::id(&pages).unwrap();
    initialize(&mut pages, 100).unwrap();
    assert_ne!(Quantizer::id(&pages).unwrap(), before);
    let quantizer = Arc::new(Quantizer::load(&pages).unwrap());
    let rows = some_rows(Kind::Uniform, 100, 300, 4);
    for (row, values) in &rows {
        insert(&mut pages, &quantizer, values, ORIGIN, *row).unwrap();
    }
    assert_sound(&pages, &quantizer, &rows);
    assert_ordered(&pages, &quantizer, &rows, &rows[&id(7)], EXACT);
    let other = insert(&mut pages, &quantizer, &[f16::ONE; 3], ORIGIN, id(999));
    assert!(matches!(other, Err(IndexError::Dimension { expected: 100, actual: 3 })));
}

#[test]
fn rows_of_another_origin_come_last() {
    let rows = some_rows(Kind::Uniform, 64, 200, 4);
    let (mut pages, quantizer) = build(&rows, 64, &OPTIONS);
    let far: Vec<f16> = vec![f16::from_f32(100.0); 64];
    let query = vec![f16::ZERO; 64];
    let strange = Origin { model: 9, codebook: 0 };
    for number in 6000..6100 {
        insert(&mut pages, &quantizer, &query, strange, id(number)).unwrap();
    }
    insert(&mut pages, &quantizer, &far, Origin::default(), id(5001)).unwrap();
    let mut search = Search::new(quantizer, &query, ORIGIN, EXACT).unwrap();
    let hits: Vec<_> = std::iter::from_fn(|| search.next(&pages).unwrap()).collect();
    assert_eq!((hits.len(), hits[200].row), (301, id(5001)));
    assert!(hits[200].bound.is_finite());
    let last: Vec<_> = hits[201..].iter().map(|hit| (hit.row, hit.bound)).collect();
    assert_eq!(last, (6000..6100).map(|number| (id(number), f64::INFINITY)).collect::<Vec<_>>());
}

#[test]
fn training_stops_when_told() {
    let sample = Array2::from_shape_fn((3000, 200), |(i, j)| ((i * 7 + j * 13) % 17) as f32);
    let mut left = 5;
    let stopped = Quantizer::train(sample.view(), 3000.0, &OPTIONS, &mut || {
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(IndexError::Interrupted)));
}

#[test]
fn damage_is_an_error() {
    let rows = some_rows(Kind::Clustered, 200, 600, 4);
    let (pages, quantizer) = build(&rows, 200, &OPTIONS);
    let query = rows[&id(0)].clone();
    let mut rng = Xoshiro256Plus::seed_from_u64(6);
    let mut found = 0;
    for _ in 0..300 {
        let mut broken = pages.clone();
        let page = rng.gen_range(0..broken.count().unwrap());
        let at = rng.gen_range(0..PAGE_SIZE / 64) * rng.gen_range(1..=64);
        overwrite(&mut broken, page, at, |bytes| bytes.iter_mut().take(8).for_each(|byte| *byte ^= 0x5a));
        // Whatever it is, nothing panics and nothing goes on for ever.
        let mut coder = Coder::new(&quantizer);
        let checked = check(&broken, &quantizer, |row, _, stored| match rows.get(&row) {
            Some(values) if stored.matches(&mut coder, values)? => Ok(()),
            _ => Err(IndexError::Damaged { page: 0, what: "row is another" }),
        });
        found += usize::from(checked.is_err());
        use_it(&mut broken, &query);
    }
    assert!(found > 40, "{found} of 300 damages were found");
}

/// Reads and writes an index that may be damaged; returns what was wrong with its quantizer.
fn use_it(pages: &mut MemoryPages, query: &[f16]) -> Option<IndexError> {
    let quantizer = match Quantizer::load(pages) {
        Ok(quantizer) => Arc::new(quantizer),
        Err(error) => return Some(error),
    };
    if let Ok(mut search) = Search::new(quantizer.clone(), query, ORIGIN, EXACT) {
        while let Ok(Some(_)) = search.next(pages) {}
    }
    let _ = check(pages, &quantizer, |_, _, _| Ok(()));
    let _ = remove(pages, &quantizer, |row| row.offset == 3);
    for number in 5000..5010 {
        let _ = insert(pages, &quantizer, query, ORIGIN, id(number));
    }
    let _ = initialize(pages, query.len());
    None
}

#[test]
fn a_damaged_meta_page_is_an_error() {
    let rows = some_rows(Kind::Clustered, 200, 600, 4);
    let (pages, _) = build(&rows, 200, &OPTIONS);
    let query = &rows[&id(0)];
    let mut found = 0;
    let values = |at| [1, 2, 4, 8].map(|length| [0, 1, 0x7f, 0x80, 0xff].map(|value| (at, length, value)));
    for (at, length, value) in (0..40).flat_map(|at| values(at).concat()) {
        let mut broken = pages.clone();
        overwrite(&mut broken, 0, at, |bytes| bytes[..length].fill(value));
        match use_it(&mut broken, query) {
            None => (),
            Some(IndexError::Damaged { .. } | IndexError::Version { .. }) => found += 1,
            Some(error) => panic!("bytes {at} to {}: {error}", at + length),
        }
    }
    assert!(found > 500, "{found} of 800 damages were found");
}

#[test]
fn removal_writes_to_no_page_of_another_kind() {
    let rows = some_rows(Kind::Clustered, 64, 600, 4);
    let (mut pages, _) = build(&rows, 64, &OPTIONS);
    // The meta page says that the entries of the lists begin with the last page, which is a segment.
    let last = pages.count().unwrap() - 1;
    overwrite(&mut pages, 0, 36, |bytes| bytes[..4].copy_from_slice(&last.to_le_bytes()));
    let quantizer = Quantizer::load(&pages).unwrap();
    let removed = remove(&mut pages, &quantizer, |_| true);
    assert!(matches!(removed, Err(IndexError::Damaged { .. })), "{removed:?}");
}

#[test]
fn a_quantizer_of_impossible_numbers_is_an_error() {
    let rows = some_rows(Kind::Clustered, 64, 600, 4);
    let (pages, _) = build(&rows, 64, &OPTIONS);
    // The defect of the rotation, the first scale, the first number of the rotation.
    for at in [8, 12, 12 + 4 * 64] {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut broken = pages.clone();
            overwrite(&mut broken, 1, at, |bytes| bytes[..4].copy_from_slice(&value.to_le_bytes()));
            let loaded = Quantizer::load(&broken);
            assert!(matches!(loaded, Err(IndexError::Damaged { page: 1, .. })), "{value} at {at}: {loaded:?}");
        }
    }
}

/// Changes the bytes of a page from `at` on.
fn overwrite(pages: &mut MemoryPages, page: u32, at: usize, edit: impl FnOnce(&mut [u8])) {
    let whole = |[content]: [&mut [u8]; 1]| {
        edit(&mut content[at..]);
        Ok(())
    };
    pages.change([page], whole).unwrap();
}

#[test]
fn an_edit_that_fails_changes_nothing() {
    let rows = some_rows(Kind::Clustered, 64, 100, 4);
    let (mut pages, quantizer) = build(&rows, 64, &OPTIONS);
    let damaged = || IndexError::Damaged { page: 1, what: "of this test" };
    let failed: Result<(), _> = pages.change([0, 1], |[meta, quantizer]| {
        meta.fill(0);
        quantizer.fill(0);
        Err(damaged())
    });
    assert!(matches!(failed, Err(IndexError::Damaged { page: 1, .. })));
    assert_sound(&pages, &quantizer, &rows);
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u64),
    Remove(u64),
    Search(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<u64>().prop_map(Step::Insert),
        2 => any::<u64>().prop_map(Step::Remove),
        2 => any::<u64>().prop_map(Step::Search),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens(
        kind in prop::sample::select(&KINDS[..]),
        d in prop::sample::select(vec![2usize, 64, 130, 320]),
        bits in prop::sample::select(vec![4u8, 8]),
        lists in 0usize..6,
        start in 1usize..400,
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut rows = some_rows(kind, d, start, 1);
        let (mut pages, quantizer) = build(&rows, d, &BuildOptions { bits, lists, ..OPTIONS });
        let mut next = start;
        for step in steps {
            match step {
                Step::Insert(seed) => {
                    let values = embedding(kind, d, &mut Xoshiro256Plus::seed_from_u64(seed));
                    insert(&mut pages, &quantizer, &values, ORIGIN, id(next)).unwrap();
                    rows.insert(id(next), values);
                    next += 1;
                }
                Step::Remove(seed) => {
                    let mut rng = Xoshiro256Plus::seed_from_u64(seed);
                    let share = rng.gen_range(0.0..0.7);
                    let gone: Vec<RowId> = rows.keys().copied().filter(|_| rng.gen_bool(share)).collect();
                    let removed = remove(&mut pages, &quantizer, |row| gone.binary_search(&row).is_ok()).unwrap();
                    rows.retain(|row, _| gone.binary_search(row).is_err());
                    prop_assert_eq!((removed.removed, removed.left), (gone.len() as u64, rows.len() as u64));
                }
                Step::Search(seed) => {
                    let query = embedding(kind, d, &mut Xoshiro256Plus::seed_from_u64(seed));
                    assert_ordered(&pages, &quantizer, &rows, &query, EXACT);
                    let part = |shift: u32| (seed >> shift & 7) as f32 / 8.0;
                    let allowance = Allowance { lists: part(0), rows: part(3) };
                    missing_rows(&pages, &quantizer, &rows, &query, SearchOptions { allowance, memory: 0, ..EXACT });
                }
            }
        }
        assert_sound(&pages, &quantizer, &rows);
    }
}
