//! The shipped network computes what its parts define.
//!
//! Needs ONNX Runtime: ONNXRUNTIME_LIB names its library, as `make test` sets it.

use std::path::Path;

use ndarray::{Array1, Array2, Axis};
use sketch_model::inference::encoder::{Domain, Encoder, EncoderOptions};
use sketch_model::inference::onnx;
use sketch_model::inference::onnx::build::{tensor_shape, tensor_values};
use sketch_model::manifest::Manifest;
use sketch_trainer::statistics::share_roots;

fn weights(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/weights").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("could not read {}: {error}", path.display()))
}

fn load() -> (Encoder, Manifest, onnx::ModelProto) {
    let library = std::env::var_os("ONNXRUNTIME_LIB").expect("ONNXRUNTIME_LIB must name ONNX Runtime's library");
    sketch_model::inference::runtime::init(Path::new(&library)).unwrap();
    let manifest = Manifest::from_json(&String::from_utf8(weights("lite2-sketch-2.json")).unwrap()).unwrap();
    let bytes = weights("lite2-sketch-2.onnx");
    let options = EncoderOptions { threads: 1, ..EncoderOptions::default() };
    (Encoder::load(&bytes, &manifest, &options).unwrap(), manifest, onnx::parse(&bytes).unwrap())
}

fn matrix(model: &onnx::ModelProto, name: &str) -> Array2<f32> {
    let graph = model.graph.as_ref().unwrap();
    let tensor = graph.initializer.iter().find(|tensor| tensor.name() == name).unwrap();
    let shape = tensor_shape(tensor).unwrap();
    Array2::from_shape_vec((shape[0], shape[1]), tensor_values(tensor).unwrap()).unwrap()
}

/// Images of smooth stripes, different for each seed, as inputs of the network.
fn stripes(count: usize, manifest: &Manifest) -> Vec<f32> {
    let length = manifest.input_len();
    let value = |seed: usize, i: usize| ((i % 224) as f32 * 0.03 * (seed + 1) as f32 + (i / 50_176) as f32).sin();
    (0..count).flat_map(|seed| (0..length).map(move |i| value(seed, i))).collect()
}

/// `embedding = normalise((sqrt(f / Σf) - mean[domain]) · P)`, with the square roots that the means were fitted to.
#[test]
fn embedding_is_made_of_features() {
    let (mut encoder, manifest, model) = load();
    let (means, projection) = (matrix(&model, "means"), matrix(&model, "projection.stored"));
    let batch = stripes(2, &manifest);
    for domain in [Domain::Sketch, Domain::Photo] {
        let features = encoder.run("features", domain, &batch, 2).unwrap();
        let embeddings = encoder.encode(domain, &batch, 2).unwrap();
        let roots = share_roots(features.view()).mapv(|root| root as f32);
        let projected = (roots - means.row(domain as usize)).dot(&projection);
        for (row, embedding) in projected.rows().into_iter().zip(embeddings.rows()) {
            let expected = &row / row.dot(&row).sqrt();
            let error = (&expected - &embedding).mapv(f32::abs).into_iter().fold(0.0, f32::max);
            assert!(error < 1e-5, "embedding is off by {error}");
        }
    }
}

/// The rotation spreads variance but preserves lengths: P has orthonormal columns, up to half precision.
#[test]
fn projection_keeps_distances() {
    let (_, manifest, model) = load();
    let projection = matrix(&model, "projection.stored");
    assert_eq!(projection.dim(), (1280, manifest.dimension));
    let identity = projection.t().dot(&projection);
    let worst = identity.indexed_iter().map(|((i, j), x)| (x - f32::from(u8::from(i == j))).abs()).fold(0.0, f32::max);
    assert!(worst < 2e-3, "columns are off orthonormal by {worst}");
}

#[test]
fn images_of_a_batch_do_not_touch_each_other() {
    let (mut encoder, manifest, _) = load();
    let batch = stripes(3, &manifest);
    let together = encoder.encode(Domain::Photo, &batch, 3).unwrap();
    for (i, image) in batch.chunks_exact(manifest.input_len()).enumerate() {
        let alone: Array1<f32> = encoder.encode(Domain::Photo, image, 1).unwrap().index_axis(Axis(0), 0).to_owned();
        let error = (&alone - &together.row(i)).mapv(f32::abs).into_iter().fold(0.0, f32::max);
        assert!(error < 1e-4, "image {i} is off by {error}");
    }
}
