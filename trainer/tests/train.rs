//! Trainings of a small network on generated shapes. Needs ONNX Runtime: ONNXRUNTIME_LIB names its library, as `make
//! test` sets it.

mod shapes;

use std::fs;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ndarray::Array2;
use sketch_model::inference::encoder::{Device, Domain, Encoder, EncoderOptions, open_session};
use sketch_model::inference::onnx::{self, ModelProto};
use sketch_model::limits::Limits;
use sketch_model::manifest::Manifest;
use sketch_trainer::augment::AugmentError;
use sketch_trainer::data::{DataError, DataSet, SKETCHY_SKETCHES};
use sketch_trainer::engine::session::run as run_session;
use sketch_trainer::engine::{Feed, Tape};
use sketch_trainer::precision::{Precision, narrow};
use sketch_trainer::progress::Progress;
use sketch_trainer::train::assemble::{Empty, assemble};
use sketch_trainer::train::material::{Collected, Start};
use sketch_trainer::train::run::{RunOptions, run};
use sketch_trainer::train::validation::{Forward, Weights};
use sketch_trainer::train::{Config, TrainError};

const OPTIONS: EncoderOptions = EncoderOptions::new(Device::Cpu, 1);

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let library = std::env::var_os("ONNXRUNTIME_LIB").expect("ONNXRUNTIME_LIB must name ONNX Runtime's library");
        sketch_model::inference::runtime::init(Path::new(&library)).unwrap();
        let path = std::env::temp_dir().join(format!("sketch-train-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Generated images of nine classes, three of them unseen.
    fn with_shapes(name: &str) -> Self {
        let folder = Self::new(name);
        shapes::write(&folder.0);
        folder
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A preset, reduced to the size of the shapes.
fn config(preset: &str, settings: &[&str]) -> Config {
    let small = [
        "network.train_from=\"late\"",
        "network.blend=1.0",
        "leave_out=[]",
        "loss.anchors=false",
        "batch.half=false",
        "batch.sketch_views=3",
        "batch.photo_views=2",
        "augment.sketch.turn=5.0",
        "schedule.rate=3e-3",
        "schedule.steps=200",
        "schedule.checkpoint=20",
        "schedule.warm_up=5",
    ];
    let settings: Vec<String> = small.iter().chain(settings).map(|&setting| setting.to_owned()).collect();
    Config::parse(Config::preset(preset).unwrap(), &settings).unwrap()
}

struct Training {
    config: Config,
    model: ModelProto,
    manifest: Manifest,
    data: DataSet,
    folder: PathBuf,
}

/// Stops a training after a step.
struct StopAfter {
    step: Option<u64>,
    done: AtomicU64,
    stop: AtomicBool,
}

impl Progress for StopAfter {
    fn advance(&self, count: u64) {
        let done = self.done.fetch_add(count, Ordering::Relaxed) + count;
        self.stop.store(self.step.is_some_and(|step| done >= step), Ordering::Relaxed);
    }
}

impl Training {
    fn new(folder: &Folder, config: Config) -> Self {
        let (model, manifest) = shapes::network();
        let data = DataSet::open(&folder.0).unwrap();
        let folder = folder.0.join("output");
        fs::create_dir_all(&folder).unwrap();
        Self { config, model, manifest, data, folder }
    }

    fn start(&self) -> Start<'_> {
        Start { model: &self.model, manifest: &self.manifest, options: &OPTIONS, progress: &() }
    }

    fn collected(&self) -> Result<Collected<'_>, TrainError> {
        Collected::new(slice::from_ref(&self.config), &self.data, self.start())
    }

    /// Runs to the end, or to step `stop_after`.
    fn run(&self, stop_after: Option<u64>) -> Result<Weights, TrainError> {
        let collected = self.collected()?;
        let material = collected.material(&self.config)?;
        let plan = collected.plan(&self.config, &material, self.start())?;
        let watch = StopAfter { step: stop_after, done: AtomicU64::new(0), stop: AtomicBool::new(false) };
        let (folder, origin, stop) = (self.folder.clone(), "test".to_owned(), &watch.stop);
        run(
            plan,
            &material,
            &RunOptions { config: &self.config, options: OPTIONS, folder, origin, progress: &watch, stop },
        )
    }

    /// The losses at every checkpoint.
    fn losses(&self) -> Vec<f64> {
        let text = fs::read_to_string(self.folder.join("metrics.jsonl")).unwrap();
        let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64().unwrap();
        // The line before the first step has no loss.
        text.lines().skip(1).map(line).collect()
    }

    /// Embeddings of the unseen sketches by the training graph.
    fn seen_in_training(&self, weights: &Weights) -> Array2<f32> {
        let collected = self.collected().unwrap();
        let material = collected.material(&self.config).unwrap();
        let plan = collected.plan(&self.config, &material, self.start()).unwrap();
        let validation = material.validation.unwrap();
        let queries = &validation.queries[0];
        let mut forward = Forward::open(&plan, &OPTIONS).unwrap();
        forward.embed(&queries.maps, queries.classes.len(), Domain::Sketch, weights).unwrap()
    }

    /// Inputs of the network for the unseen sketches, concatenated, and their number.
    fn sketches(&self) -> (Vec<f32>, usize) {
        let items = self.data.validation(SKETCHY_SKETCHES);
        let prepare = |bytes: Vec<u8>| self.manifest.prepare_sketch(&bytes, &Limits::default()).unwrap();
        (items.iter().flat_map(|item| prepare(item.bytes().unwrap())).collect(), items.len())
    }

    fn assembled(&self, weights: &Weights, empty: Empty) -> (ModelProto, Manifest) {
        assemble(&self.model, &self.manifest, &self.config, weights, empty).unwrap()
    }
}

fn assert_close(found: &Array2<f32>, expected: &Array2<f32>) {
    assert_eq!(found.dim(), expected.dim());
    let error = (found - expected).mapv(|x| x * x).sum().sqrt() / expected.mapv(|x| x * x).sum().sqrt();
    assert!(error < 1e-4, "relative error {error}");
}

#[test]
fn two_hundred_steps_learn_and_what_is_exported_is_what_was_trained() {
    for (preset, falls_to) in [("best", 0.8), ("seed", 0.93)] {
        let folder = Folder::with_shapes(&format!("learn-{preset}"));
        let training = Training::new(&folder, config(preset, &[]));
        let weights = training.run(None).unwrap();
        let losses = training.losses();
        assert_eq!(losses.len(), 10);
        assert!(losses[9] < falls_to * losses[0], "{preset}: {losses:?}");

        let (images, count) = training.sketches();
        let (model, manifest) = training.assembled(&weights, Empty::Nothing);
        let mut encoder = Encoder::load(&onnx::write(&model), &manifest, &OPTIONS).unwrap();
        let served = encoder.encode(Domain::Sketch, &images, count).unwrap();
        assert_close(&served, &training.seen_in_training(&weights));
    }
}

#[test]
fn a_training_that_was_stopped_ends_in_the_same_bits() {
    let steps = ["schedule.steps=40", "schedule.checkpoint=15"];
    let (whole, parts) = (Folder::with_shapes("whole"), Folder::with_shapes("parts"));
    let expected = Training::new(&whole, config("best", &steps)).run(None).unwrap();
    let training = Training::new(&parts, config("best", &steps));
    assert!(matches!(training.run(Some(7)), Err(TrainError::Stopped { step: 7.. })));
    let found = training.run(None).unwrap();
    assert_eq!(found.len(), expected.len());
    for (name, (_, values)) in &expected {
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
        assert_eq!(bits(&found[name].1), bits(values), "{name}");
    }
    let other = Training { config: config("best", &["schedule.steps=50"]), ..training };
    assert!(matches!(other.run(None), Err(TrainError::Checkpoint { .. })));
}

/// Photos keep the starting network, and a batch may mix both domains.
#[test]
fn photos_and_sketches_of_one_batch_go_their_own_ways() {
    let folder = Folder::with_shapes("mixed");
    let training = Training::new(&folder, config("best", &["schedule.steps=20"]));
    let weights = training.run(None).unwrap();
    let (images, count) = training.sketches();
    let embed = |model: &ModelProto, domains: Vec<i64>| {
        let (mut session, _, _) = open_session(&onnx::write(model), &OPTIONS).unwrap();
        let feeds = vec![
            ("image".to_owned(), Feed::Floats(vec![count, 3, 32, 32], images.clone())),
            ("domain".to_owned(), Feed::Integers(vec![count], domains)),
        ];
        let outputs = run_session(&mut session, feeds, &["embedding".to_owned()]).unwrap();
        let values = outputs[0].1.try_extract_tensor::<f32>().unwrap().1.to_vec();
        Array2::from_shape_vec((count, values.len() / count), values).unwrap()
    };
    let mut first = None;
    for empty in [Empty::Nothing, Empty::One] {
        let (assembled, _) = training.assembled(&weights, empty);
        let (sketches, photos) = (embed(&assembled, vec![0; count]), embed(&assembled, vec![1; count]));
        let mixed = embed(&assembled, (0..count).map(|i| i as i64 % 2).collect());
        for (i, row) in mixed.rows().into_iter().enumerate() {
            let expected = if i % 2 == 0 { sketches.row(i) } else { photos.row(i) };
            assert!(row.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{empty:?}, row {i}");
        }
        assert_close(&photos, &embed(&training.model, vec![1; count]));
        assert!((&sketches - &photos).mapv(f32::abs).sum() > 0.1);
        assert_close(&sketches, first.get_or_insert(sketches.clone()));
    }
}

#[test]
fn what_cannot_be_trained_is_named() {
    let folder = Folder::with_shapes("errors");
    let refused = |settings: &[&str]| match Training::new(&folder, config("best", settings)).run(None) {
        Ok(_) => panic!("{settings:?} trained"),
        Err(error) => error,
    };
    let error = refused(&["network.train_from=\"block99\""]);
    assert!(matches!(&error, TrainError::Layer { layer } if layer == "block99"), "{error:?}");
    let error = refused(&["leave_out=[\"Sketchy sketches\", \"QuickDraw drawings\"]"]);
    assert!(matches!(error, TrainError::NoImages { what: "sketches" }), "{error:?}");
    let error = refused(&["leave_out=[\"Caltech\"]"]);
    assert!(matches!(&error, TrainError::Data(DataError::Collection { name }) if name == "Caltech"), "{error:?}");
    let error = refused(&["shares={Caltech=0.5}"]);
    assert!(matches!(&error, TrainError::Data(DataError::Collection { name }) if name == "Caltech"), "{error:?}");
    let error = refused(&["loss.distill=3e38"]);
    assert!(matches!(error, TrainError::NotFinite { step: 1, checkpoint: 0 }), "{error:?}");

    let broken = folder.0.join("sketchy-mini/photo/square/broken.jpg");
    fs::write(&broken, b"no picture").unwrap();
    let error = refused(&[]);
    let names_it = |label: &str| label.ends_with("broken.jpg");
    assert!(
        matches!(&error, TrainError::View { label, source: AugmentError::Photo(_) } if names_it(label)),
        "{error:?}"
    );
    fs::remove_file(broken).unwrap();
}

#[test]
fn a_class_of_one_image_trains() {
    let folder = Folder::with_shapes("single");
    for file in fs::read_dir(folder.0.join("sketchy-mini/sketch/square")).unwrap().skip(1) {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    let training = Training::new(&folder, config("best", &["schedule.steps=5", "schedule.checkpoint=5"]));
    assert!(training.run(None).is_ok());
    assert!(training.losses()[0].is_finite());
}

/// The error is at most half a step of the channel for 8-bit kernels, and 2^-11 of the value in half precision.
#[test]
fn what_is_stored_in_fewer_bytes_is_read_back() {
    let (model, _) = shapes::network();
    let values = |model: &ModelProto| Tape::read(model).unwrap().constant_values("late.weight").unwrap().unwrap();
    let original = values(&model);
    for precision in [Precision::Fp32, Precision::Fp16, Precision::Int8Weights] {
        let mut stored = model.clone();
        narrow(&mut stored, precision).unwrap();
        let found = values(&stored);
        assert_eq!(found.len(), original.len());
        for (channel, read) in original.chunks_exact(16 * 9).zip(found.chunks_exact(16 * 9)) {
            let greatest = channel.iter().fold(0.0f32, |greatest, value| greatest.max(value.abs()));
            for (value, read) in channel.iter().zip(read) {
                let allowed = match precision {
                    Precision::Fp32 => 0.0,
                    Precision::Fp16 => value.abs() / 2048.0 + 1e-7,
                    Precision::Int8Weights | Precision::Int8 => greatest / 254.0 * 1.001,
                };
                assert!((value - read).abs() <= allowed, "{precision:?}: {value} read as {read}");
            }
        }
        let smaller = onnx::write(&stored).len() as f32 / onnx::write(&model).len() as f32;
        assert!(precision == Precision::Fp32 || smaller < 0.85, "{precision:?}: {smaller}");
    }
}
