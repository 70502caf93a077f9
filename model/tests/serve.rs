//! Devices, runners and half precision, with the network that ships. Needs ONNX Runtime: ONNXRUNTIME_LIB names its
//! library, as `make test` sets it.

use ndarray::ArrayView1;
use sketch_model::inference::device::{Device, OpenVinoTarget};
use sketch_model::inference::encoder::{Domain, Encoder, EncoderError, EncoderOptions, Stop};
use sketch_model::inference::onnx::build::{Size, attribute_int, attribute_ints, node, tensor_f32, value_info};
use sketch_model::inference::onnx::messages::{DataType, GraphProto, OperatorSetIdProto};
use sketch_model::inference::onnx::{self, ModelProto, half, single};
use sketch_model::inference::pool::Pool;
use sketch_model::inference::runner::{Event, Graph, Job, Runner, RunnerError, Source, Wake};
use sketch_model::inference::runtime;
use sketch_model::limits::Limits;
use sketch_model::manifest::Manifest;
use sketch_model::simd::to_f16;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn library() -> PathBuf {
    let path =
        PathBuf::from(std::env::var_os("ONNXRUNTIME_LIB").expect("ONNXRUNTIME_LIB must name ONNX Runtime's library"));
    runtime::init(&path).unwrap();
    path
}

fn shipped() -> (Vec<u8>, Manifest) {
    let read =
        |ending| std::fs::read(format!("{}/weights/lite2-sketch-2.{ending}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    (read("onnx"), Manifest::from_json(&String::from_utf8(read("json")).unwrap()).unwrap())
}

fn options(device: Device) -> EncoderOptions {
    EncoderOptions::new(device, 1)
}

/// Pixels of a picture that differs from those of other numbers.
fn picture(manifest: &Manifest, number: usize) -> Vec<u8> {
    (0..manifest.input_len()).map(|i| ((i / 3) * (number + 3) % 251) as u8).collect()
}

fn tensor(manifest: &Manifest, pictures: &[Vec<u8>]) -> Vec<f32> {
    let mut tensor = Vec::new();
    pictures.iter().for_each(|pixels| manifest.normalise_into(pixels, &mut tensor));
    tensor
}

#[test]
fn devices_are_named_and_numbered() {
    let names = ["auto", "cpu", "cuda:0", "cuda:7", "tensorrt:1", "rocm:2", "coreml", "openvino", "openvino:npu"];
    for name in names {
        let device: Device = name.parse().unwrap();
        assert_eq!(device.to_string(), name);
        assert_eq!(Device::from_code(device.code()), Some(device));
    }
    assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda(0));
    assert_eq!("openvino:gpu".parse::<Device>().unwrap(), Device::OpenVino(OpenVinoTarget::Gpu));
    for name in ["", "gpu", "cpu:1", "cuda:", "cuda:-1", "cuda:65536", "openvino:tpu", "auto:0", "CUDA"] {
        assert_eq!(name.parse::<Device>().unwrap_err().to_string(), format!("device \"{name}\" is unknown"));
    }
    assert_eq!(Device::from_code(7 << 16), None);
    assert_eq!(Device::from_code(5 << 16 | 1), None);
}

#[test]
fn batches_are_padded_to_sizes_that_a_gpu_was_warmed_up_with() {
    for max_batch in [1, 6, 8, 100] {
        let sizes = Device::Cuda(0).batch_sizes(max_batch);
        assert!(sizes.len() <= 8 && sizes.is_sorted());
        for images in 1..=max_batch {
            let padded = Device::Cuda(0).padded(images, max_batch);
            assert!(padded >= images && padded <= max_batch && sizes.contains(&padded));
            assert_eq!(Device::Cpu.padded(images, max_batch), images);
        }
    }
}

/// An explicit device that is not there is an error that says why; `auto` goes on without.
#[test]
fn a_device_that_is_not_there_is_an_error_and_auto_falls_back() {
    library();
    let (onnx, manifest) = shipped();
    let absent = [
        (Device::TensorRt(0), "tensorrt:0", "TensorRT"),
        (Device::Rocm(1), "rocm:1", "ROCm"),
        (Device::CoreMl, "coreml", "CoreML"),
        (Device::OpenVino(OpenVinoTarget::Cpu), "openvino:cpu", "OpenVINO"),
    ];
    for (device, name, provider) in absent {
        match Encoder::load(&onnx, &manifest, &options(device)) {
            Err(error @ EncoderError::Device { .. }) => {
                assert_eq!(error.to_string(), format!("device \"{name}\" is not available"));
                let EncoderError::Device { reason, .. } = error else { unreachable!() };
                // By the provider's own name, or by that of the library that was not found.
                assert!(reason.contains(provider) || reason.contains(&provider.to_lowercase()), "{reason}");
            }
            Ok(encoder) => assert_eq!(encoder.device(), device, "it is there, and was taken"),
            Err(other) => panic!("{other}"),
        }
    }
    let encoder = Encoder::load(&onnx, &manifest, &options(Device::Auto)).unwrap();
    assert_ne!(encoder.device(), Device::Auto);
    assert_eq!(encoder.device() == Device::Cpu, encoder.fallback().is_some());
    let manifest = Manifest { half_precision: true, ..manifest };
    let options = EncoderOptions { memory_limit: 1 << 30, max_batch: 4, ..options(Device::Cpu) };
    let encoder = Encoder::load(&onnx, &manifest, &options).unwrap();
    assert_eq!((encoder.device(), encoder.fallback()), (Device::Cpu, None));
}

/// The graphs that GPUs take: inputs and outputs of the same types, and embeddings within the precision of their numbers.
#[test]
fn graphs_in_other_precisions_embed_alike() {
    library();
    let (onnx, manifest) = shipped();
    let whole = onnx::parse(&onnx).unwrap();
    assert!(onnx::is_quantised(&whole));
    let single = single::to_single(&whole).unwrap();
    assert!(!onnx::is_quantised(&single));
    let half = onnx::write(&half::to_half(&single));
    let fixture = |name| std::fs::read(format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let limits = Limits::default();
    let sketch = manifest.render_sketch(&fixture("face.json"), &limits).unwrap().into_raw();
    let photo = manifest.render_photo(&fixture("photo_444.jpg"), &limits).unwrap().into_raw();
    let inputs = tensor(&manifest, &[sketch, photo]);
    let embed = |graph: &[u8]| {
        let mut encoder = Encoder::load(graph, &manifest, &options(Device::Cpu)).unwrap();
        encoder.encode_stoppable(&[Domain::Sketch, Domain::Photo], &inputs, &Stop::new().unwrap()).unwrap()
    };
    let [whole, single, half] = [&onnx, &onnx::write(&single), &half].map(|graph| embed(graph));
    let distance = |a: ArrayView1<f32>, b: ArrayView1<f32>| (&a - &b).mapv(|x| x * x).sum().sqrt();
    for image in 0..2 {
        let of_whole = distance(whole.row(image), single.row(image));
        let of_half = distance(half.row(image), single.row(image));
        assert!(of_whole > 0.0 && of_whole < 0.1, "{of_whole}");
        assert!(of_half > 0.0 && of_half < 0.02, "{of_half}");
    }
}

/// A batch is its images one by one, and images of one batch do not touch each other, whatever their domains.
#[test]
fn a_batch_embeds_as_its_images_do_alone() {
    library();
    let (onnx, manifest) = shipped();
    let mut encoder = Encoder::load(&onnx, &manifest, &options(Device::Cpu)).unwrap();
    let pictures: Vec<_> = (0..4).map(|number| picture(&manifest, number)).collect();
    let domains = [Domain::Photo, Domain::Sketch, Domain::Sketch, Domain::Photo];
    let stop = Stop::new().unwrap();
    let together = encoder.encode_stoppable(&domains, &tensor(&manifest, &pictures), &stop).unwrap();
    for ((row, pixels), domain) in together.outer_iter().zip(&pictures).zip(domains) {
        let alone = encoder.encode(domain, &tensor(&manifest, std::slice::from_ref(pixels)), 1).unwrap();
        for (a, b) in row.iter().zip(alone.iter()) {
            assert!((a - b).abs() <= b.abs().max(f32::powi(2.0, -14)) * f32::powi(2.0, -11), "{a} {b}");
        }
    }
    stop.stop();
    let stopped = encoder.encode_stoppable(&domains, &tensor(&manifest, &pictures), &stop);
    assert!(matches!(stopped, Err(EncoderError::Stopped)));
    assert!(encoder.encode(Domain::Photo, &tensor(&manifest, &pictures), 4).is_ok());
}

/// Sessions that share weights embed to the bit as one that has its own, and outlive the one they were made of.
#[test]
fn sessions_that_share_weights_embed_the_same() {
    library();
    let (onnx, manifest) = shipped();
    let tensor = tensor(&manifest, &[picture(&manifest, 0), picture(&manifest, 1)]);
    let mut own = Encoder::load(&onnx, &manifest, &options(Device::Cpu)).unwrap();
    assert!(own.optimised().is_none());
    let sharing = EncoderOptions { share_weights: true, ..options(Device::Cpu) };
    let mut first = Encoder::load(&onnx, &manifest, &sharing).unwrap();
    let mut again = Encoder::load_optimised(first.optimised().unwrap(), &manifest, &options(Device::Cpu)).unwrap();
    for domain in [Domain::Sketch, Domain::Photo] {
        let expected = own.encode(domain, &tensor, 2).unwrap();
        assert_eq!(first.encode(domain, &tensor, 2).unwrap(), expected);
        assert_eq!(again.encode(domain, &tensor, 2).unwrap(), expected);
    }
    let expected = own.encode(Domain::Sketch, &tensor, 2).unwrap();
    drop(first);
    assert_eq!(again.encode(Domain::Sketch, &tensor, 2).unwrap(), expected);

    let other = Manifest { dimension: 256, ..manifest.clone() };
    assert!(matches!(
        Encoder::load_optimised(again.optimised().unwrap(), &other, &options(Device::Cpu)),
        Err(EncoderError::Signature { .. })
    ));
}

fn next(poll: impl FnMut() -> Result<Option<Event>, RunnerError>) -> Result<Event, RunnerError> {
    let mut poll = poll;
    loop {
        if let Some(event) = poll()? {
            return Ok(event);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn source(runtime: PathBuf, onnx: Vec<u8>, manifest: Manifest) -> Source {
    Source { runtime, graph: Graph::Onnx(onnx.into()), manifest, options: options(Device::Cpu) }
}

#[test]
fn a_runner_embeds_stops_and_goes_on() {
    let runtime = library();
    let (onnx, manifest) = shipped();
    let rings = Arc::new(AtomicUsize::new(0));
    let counted = rings.clone();
    let wake: Wake = Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let mut runner = Runner::start(source(runtime, onnx, manifest.clone()), wake).unwrap();
    assert!(runner.is_busy());
    let Event::Loaded(Ok(loaded), _) = next(|| runner.poll()).unwrap() else { panic!("not loaded") };
    assert_eq!(loaded.device, Device::Cpu);
    let job = |images: usize| {
        let mut job = Job::new().unwrap();
        (0..images).for_each(|i| job.push(i, Domain::Sketch, &manifest, &picture(&manifest, i)).unwrap());
        job
    };
    runner.run(job(2)).unwrap();
    let Event::Done { embeddings, .. } = next(|| runner.poll()).unwrap() else { panic!("not done") };
    assert!(embeddings.iter().all(|(_, embedding)| embedding.as_ref().unwrap().len() == manifest.dimension));
    assert_eq!(embeddings.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0, 1]);

    // A long batch ends soon after it is stopped, and the one that waits behind it is not affected.
    runner.run(job(64)).unwrap();
    assert!(runner.is_busy() && runner.has_room());
    runner.run(job(1)).unwrap();
    assert!(!runner.has_room());
    std::thread::sleep(Duration::from_millis(30));
    let stopped = Instant::now();
    runner.stop_if(|places| places.len() == 64);
    let Event::Done { embeddings, .. } = next(|| runner.poll()).unwrap() else { panic!("not done") };
    assert!(embeddings.iter().all(|(_, embedding)| matches!(embedding, Err(EncoderError::Stopped))));
    assert!(stopped.elapsed() < Duration::from_secs(1), "{:?}", stopped.elapsed());
    let Event::Done { embeddings, .. } = next(|| runner.poll()).unwrap() else { panic!("not done") };
    assert!(embeddings.len() == 1 && embeddings[0].1.is_ok());
    assert!(!runner.is_busy());

    // An image of another size is not taken, and the job is as before.
    let mut mixed = job(1);
    let error = mixed.push(1, Domain::Photo, &manifest, &picture(&manifest, 1)[3..]).unwrap_err();
    assert!(matches!(error, EncoderError::Batch { images: 1, .. }));
    runner.run(mixed).unwrap();
    let Event::Done { embeddings, .. } = next(|| runner.poll()).unwrap() else { panic!("not done") };
    assert!(embeddings.len() == 1 && embeddings[0].1.is_ok());

    assert!(runner.end(Duration::from_secs(5)));
    assert!(rings.load(Ordering::Relaxed) >= 5);
    assert!(matches!(runner.run(job(1)), Err(RunnerError::Ended)));
}

/// A network that cannot look at white pictures, for their mean is no row of its table.
fn choosy() -> (Vec<u8>, Manifest) {
    let mut manifest = shipped().1;
    manifest.dimension = 2;
    manifest.domain_input = false;
    manifest.input.size = 16;
    manifest.input.std = [0.25; 3];
    let n = Size::Named("n");
    let axes = vec![attribute_ints("axes", &[1, 2, 3]), attribute_int("keepdims", 0)];
    let graph = GraphProto {
        name: Some("choosy".into()),
        node: vec![
            node("ReduceMean", &["image"], &["mean"], axes),
            node("Cast", &["mean"], &["row"], vec![attribute_int("to", DataType::Int64 as i64)]),
            node("Gather", &["table", "row"], &["embedding"], vec![]),
        ],
        initializer: vec![tensor_f32("table", &[1, 2], &[0.6, 0.8]).unwrap()],
        input: vec![value_info("image", DataType::Float, &[n, Size::Fixed(3), Size::Fixed(16), Size::Fixed(16)])],
        output: vec![value_info("embedding", DataType::Float, &[n, Size::Fixed(2)])],
        ..GraphProto::default()
    };
    let model = ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(17) }],
        graph: Some(graph),
        ..ModelProto::default()
    };
    (onnx::write(&model), manifest)
}

#[test]
fn an_image_that_the_network_fails_on_spoils_nothing_but_itself() {
    let runtime = library();
    let (onnx, manifest) = choosy();
    let mut runner = Runner::start(source(runtime, onnx, manifest.clone()), Arc::new(|| ())).unwrap();
    let Event::Loaded(loaded, _) = next(|| runner.poll()).unwrap() else { panic!("not loaded") };
    loaded.unwrap();
    let mut job = Job::new().unwrap();
    for grey in [128u8, 255, 120] {
        job.push(grey.into(), Domain::Photo, &manifest, &vec![grey; manifest.input_len()]).unwrap();
    }
    runner.run(job).unwrap();
    let Event::Done { embeddings, .. } = next(|| runner.poll()).unwrap() else { panic!("not done") };
    let is_embedding = |i: usize| embeddings[i].1.as_ref().is_ok_and(|values| *values == to_f16(&[0.6, 0.8]));
    assert!(is_embedding(0) && is_embedding(2));
    assert!(matches!(embeddings[1], (255, Err(EncoderError::Run(_)))));
}

#[test]
fn a_runner_says_why_a_network_does_not_load() {
    let runtime = library();
    let (_, manifest) = shipped();
    let mut runner = Runner::start(source(runtime, vec![1, 2, 3], manifest), Arc::new(|| ())).unwrap();
    let Event::Loaded(Err(error), _) = next(|| runner.poll()).unwrap() else { panic!("loaded") };
    assert!(matches!(error, EncoderError::Onnx(_)), "{error}");
    assert!(matches!(next(|| runner.poll()), Err(RunnerError::Ended)));
}

#[test]
fn a_pool_gives_a_lone_image_all_threads_and_shares_out_many() {
    let runtime = library();
    let (onnx, manifest) = shipped();
    let options = EncoderOptions::new(Device::Cpu, 2);
    let woken = Arc::new(AtomicUsize::new(0));
    let wake: Wake = Arc::new({
        let woken = woken.clone();
        move || {
            woken.fetch_add(1, Ordering::AcqRel);
        }
    });
    let mut pool = Pool::start(Source { options, ..source(runtime, onnx, manifest.clone()) }, wake).unwrap();
    assert!(pool.is_busy() && pool.room(1).is_none());
    let Event::Loaded(loaded, _) = next(|| pool.poll()).unwrap() else { panic!("not loaded") };
    loaded.unwrap();
    assert!(!pool.is_busy() && pool.room(0).is_none());
    let job = |place: usize| {
        let mut job = Job::new().unwrap();
        job.push(place, Domain::Sketch, &manifest, &picture(&manifest, place)).unwrap();
        job
    };
    let mut run = |waiting, place, expected: Option<(usize, bool)>| {
        let room = pool.room(waiting);
        assert_eq!(room.map(|room| (room.share, room.is_ahead)), expected, "image {place}");
        if let Some(room) = room {
            pool.run(room, job(place)).unwrap();
        }
        room
    };
    let alone = run(1, 0, Some((1, false)));
    // The others do not wait for it: two idle runners take a half each, and then one more batch to go on with.
    let second = run(6, 1, Some((3, false)));
    let third = run(3, 2, Some((3, false)));
    assert!(alone != second && second != third);
    run(1, 3, Some((1, true)));
    run(1, 4, Some((1, true)));
    run(1, 5, None);
    let mut in_flight: Vec<usize> = pool.in_flight().flatten().copied().collect();
    in_flight.sort_unstable();
    assert_eq!(in_flight, [0, 1, 2, 3, 4]);

    // Whoever embeds it, an image has one embedding.
    let mut encoder = Encoder::load(&shipped().0, &manifest, &self::options(Device::Cpu)).unwrap();
    for _ in 0..5 {
        let Event::Done { embeddings, .. } = next(|| pool.poll()).unwrap() else { panic!("not done") };
        let [(place, embedding)] = embeddings.as_slice() else { panic!("one image for each job") };
        let picture = tensor(&manifest, &[picture(&manifest, *place)]);
        let expected = encoder.encode(Domain::Sketch, &picture, 1).unwrap();
        assert_eq!(*embedding.as_ref().unwrap(), to_f16(expected.as_slice().unwrap()), "image {place}");
    }
    assert!(!pool.is_busy());

    // Three have loaded, and run five jobs; all three end when they are told to, whether anybody waits for them or not.
    pool.end(Duration::ZERO);
    let deadline = Instant::now() + Duration::from_secs(60);
    while woken.load(Ordering::Acquire) < 3 + 5 + 3 {
        assert!(Instant::now() < deadline, "some do not end");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(pool.end(Duration::from_secs(60)));
}

#[test]
fn a_pool_of_one_runner_goes_on_while_it_grows() {
    let runtime = library();
    let (onnx, manifest) = shipped();
    let source = |threads| Source {
        options: EncoderOptions::new(Device::Cpu, threads),
        ..source(runtime.clone(), onnx.clone(), manifest.clone())
    };
    let start = |threads| {
        let mut pool = Pool::start_alone(source(threads), Arc::new(|| ())).unwrap();
        let Event::Loaded(loaded, _) = next(|| pool.poll()).unwrap() else { panic!("not loaded") };
        loaded.unwrap();
        pool
    };
    let embed = |pool: &mut Pool| {
        let mut job = Job::new().unwrap();
        job.push(0, Domain::Photo, &manifest, &picture(&manifest, 0)).unwrap();
        let room = pool.room(2).unwrap();
        assert!(!room.is_ahead);
        pool.run(room, job).unwrap();
    };
    let mut pool = start(2);
    pool.grow(source(2), Arc::new(|| ())).unwrap();
    embed(&mut pool);
    assert!(pool.room(2).unwrap().is_ahead, "the others still load");
    let (mut first, mut has_grown) = (None, false);
    while first.is_none() || !has_grown {
        match next(|| pool.poll()).unwrap() {
            Event::Done { embeddings, .. } => first = embeddings.into_iter().next(),
            Event::Loaded(loaded, _) => has_grown = loaded.is_ok(),
        }
    }
    let (place, first) = first.unwrap();
    assert_eq!(place, 0);
    for _ in 0..2 {
        embed(&mut pool);
    }
    assert!(pool.room(2).unwrap().is_ahead, "there are two");
    for _ in 0..2 {
        let Event::Done { embeddings, .. } = next(|| pool.poll()).unwrap() else { panic!("not done") };
        assert_eq!(embeddings[0].1.as_ref().unwrap(), first.as_ref().unwrap());
    }

    let mut broken = start(2);
    broken.grow(Source { graph: Graph::Onnx(vec![1].into()), ..source(2) }, Arc::new(|| ())).unwrap();
    let Event::Loaded(Err(_), _) = next(|| broken.poll()).unwrap() else { panic!("loaded") };
    embed(&mut broken);
    assert!(matches!(next(|| broken.poll()).unwrap(), Event::Done { .. }), "one goes on alone");

    let mut alone = start(1);
    alone.grow(source(1), Arc::new(|| ())).unwrap();
    assert!(!alone.is_busy(), "one thread cannot be shared");
}
