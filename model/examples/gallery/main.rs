//! Writes fused embeddings for the benches of the index and of the scan, in the binary format of PostgreSQL's `COPY`.
//!
//! usage: gallery codebook PHOTOS > CODEBOOK
//!        gallery SET COUNT SEED [PHOTOS CODEBOOK] | psql -c 'COPY photo (id, fused) FROM STDIN BINARY'
//!
//! Columns: `id` bigint, from 1; `fused` embedding of 512 dimensions. The same arguments give the same rows.
//!
//! | set | what |
//! | --- | --- |
//! | `real` | the photos themselves, fused; at most as many as there are |
//! | `photos` | as many as wanted of the same distribution, fused: see [`photos::Gallery`] |
//! | `clustered` | 0.2 of a point and 0.8 of that one of 100 prototypes around which it lies |
//! | `uniform` | values between -1 and 1 |
//! | `duplicates` | points of a clustered set, each some 50 times |
//! | `equal` | eight values of -1 or 1, the rest 0: squared distances are whole numbers up to 32 |
//! | `wide` | directions at random, lengths from 2^-10 to 2^16: rounding errors of every size |
//!
//! PHOTOS holds one column, the photos' embeddings, as `COPY … TO … BINARY` writes it. CODEBOOK is made by the default
//! options, and has as many prototypes as SQL chooses for a sample of its size.

mod copy;
mod made_up;
mod photos;

use copy::{Origin, Row};
use made_up::MadeUp;
use ndarray_rand::rand::SeedableRng;
use photos::Gallery;
use rand_xoshiro::Xoshiro256Plus;
use rayon::prelude::*;
use sketch_model::codebook::Codebook;
use sketch_model::simd;
use std::error::Error;
use std::fs;
use std::io;

const DIMENSION: usize = 512;
/// Rows that are made in one go, by all cores.
const BATCH: u64 = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["codebook", photos] => println!("{}", Gallery::open(photos)?.codebook()?.to_json()),
        [set @ ("real" | "photos"), count, seed, photos, codebook] => {
            let gallery = Gallery::open(photos)?;
            let codebook = Codebook::from_json(&fs::read_to_string(codebook)?)?;
            let origin = Origin { model: codebook.model(), codebook: codebook.tag() };
            let (count, seed): (u64, u64) = (count.parse()?, seed.parse()?);
            let fused = |photo: &[f32]| codebook.fuse(photo).expect("photos are as long as the codebook made of them");
            match set {
                "real" => write(count.min(gallery.len()), origin, |id| fused(gallery.real(id)))?,
                _ => write(count, origin, |id| fused(&gallery.photo(&mut rng(seed, id))))?,
            }
        }
        [set, count, seed] => {
            let set: MadeUp = set.parse()?;
            let (count, seed): (u64, u64) = (count.parse()?, seed.parse()?);
            write(count, Origin::default(), |id| set.embedding(&mut rng(seed, id), count))?;
        }
        _ => {
            eprintln!("usage: gallery codebook PHOTOS, or gallery SET COUNT SEED [PHOTOS CODEBOOK]");
            std::process::exit(2);
        }
    }
    Ok(())
}

/// Random numbers for one row alone, so that rows can be made in any order.
fn rng(seed: u64, id: u64) -> Xoshiro256Plus {
    Xoshiro256Plus::seed_from_u64(seed << 40 | id)
}

fn write(count: u64, origin: Origin, embedding: impl Fn(u64) -> Vec<f32> + Sync) -> io::Result<()> {
    let mut out = copy::Writer::new(io::stdout().lock())?;
    for first in (1..=count).step_by(BATCH as usize) {
        let ids = first..=count.min(first + BATCH - 1);
        let rows: Vec<Row> =
            ids.into_par_iter().map(|id| Row { id, origin, values: simd::to_f16(&embedding(id)) }).collect();
        rows.iter().try_for_each(|row| out.write(row))?;
    }
    out.finish()
}
