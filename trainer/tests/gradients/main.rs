//! Checks every rule of the engine, and whole networks, against finite differences of a reference in double precision.
//!
//! Needs ONNX Runtime: ONNXRUNTIME_LIB names its library, as `make test` sets it.

mod activation;
mod adam;
mod arithmetic;
mod case;
mod check;
mod convolution;
mod linear;
mod network;
mod normalisation;
mod pooling;
mod reading;
mod reduction;
mod reference;
mod shape;
mod writing;
