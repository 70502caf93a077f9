//! What makes networks for pg_sketch and measures them; the command line is in `main.rs`.

pub mod graph;
pub mod lite;
pub mod torch;
