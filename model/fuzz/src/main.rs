//! All fuzz targets in one binary, which compiles and links once. `FUZZ_TARGET` chooses one; `FUZZ_SEEDS` names a folder for
//! what it starts from.
//!
//! A target panics where the library breaks a promise: what it accepts is sound, and what it does not accept is an error.

#![no_main]

mod images;
mod index;
mod raster;
mod texts;

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use std::sync::OnceLock;
use std::{env, fs};

struct Target {
    name: &'static str,
    run: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
    /// Words of the format, which the fuzzer puts together.
    words: &'static [&'static str],
}

const TARGETS: [Target; 12] = [
    Target { name: "bitmap", run: images::bitmap, seeds: images::bitmaps, words: images::CHUNKS },
    Target { name: "svg", run: images::svg, seeds: images::svgs, words: images::SVG_WORDS },
    Target { name: "strokes", run: images::strokes, seeds: images::stroke_drawings, words: images::STROKES_WORDS },
    Target { name: "data_uri", run: images::data_uri, seeds: images::data_uris, words: images::DATA_URI_WORDS },
    Target { name: "drawing", run: images::drawing, seeds: images::drawings, words: images::SVG_WORDS },
    Target { name: "raster", run: raster::run, seeds: raster::seeds, words: &[] },
    Target { name: "manifest", run: texts::manifest, seeds: texts::manifests, words: texts::MANIFEST_WORDS },
    Target { name: "codebook", run: texts::codebook, seeds: texts::codebooks, words: texts::CODEBOOK_WORDS },
    Target { name: "onnx", run: texts::onnx, seeds: texts::graphs, words: &[] },
    Target { name: "embedding_text", run: texts::embedding_text, seeds: texts::embeddings, words: texts::NUMBERS },
    Target { name: "embedding_binary", run: texts::embedding_binary, seeds: texts::binary_embeddings, words: &[] },
    Target { name: "index", run: index::run, seeds: index::seeds, words: &[] },
];

static TARGET: OnceLock<&Target> = OnceLock::new();

/// Before the fuzzer reads its corpus: prints the names of all targets, or writes the seeds of the chosen one.
fn start() {
    let Ok(name) = env::var("FUZZ_TARGET") else {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        std::process::exit(0);
    };
    let target = TARGETS.iter().find(|target| target.name == name).expect("FUZZ_TARGET is the name of a target");
    TARGET.get_or_init(|| target);
    // What is built once does not count as the time of an input.
    (target.run)(&[]);
    if let Ok(folder) = env::var("FUZZ_SEEDS") {
        let folder = Path::new(&folder);
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            fs::write(folder.join(format!("seed{number}")), seed).expect("a folder for seeds");
        }
        let quoted = |word: &str| word.bytes().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
        let words: String = target.words.iter().map(|word| format!("\"{}\"\n", quoted(word))).collect();
        // An empty file is no dictionary.
        fs::write(folder.with_extension("words"), format!("# {name}\n{words}")).expect("a file of words");
    }
}

fuzz_target!(init: start(), |data: &[u8]| (TARGET.get().expect("chosen at the start").run)(data));

/// A file of the tests.
fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)).expect("a fixture")
}
