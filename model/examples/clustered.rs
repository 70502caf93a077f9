//! Writes made-up fused embeddings for benches, in the binary format of PostgreSQL's `COPY`.
//!
//! usage: clustered COUNT SEED | psql -c 'COPY photo (id, fused) FROM STDIN BINARY'
//!
//! Columns: `id` bigint, from 1; `fused` embedding, of no model and no codebook. 512 dimensions; every embedding is
//! `0.2 · x + 0.8 · p`, where p is one of 100 prototypes that are the same for every seed, and x lies around p.

use half::f16;
use ndarray_rand::rand::{Rng, RngCore, SeedableRng};
use rand_xoshiro::Xoshiro256Plus;
use std::io::{self, BufWriter, Write};

const DIMENSION: usize = 512;
const PROTOTYPES: usize = 100;
/// Share of a photo's own embedding; the default of a codebook.
const WEIGHT: f32 = 0.2;

fn main() -> io::Result<()> {
    let arguments: Vec<u64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let [count, seed] = arguments[..] else {
        eprintln!("usage: clustered COUNT SEED");
        std::process::exit(2);
    };
    let mut rng = Xoshiro256Plus::seed_from_u64(0);
    let prototypes: Vec<Vec<f32>> = (0..PROTOTYPES).map(|_| unit(noise(&mut rng).collect())).collect();

    let mut rng = Xoshiro256Plus::seed_from_u64(seed.wrapping_add(1));
    let mut out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    out.write_all(b"PGCOPY\n\xff\r\n\0")?;
    out.write_all(&[0; 8])?;
    for id in 1..=count {
        let prototype = &prototypes[rng.gen_range(0..PROTOTYPES)];
        let own = unit(prototype.iter().zip(noise(&mut rng)).map(|(p, noise)| p + noise).collect());
        let fused = own.iter().zip(prototype).map(|(x, p)| WEIGHT * x + (1.0 - WEIGHT) * p);
        write_row(&mut out, id, fused)?;
    }
    out.write_all(&(-1i16).to_be_bytes())?;
    out.flush()
}

/// 512 values, together about of unit length.
fn noise(rng: &mut impl RngCore) -> impl Iterator<Item = f32> {
    // Uniform numbers between ±√3 have variance 1.
    let scale = 2.0 * (3.0 / DIMENSION as f32).sqrt();
    (0..DIMENSION).map(move |_| ((rng.next_u32() >> 8) as f32 / (1 << 24) as f32 - 0.5) * scale)
}

fn unit(mut values: Vec<f32>) -> Vec<f32> {
    let norm = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    values.iter_mut().for_each(|value| *value /= norm);
    values
}

fn write_row(out: &mut impl Write, id: u64, fused: impl Iterator<Item = f32>) -> io::Result<()> {
    let mut row = Vec::with_capacity(2 * DIMENSION + 64);
    row.extend(2i16.to_be_bytes());
    row.extend(8i32.to_be_bytes());
    row.extend(id.to_be_bytes());
    row.extend((12 + 2 * DIMENSION as i32).to_be_bytes());
    row.extend((DIMENSION as i16).to_be_bytes());
    // Nothing in two bytes, no model, no codebook.
    row.extend([0; 10]);
    row.extend(fused.flat_map(|value| f16::from_f32(value).to_be_bytes()));
    out.write_all(&row)
}
