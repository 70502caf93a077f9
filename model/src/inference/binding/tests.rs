use super::*;
use crate::inference::encoder::{EncoderOptions, open_session};
use crate::inference::runtime;

/// Buffers are reused from run to run and from size to size, and return what a plain run does.
#[test]
fn bound_buffers_return_what_a_plain_run_does() {
    let library = std::env::var_os("ONNXRUNTIME_LIB").expect("ONNXRUNTIME_LIB must name ONNX Runtime's library");
    runtime::init(library.as_ref()).unwrap();
    let onnx = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/weights/lite2-sketch-2.onnx")).unwrap();
    let options = EncoderOptions::new(Device::Cpu, 1);
    let (mut session, _, _) = open_session(&onnx, &options).unwrap();
    let mut bindings = Bindings::plain().unwrap();
    let run = RunOptions::new().unwrap();
    for images in [1, 3, 1] {
        for fill in [0.1f32, 0.4] {
            let shape = [images, 3, 260, 260];
            let batch: Vec<f32> = (0..images * 3 * 260 * 260).map(|i| fill * ((i % 97) as f32 / 97.0 - 0.5)).collect();
            let domains = vec![1i64; images];
            let found = bindings.run(&mut session, "embedding", shape, &batch, Some(domains.clone()), &run).unwrap();
            let inputs = ort::inputs![
                "image" => Tensor::from_array((shape, batch)).unwrap(),
                "domain" => Tensor::from_array(([images], domains)).unwrap(),
            ];
            let outputs = session.run(inputs).unwrap();
            assert_eq!(found, rows_of("embedding", &outputs["embedding"], images).unwrap());
        }
    }
    assert_eq!(bindings.bound.len(), 2);
}
