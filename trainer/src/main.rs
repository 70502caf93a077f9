fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let state = sketch_trainer::torch::read_state_dict(std::path::Path::new(&args[1]))?;
    let v = sketch_trainer::lite::Variant::of_weights(&state).unwrap();
    let a = sketch_trainer::lite::Architecture::of(v);
    for (p, n) in [(sketch_trainer::graph::Precision::Fp16, "16"), (sketch_trainer::graph::Precision::Fp32, "32")] {
        let m = sketch_trainer::lite::build_graph(&a, &state, &sketch_trainer::lite::Head::plain(512), p)?;
        std::fs::write(format!("{}{n}.onnx", args[2]), sketch_model::onnx::write(&m))?;
    }
    Ok(())
}
