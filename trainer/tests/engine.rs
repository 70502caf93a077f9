//! The engine on whole networks. Needs ONNX Runtime: ONNXRUNTIME_LIB names its library, as `make test` sets it.

use std::collections::HashMap;
use std::path::Path;

use sketch_model::encoder::EncoderOptions;
use sketch_model::onnx;
use sketch_model::onnx::messages::DataType;
use sketch_trainer::engine::optimizer::{Adam, Trained};
use sketch_trainer::engine::{Feed, Tape, TrainingSession, gradients};

#[test]
fn lite0_trains() {
    let library = std::env::var_os("ONNXRUNTIME_LIB").expect("ONNXRUNTIME_LIB must name ONNX Runtime's library");
    sketch_model::runtime::init(Path::new(&library)).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/weights/lite0.onnx");
    let model = onnx::parse(&std::fs::read(path).unwrap()).unwrap();
    let mut tape = Tape::read(&model).unwrap();
    let size: usize = std::env::var("SIZE").map_or(112, |x| x.parse().unwrap());
    let n: usize = std::env::var("BATCH").map_or(32, |x| x.parse().unwrap());
    let first: usize = std::env::var("FIRST").map_or(0, |x| x.parse().unwrap());
    let live = std::env::var("LIVE").is_ok();
    tape.input("image", DataType::Float, &[n, 3, size, size]);
    tape.input("domain", DataType::Int64, &[n]);
    tape.input("target", DataType::Float, &[n, 512]);
    let difference = tape.op("Sub", &["embedding", "target"], vec![]);
    let square = tape.op("Mul", &[&difference, &difference], vec![]);
    let loss = tape.op("ReduceMean", &[&square], vec![onnx::build::attribute_int("keepdims", 0)]);
    let image: Vec<f32> = (0..n * 3 * size * size).map(|i| ((i * 7919) % 255) as f32 / 127.5 - 1.0).collect();
    let target: Vec<f32> = (0..n * 512).map(|i| (((i * 104729) % 101) as f32 / 50.0 - 1.0) * 0.08).collect();
    let feeds = || {
        vec![
            ("image".to_owned(), Feed::Floats(vec![n, 3, size, size], image.clone())),
            ("domain".to_owned(), Feed::Integers(vec![n], (0..n).map(|i| (i % 2) as i64).collect())),
            ("target".to_owned(), Feed::Floats(vec![n, 512], target.clone())),
        ]
    };
    let _ = live;
    let start = std::time::Instant::now();
    tape.probe(feeds()).unwrap();
    println!("probe {:?}", start.elapsed());
    let layers = tape.layers();
    println!("{} layers", layers.len());
    let names: Vec<String> =
        layers.iter().skip(first).flat_map(|layer| layer.weights.iter().map(|(name, _)| name.clone())).collect();
    let mut values = HashMap::new();
    for name in &names {
        values.insert(name.clone(), tape.release(name).unwrap().1);
    }
    let gradients = gradients(&mut tape, &loss, &names).unwrap();
    println!(
        "{} weights, {} gradients, {} nodes",
        names.len(),
        gradients.len(),
        tape.model(&[loss.clone()]).graph.unwrap().node.len()
    );
    let adam = Adam::default();
    let weights: Vec<Trained> =
        names.iter().map(|name| Trained { name: name.clone(), rate: 1.0, decays: false }).collect();
    let state = adam.add_to(&mut tape, &weights, &gradients, values).unwrap();
    let threads: usize = std::env::var("THREADS").map_or(1, |x| x.parse().unwrap());
    let options = EncoderOptions { threads, ..EncoderOptions::default() };
    let start = std::time::Instant::now();
    let mut session = TrainingSession::open(&tape, state, &[loss], &options).unwrap();
    println!("open {:?}", start.elapsed());
    for step in 1..=8 {
        let start = std::time::Instant::now();
        let mut all = feeds();
        all.extend(adam.feeds(1e-3, step));
        let report = session.step(all).unwrap();
        let seconds = start.elapsed().as_secs_f64();
        println!("step {step}: loss {:.6} {:.1} images/s", report[0][0], n as f64 / seconds);
    }
}
