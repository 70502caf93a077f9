//! Distance kernels side by side: look at the ratios.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::f16;
use sketch_model::codebook::Codebook;
use sketch_model::simd::available_kernels;
use std::hint::black_box;

/// A value for each dimension, about as large as an embedding's of unit length.
fn embedding(d: usize, step: f32) -> Vec<f16> {
    (0..d).map(|i| f16::from_f32((i as f32 * step).sin() * 0.06)).collect()
}

fn l2_squared(c: &mut Criterion) {
    for d in [512, 500] {
        let mut group = c.benchmark_group(format!("l2_squared/{d}"));
        group.throughput(Throughput::Bytes(2 * d as u64));
        let (a, b) = (embedding(d, 0.7), embedding(d, 1.3));
        for kernel in available_kernels() {
            let run = |b_: &mut criterion::Bencher| b_.iter(|| kernel.l2_squared(black_box(&a), black_box(&b)));
            group.bench_function(BenchmarkId::from_parameter(kernel.name()), run);
        }
    }
}

/// 512 dimensions, 2 subspaces of 64 prototypes.
fn fuse(c: &mut Criterion) {
    let centroids =
        ndarray::Array3::from_shape_fn((2, 64, 256), |(i, j, l)| ((i * 64 + j) as f32 * 0.1 + l as f32).sin());
    let codebook = Codebook::new(centroids, 0.2, 0).expect("a codebook");
    let embedding: Vec<f32> = embedding(512, 0.7).iter().map(|value| value.to_f32()).collect();
    c.bench_function("fuse/512", |b| b.iter(|| codebook.fuse(black_box(&embedding))));
}

criterion_group!(benches, l2_squared, fuse);
criterion_main!(benches);
