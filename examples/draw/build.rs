//! Says how to get the part of the page that comes from npm, if it is not there.

use std::path::Path;

const SCRIPT: &str = "node_modules/signature_pad/dist/signature_pad.min.js";

fn main() {
    println!("cargo::rerun-if-changed={SCRIPT}");
    if !Path::new(SCRIPT).exists() {
        println!(
            "cargo::error=examples/draw/{SCRIPT} is missing; run \"make draw-server\", or \"npm ci\" in examples/draw"
        );
    }
}
