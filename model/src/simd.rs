//! The inner loops that use the CPU's vector instructions.

pub mod distance;
