//! Trains a classifier for some steps and prints images per CPU-second: forward, backward and Adam, BatchNormalization on
//! the statistics of each batch.
//!
//! usage: bench_train FILE.onnx SIZE BATCH STEPS THREADS
//!
//! The file has one input, images `(n, 3, h, w)`, and one output, logits. ONNXRUNTIME_LIB names ONNX Runtime's library.
//! `tests/bench/train.sh` runs it beside PyTorch.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use sketch_model::inference::encoder::EncoderOptions;
use sketch_model::inference::onnx;
use sketch_model::inference::onnx::build::attribute_int;
use sketch_model::inference::onnx::messages::{DataType, ModelProto};
use sketch_trainer::engine::normalisation::{MOMENTUM, freeze};
use sketch_trainer::engine::optimizer::{Adam, Trained};
use sketch_trainer::engine::{Feed, Tape, TrainingSession, gradients};

/// Steps before the clock starts.
const WARM_UP: u64 = 1;
/// Clock ticks in a second, as `/proc` counts them on Linux.
const TICKS: f64 = 100.0;

struct Batch {
    image: Vec<f32>,
    size: usize,
    images: usize,
    classes: usize,
}

impl Batch {
    fn feeds(&self, input: &str) -> Vec<(String, Feed)> {
        let mut target = vec![0.0; self.images * self.classes];
        (0..self.images).for_each(|i| target[i * self.classes + i * 7 % self.classes] = 1.0);
        let shape = vec![self.images, 3, self.size, self.size];
        vec![
            (input.to_owned(), Feed::Floats(shape, self.image.clone())),
            ("target".to_owned(), Feed::Floats(vec![self.images, self.classes], target)),
        ]
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, numbers @ ..] = arguments.as_slice() else { anyhow::bail!("FILE is missing") };
    let numbers: Vec<usize> = numbers.iter().map(|number| number.parse()).collect::<Result<_, _>>()?;
    let [size, images, steps, threads] = numbers[..] else { anyhow::bail!("expected SIZE BATCH STEPS THREADS") };
    let library = std::env::var_os("ONNXRUNTIME_LIB").context("ONNXRUNTIME_LIB must name ONNX Runtime's library")?;
    sketch_model::inference::runtime::init(Path::new(&library))?;
    let mut model = onnx::parse(&std::fs::read(file)?)?;
    let graph = model.graph.as_mut().context("no graph")?;
    freeze(&mut graph.node);
    let image = (0..images * 3 * size * size).map(|i| (i * 7919 % 255) as f32 / 127.5 - 1.0).collect();
    let batch = Batch { image, size, images, classes: 1000 };
    let rate = run(&model, &batch, steps, threads)?;
    println!("engine {rate:.2}");
    Ok(())
}

/// Images per CPU-second.
fn run(model: &ModelProto, batch: &Batch, steps: usize, threads: usize) -> Result<f64> {
    let graph = model.graph.as_ref().context("no graph")?;
    let [input, output] = [&graph.input, &graph.output].map(|infos| infos.first().map_or("", |info| info.name()));
    let adam = Adam::default();
    let mut session = open(model, batch, [input, output], &adam, threads)?;
    let mut start = 0.0;
    for step in 1..=WARM_UP + steps as u64 {
        let feeds = batch.feeds(input).into_iter().chain(adam.feeds(1e-4, step)).collect();
        session.step(feeds)?;
        if step == WARM_UP {
            start = cpu_seconds()?;
        }
    }
    Ok((batch.images * steps) as f64 / (cpu_seconds()? - start))
}

fn open(
    model: &ModelProto,
    batch: &Batch,
    [input, output]: [&str; 2],
    adam: &Adam,
    threads: usize,
) -> Result<TrainingSession> {
    let mut tape = Tape::read(model)?;
    tape.input(input, DataType::Float, &[batch.images, 3, batch.size, batch.size]);
    tape.input("target", DataType::Float, &[batch.images, batch.classes]);
    let logarithms = tape.op("LogSoftmax", &[output], vec![]);
    let chosen = tape.op("Mul", &[&logarithms, "target"], vec![]);
    let sum = tape.op("ReduceSum", &[&chosen], vec![attribute_int("keepdims", 0)]);
    let share = tape.scalar(-1.0 / batch.images as f32);
    let loss = tape.op("Mul", &[&sum, &share], vec![]);
    tape.probe(batch.feeds(input))?;
    let layers = tape.layers();
    let mut state = tape.live_normalisation(0, MOMENTUM)?;
    let names: Vec<String> = layers.into_iter().flat_map(|layer| layer.weights).map(|(name, _)| name).collect();
    let mut values = HashMap::new();
    for name in &names {
        values.insert(name.clone(), tape.release(name)?.1);
    }
    let gradients = gradients(&mut tape, &loss, &names)?;
    let weights: Vec<Trained> = names.into_iter().map(|name| Trained { name, rate: 1.0, decays: true }).collect();
    state.extend(adam.add_to(&mut tape, &weights, &gradients, values)?);
    let options = EncoderOptions { threads, ..EncoderOptions::default() };
    Ok(TrainingSession::open(&tape, state, &[loss], &options)?)
}

/// User and system time of this process, all threads.
fn cpu_seconds() -> Result<f64> {
    let line = std::fs::read_to_string("/proc/self/stat")?;
    let (_, rest) = line.rsplit_once(')').context("unexpected form of /proc/self/stat")?;
    // Counted from the field after the name: 11 and 12 are utime and stime.
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / TICKS)
}
