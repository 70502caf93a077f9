//! From the bytes of a photo or drawing to the pixels that the network takes.

mod container;
mod coverage;
pub mod decode;
pub mod drawing;
mod ink;
mod paper;
pub mod preprocess;
mod raster;
pub mod resize;
mod sheet;
pub mod strokes;
pub mod svg;
mod svg_guard;
mod thickness;
pub mod vector;
