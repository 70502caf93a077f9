use super::*;
use crate::inference::binding::rows_of;
use crate::inference::encoder::Domain;
use ndarray::Array2;
use ort::value::Tensor;

const SIZE: usize = 260;

/// Pictures of stripes of several widths and colours, as the network takes them.
fn pictures(count: usize) -> Vec<f32> {
    let value = |number: usize, at: usize| {
        let (channel, y, x) = (at / (SIZE * SIZE), at / SIZE % SIZE, at % SIZE);
        let wave = (x * (number + 1) + y * (number * 3 % 5)) as f32 / 40.0 + channel as f32 * number as f32;
        wave.sin() * 0.9
    };
    (0..count).flat_map(|number| (0..3 * SIZE * SIZE).map(move |at| value(number, at))).collect()
}

fn embed(session: &mut Session, domain: Domain, pixels: &[f32]) -> Array2<f32> {
    let images = pixels.len() / (3 * SIZE * SIZE);
    let inputs = ort::inputs![
        "image" => Tensor::from_array(([images, 3, SIZE, SIZE], pixels.to_vec())).unwrap(),
        "domain" => Tensor::from_array(([images], vec![domain as i64; images])).unwrap(),
    ];
    rows_of("embedding", &session.run(inputs).unwrap()["embedding"], images).unwrap()
}

/// Without its optimisations, ONNX Runtime computes the network that ships in single precision, as it does on a GPU: bytes
/// become numbers before each convolution and bytes after it. Both ways may round a byte to another one. The bound is the one
/// in docs/serving.md.
#[test]
fn integers_agree_with_single_precision() {
    let library = std::env::var_os("ONNXRUNTIME_LIB").expect("ONNXRUNTIME_LIB must name ONNX Runtime's library");
    runtime::init(library.as_ref()).unwrap();
    let onnx = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/weights/lite2-sketch-2.onnx")).unwrap();
    let options = EncoderOptions::new(Device::Cpu, 1);
    let open = |level| commit(builder(&options).unwrap().with_optimization_level(level).unwrap(), &onnx).unwrap();
    let (mut integers, mut plain) = (open(GraphOptimizationLevel::All), open(GraphOptimizationLevel::Disable));
    let pixels = pictures(6);
    for domain in [Domain::Sketch, Domain::Photo] {
        let difference = embed(&mut integers, domain, &pixels) - embed(&mut plain, domain, &pixels);
        let distances = difference.map_axis(ndarray::Axis(1), |row| row.dot(&row).sqrt());
        println!("{domain:?}: {distances:.4}");
        assert!(distances.iter().all(|distance| *distance < 0.05), "{domain:?}: {distances}");
    }
}
